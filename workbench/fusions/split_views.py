"""A Split whose parts are all read by layers that read views is no layer: each reads its slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workbench.fusions.attention import is_attention
from workbench.fusions.joins import is_join
from workbench.network import Cause, Layer, NetworkDefinition, Tensor
from workbench.records import Refusal
from workbench.rewrite import Match, Miss, Replaced, RewriteRule, marked_output


@dataclass(frozen=True)
class Splits:
    """Finds every Split."""

    operators: frozenset[str] = frozenset({"Split"})
    depth: int = 1
    size: int = 1

    def find(self, layer: Layer) -> Iterator[Match]:
        """The layer itself."""
        if layer.operator is not None:
            yield Match((layer,), layer)

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """None: a Split that has other readers is a match, which the rule refuses."""
        return None


def _reads_views(layer: Layer) -> bool:
    return is_attention(layer) or (is_join(layer) and layer.is_fused)


def _stays(match: Match) -> Refusal | None:
    split = match.root
    for t in split.outputs:
        if t.is_network_output:
            return marked_output(t)
        others = [u for u in t.users if not _reads_views(u)]
        if others:
            return Refusal(
                f"'{t.name}' is read by {others[0].op} '{others[0].name}', which reads no slice of "
                f"'{split.inputs[0].name if split.inputs[0] else ''}' in place",
                code="reads_no_views",
                tensors=(t.name,),
                layers=tuple(u.name for u in others),
            )
    if not isinstance(split.outputs[0].shape[_axis(split)], int):
        return Refusal("the sizes of its parts are only known at run time", code="dynamic_sizes")
    return None


def _axis(split: Layer) -> int:
    return split.attributes["axis"] % len(split.outputs[0].shape)


def _slices(network: NetworkDefinition, match: Match) -> Replaced:
    split = match.root
    axis, start = _axis(split), 0
    swaps: dict[Tensor, Tensor] = {}
    for part in split.outputs:
        stop = start + part.shape[axis]
        bounds = [
            network.constant(np.array([n], np.int64), f"{split.name}_bound")
            for n in (start, stop, axis)
        ]
        layer = network.add_layer(
            "Slice",
            [split.inputs[0], *bounds],
            name=f"{split.name}_part",
            origin=split.origin,
            cause=split.cause or Cause("Fuse", f"a part of {split.name}"),
        )
        swaps[part], start = layer.outputs[0], stop
    return swaps


SPLIT_VIEWS = RewriteRule(
    "split_views",
    Splits(),
    _slices,
    _stays,
    exact=True,
    about="Parts that are read in place need not be copied out first.",
)
