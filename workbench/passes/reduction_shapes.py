"""Reductions without a reshape behind them, and with their axes written one way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.body import RESHAPES
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Match, Replaced, RewriteRule

REDUCTIONS = frozenset(
    {
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
    }
)

POOLS = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}
"""Pools over all that lies behind the channels, and the reduction that each is."""


@dataclass(frozen=True)
class ReductionShapes(RulePass):
    """Lets a reduction write the shape that is wanted of it: its axes kept as 1, or left out."""

    name: str = "reduction_shapes"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """Axes counted from the front; then a reshape of the result becomes ``keepdims``."""
        return (AXES_IN_FRONT, POOL_AND_RESHAPE, REDUCTION_AND_RESHAPE)


def axes_of(layer: Layer) -> tuple[int, ...] | None:
    """The axes that a reduction reduces, sorted; None where they are not known."""
    x = layer.inputs[0]
    assert x is not None
    rank, given = len(x.shape), layer.get_input(1)
    if given is None:
        return None if layer.attributes["noop_with_empty_axes"] else tuple(range(rank))
    if given.weight is None:
        return None
    axes = tuple(sorted(int(a) % rank for a in given.weight.array.reshape(-1)))
    if axes:
        return axes
    return None if layer.attributes["noop_with_empty_axes"] else tuple(range(rank))


def _counts_backwards(layer: Layer) -> bool:
    if layer.operator is None or layer.op not in REDUCTIONS:
        return False
    given = layer.get_input(1)
    if given is None or given.weight is None or not given.weight.array.size:
        return False
    axes = axes_of(layer)
    return axes is not None and axes != tuple(given.weight.array.reshape(-1).tolist())


def _from_the_front(network: NetworkDefinition, match: Match) -> Replaced:
    layer, axes = match.root, axes_of(match.root)
    given = layer.inputs[1]
    assert layer.operator is not None and given is not None
    sorted_axes = network.constant(np.array(axes, np.int64), given.name)
    return network.add_layer(
        layer.operator, [layer.inputs[0], sorted_axes], layer.attributes, name=layer.name
    ).outputs[0]


AXES_IN_FRONT = RewriteRule(
    "axes_in_front",
    lambda op: op.layer(
        _counts_backwards, described="a reduction over axes from the back", operators=REDUCTIONS
    ),
    _from_the_front,
    about="Axes are counted from the front, so that equal reductions look equal.",
)


def _kept(layer: Layer, reshape: Layer) -> int | None:
    """The ``keepdims`` that gives the reshape's result; None where neither does."""
    x = layer.inputs[0]
    assert x is not None
    axes = axes_of(layer)
    wanted = reshape.outputs[0].shape
    if axes is None:
        return None
    if wanted == tuple(d for a, d in enumerate(x.shape) if a not in axes):
        return 0
    return 1 if wanted == tuple(1 if a in axes else d for a, d in enumerate(x.shape)) else None


def _other_shape(match: Match) -> Refusal | None:
    layer, root = match.layer("reduction"), match.root
    if _kept(layer, root) is not None:
        return None
    return Refusal(
        f"'{root.name}' reshapes {layer.outputs[0].type} to {root.outputs[0].type}, which no "
        "reduction writes",
        code="shape_mismatch",
    )


def _shaped(network: NetworkDefinition, match: Match) -> Replaced:
    layer = match.layer("reduction")
    assert layer.operator is not None
    attributes = {**layer.attributes, "keepdims": _kept(layer, match.root)}
    return network.add_layer(layer.operator, layer.inputs, attributes, name=layer.name).outputs[0]


REDUCTION_AND_RESHAPE = RewriteRule(
    "reduction_and_reshape",
    lambda op: op.any(RESHAPES, op.any(REDUCTIONS, ...).called("reduction"), ...),
    _shaped,
    _other_shape,
    about="A reduction writes its result in the shape that is read.",
)


def _other_pool_shape(match: Match) -> Refusal | None:
    x, out = match["x"], match.root.outputs[0]
    if out.shape == x.shape[:2]:
        return None
    return Refusal(f"'{out.name}' is {out.type}, not one number a channel", code="shape_mismatch")


def _as_reduction(network: NetworkDefinition, match: Match) -> Replaced:
    pool, x = match.layer("pool"), match["x"]
    axes: Tensor = network.constant(np.arange(2, len(x.shape)), f"{pool.name}_axes")
    return network.add_layer(POOLS[pool.op], [x, axes], {"keepdims": 0}, name=pool.name).outputs[0]


POOL_AND_RESHAPE = RewriteRule(
    "pool_and_reshape",
    lambda op, x: op.any(RESHAPES, op.any(POOLS.keys(), x).called("pool"), ...),
    _as_reduction,
    _other_pool_shape,
    about="A global pool whose axes are dropped afterwards is a reduction without them.",
)
