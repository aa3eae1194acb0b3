"""A tensor taken apart index by index: slices, which later layers read as views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.passes.monomials import number
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Match, Replaced, RewriteRule
from workbench.rewrite.derive import apply, shape_operand


@dataclass(frozen=True)
class Unbinding(RulePass):
    """Rewrites Gathers of one known index each, of the same tensor, as slices.

    Queries, keys and values that were stacked are taken apart like this.
    """

    name: str = "unbinding"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """One rule, rooted at each Gather."""
        return (UNBINDING,)


def _takes_one(layer: Layer) -> bool:
    if layer.operator is None or layer.op != "Gather":
        return False
    index, x = layer.inputs[1], layer.inputs[0]
    fixed = index is not None and index.shape == () and number(index) is not None
    return fixed and x is not None and isinstance(x.shape[_axis(layer)], int)


def _axis(layer: Layer) -> int:
    x = layer.inputs[0]
    assert x is not None
    return layer.attributes["axis"] % len(x.shape)


def _alone(match: Match) -> Refusal | None:
    x = match.root.inputs[0]
    assert x is not None
    beside = [u for u in x.users if u is not match.root and (_takes_one(u) or u.op == "Slice")]
    if beside:
        return None
    return Refusal(f"no other layer takes a part of '{x.name}'", code="alone")


def _sliced(network: NetworkDefinition, match: Match) -> Replaced:
    gather = match.root
    x, index = gather.inputs[0], number(gather.inputs[1])
    assert x is not None and index is not None
    axis = _axis(gather)
    first = int(index) % x.shape[axis]

    def written(value: int) -> Tensor:
        return network.constant(np.array([value], np.int64), f"{gather.name}_bound")

    part = apply(network, "Slice", x, written(first), written(first + 1), written(axis))
    shape = shape_operand(network, gather.outputs[0].shape, f"{gather.name}_shape")
    return apply(network, "Reshape", part, shape, allowzero=1)


UNBINDING = RewriteRule(
    "unbinding",
    lambda op: op.layer(_takes_one, described="a Gather of one known index", operators={"Gather"}),
    _sliced,
    _alone,
    about="A tensor that is taken apart index by index is read as slices.",
)
