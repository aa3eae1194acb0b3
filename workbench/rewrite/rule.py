"""RewriteRule: pattern, replacement, refusal; and the refusals that many rules share."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workbench import dimensions
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.records import Refusal
from workbench.rewrite.match import Finder, Match, PatternFinder
from workbench.rewrite.mending import expand, recompute, store, title_of, titles, unmark
from workbench.rewrite.pattern import Element, build_pattern


class Fuse(enum.Enum):
    """The replacement that keeps the matched layers, as the Body of one."""

    FUSE = "fuse"


FUSE = Fuse.FUSE
"""One layer whose Body is the matched layers, anchored at the match's anchor."""

Replaced = Tensor | Mapping[Tensor, Tensor] | Refusal
Replacement = Callable[[NetworkDefinition, Match], Replaced]
"""Builds the new layers beside the old ones and says what stands for what: a tensor for the root's
only output, or a mapping of old tensors to new ones (empty: the matched layers just go). It may
still refuse. It must not touch what is there: the engine checks, rewires and removes."""


@dataclass(frozen=True)
class RewriteRule:
    """One rewrite: what it looks for, what it makes of it, and when it does not.

    pattern: ``lambda op, x, w: op.MatMul(x, w)``, or a Finder for what no expression can say.
    refuse: asked once the engine's own checks have passed. Its parameters are the pattern's
    variables by name, or ``match``; it returns None, a Refusal, or just the reason.
    constants: variables that must be constants. shares_inner: True where inner tensors may have
    other readers (their layers then stay). changes_weights: each use is checked numerically by
    itself. exact: the result is the old computation itself, so that there is nothing to check.
    host: it may also move layers that only the host runs (see ``Layer.on_host``).
    any_size: it holds whatever the batch and the sizes behind the channels are, and is checked at
        small ones.
    about: one line for people.
    """

    name: str
    pattern: Callable[..., Element] | Finder
    replacement: Replacement | Fuse = FUSE
    refuse: Callable[..., Refusal | str | None] | None = None
    constants: tuple[str, ...] = ()
    shares_inner: bool = False
    changes_weights: bool = False
    exact: bool = False
    host: bool = False
    any_size: bool = False
    about: str = ""

    @cached_property
    def finder(self) -> Finder:
        """The compiled pattern."""
        if callable(self.pattern):
            return PatternFinder(build_pattern(self.pattern))
        return self.pattern

    @cached_property
    def _asked(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.refuse).parameters) if self.refuse else ()

    def refusal(self, match: Match) -> Refusal | None:
        """What the rule's own ``refuse`` says of a match."""
        if self.refuse is None:
            return None
        given: dict[str, Any] = {**match.tensors, "match": match}
        answer = self.refuse(*(given[n] for n in self._asked))
        return Refusal(answer, code=self.name) if isinstance(answer, str) else answer


def second_consumer(tensor: Tensor, others: list[Layer]) -> Refusal:
    """An inner tensor that layers outside the match read too."""
    return Refusal(
        f"'{tensor.name}' is also read by {titles(others)}",
        remedy="it must be written to memory anyway; give that reader a copy of the layer",
        code="second_consumer",
        tensors=(tensor.name,),
        layers=tuple(u.name for u in others),
        mend=recompute(tensor, others),
    )


def marked_output(tensor: Tensor) -> Refusal:
    """An inner tensor that the caller asked for."""
    return Refusal(
        f"'{tensor.name}' is a network output",
        remedy=f"unmark '{tensor.name}', or tap it instead",
        code="marked_output",
        tensors=(tensor.name,),
        mend=unmark(tensor),
    )


def not_constant(tensor: Tensor) -> Refusal:
    """An operand that would have to be known at build time."""
    maker = tensor.producer
    source = f"computed by {title_of(maker)}" if maker else "a network input"
    return Refusal(
        f"'{tensor.name}' is not a constant: it is {source}",
        remedy="store it in the model as an initializer",
        code="not_constant",
        tensors=(tensor.name,),
        layers=(maker.name,) if maker else (),
        mend=store(tensor),
    )


def not_same_shape(tensor: Tensor, wanted: Tensor, *, reader: Layer | None = None) -> Refusal:
    """An operand (of ``reader``) that would have to have another tensor's shape."""
    return Refusal(
        f"'{tensor.name}' has shape {_text(tensor)}, '{wanted.name}' has {_text(wanted)}",
        remedy="make the shapes equal",
        code="shape_mismatch",
        tensors=(tensor.name, wanted.name),
        mend=expand(reader, tensor, wanted) if reader is not None else None,
    )


def not_same_type(tensor: Tensor, wanted: Tensor) -> Refusal:
    """An operand that would have to have another tensor's element type."""
    return Refusal(
        f"'{tensor.name}' is {tensor.dtype.value}, '{wanted.name}' is {wanted.dtype.value}",
        remedy="make the types equal",
        code="type_mismatch",
        tensors=(tensor.name, wanted.name),
    )


def _text(tensor: Tensor) -> str:
    sizes = ", ".join(str(dimensions.dim_to_json(d)) for d in tensor.shape)
    return f"[{sizes}]"
