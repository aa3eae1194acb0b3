"""Finds layers that compute the same thing from the same operands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.network.remedies import EDIT
from workbench.rewrite.match import Match, Miss


@dataclass(frozen=True)
class Twins:
    """A Finder of a layer (root, ``later``) whose work an earlier one (``first``) does already."""

    operators: frozenset[str] | None = None
    depth: int = 1
    size: int = 2

    def find(self, layer: Layer) -> Iterator[Match]:
        """The first layer that computes what this one does."""
        if layer.operator is None or not layer.operator.deterministic:
            return
        given = [t for t in layer.inputs if t is not None]
        computed = [t for t in given if t.value is None]
        # Known sizes are written down for each reader: such layers share constants at most.
        shared = [min(computed, key=lambda t: len(t.users))] if computed else given
        near = dict.fromkeys(u for t in shared for u in t.users)
        reads = layer.reads
        twins = [
            x for x in near if x.reads == reads and x.place < layer.place and same_work(x, layer)
        ]
        if twins:
            first = min(twins, key=lambda x: x.place)
            yield Match((first, layer), layer, named={"first": first, "later": layer})

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """None: two layers either do the same or they do not."""
        return None


def read_the_first(network: NetworkDefinition, match: Match) -> dict[Tensor, Tensor]:
    """The replacement: whoever reads the later layer reads the first."""
    pairs = zip(match.layer("later").outputs, match.layer("first").outputs, strict=True)
    return dict(pairs)


def same_work(a: Layer, b: Layer) -> bool:
    """Whether two layers apply the same operator to the same operands."""
    return (
        not (made_by_hand(a) or made_by_hand(b))
        and a.operator == b.operator
        and a.attributes == b.attributes
        and len(a.outputs) == len(b.outputs)
        and a.reads == b.reads
    )


def made_by_hand(layer: Layer) -> bool:
    """Whether a person asked for this layer: a copy that was wanted is not merged again."""
    return layer.cause is not None and layer.cause.stage == EDIT


def same_operand(a: Tensor | None, b: Tensor | None) -> bool:
    """The same tensor, two small constants of equal value, or the same known sizes."""
    if a is b:
        return True
    return a is not None and b is not None and a.content == b.content
