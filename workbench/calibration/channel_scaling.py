"""Factors per channel, moved from activations into the weights around them.

Factors are powers of two: dividing and multiplying by them rounds nothing, so that the float
network gives the same bits (short of overflow and subnormals), and each rewrite is checked anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.body import CONSTANT, Array, Body, BodyInput, Literal, Node, TensorType
from workbench.calibration.channel_groups import PRODUCTS, ChannelGroup, weight_axis
from workbench.checks import check_rewrite
from workbench.datatypes import DataType
from workbench.errors import NetworkError
from workbench.network import Layer, NetworkDefinition, Tensor, Weight
from workbench.network.graph import close
from workbench.network.ordering import producers_first
from workbench.operators import operator_named
from workbench.records import Attempt, Refusal, Stage
from workbench.rewrite.smaller import at_small_sizes

LARGEST = 2.0**24
"""Factors are kept between this and its inverse: beyond, float32 itself would lose bits."""


def power_of_two(factors: Array) -> Array:
    """Each factor's nearest power of two, float32; 1 where it is zero or not finite."""
    given = np.asarray(factors, np.float64)
    usable = np.isfinite(given) & (given > 0)
    exponent = np.rint(np.log2(np.where(usable, given, 1.0)))
    return np.exp2(np.clip(exponent, -np.log2(LARGEST), np.log2(LARGEST))).astype(np.float32)


def scale_group(
    network: NetworkDefinition, group: ChannelGroup, factors: Array, rule: str, *, verify: str
) -> Attempt:
    """Divide the group's tensors by ``factors`` (one a channel), channel by channel, in place.

    The Attempt says what was done, or why nothing was. verify: ``none`` leaves the numeric check
    out.
    """

    def refused(refusal: Refusal) -> Attempt:
        return Attempt(rule, group.label, False, refusal, stage=Stage.CALIBRATE)

    if group.refusal is not None:
        return refused(group.refusal)
    if np.all(factors == factors[0]):
        text = "its channels need the same factor: their ranges are equal within a factor of two"
        return refused(Refusal(text, code="already_equal"))
    layers = producers_first(
        dict.fromkeys((*group.sources, *group.keepers, *group.offsets, *group.sinks))
    )
    outputs = tuple(x.outputs[0] for x in group.sinks if x.outputs[0].name not in group.places)
    before = close(layers, outputs, None)
    edits = _edit(network, group, factors)
    after = close(layers, outputs, None)
    problem = "" if verify == "none" else _difference(before, after)
    if problem:
        for layer, index, old, _ in edits:
            network.replace_input(layer, index, old)
        _drop(network, [new for *_, new in edits])
        return refused(
            Refusal(
                f"quarantined: {problem}",
                remedy="report it; the build goes on without it",
                code="check_failed",
            )
        )
    _drop(network, [old for *_, old, _ in edits])
    low, high = (round(float(np.log2(f))) for f in (factors.min(), factors.max()))
    detail = f"{group.channels} channels divided by 2^{low} to 2^{high}"
    return Attempt(rule, group.label, True, stage=Stage.CALIBRATE, detail=detail)


Edits = list[tuple[Layer, int, Tensor, Tensor]]
"""(layer, index of its input, the constant before, the constant now)."""


def _edit(network: NetworkDefinition, group: ChannelGroup, factors: Array) -> Edits:
    edits: Edits = []

    def replace(layer: Layer, index: int, axis: int, by: Array, op: str) -> None:
        old = layer.inputs[index]
        if old is None or old.weight is None:
            return
        # A bias of one number, or of [1, n], still meets its channels from the right.
        rank = max(len(old.shape), 1)
        shape = [1] * rank
        shape[axis] = len(by)
        weight = _scaled(old.weight, by.reshape(shape), op, network)
        new = network.add_weight(weight)
        network.replace_input(layer, index, new)
        edits.append((layer, index, old, new))

    for layer in group.sources:
        by = group.of(factors, layer.outputs[0])
        weight = layer.inputs[1]
        assert weight is not None
        axis = weight_axis(layer, reads=False) if layer.op in PRODUCTS else 0
        replace(layer, 1, axis, by, "Div")
        if len(layer.inputs) > 2:
            replace(layer, 2, -1, by, "Div")
    for layer in group.offsets:
        index = next(i for i, t in enumerate(layer.inputs) if t is not None and t.is_constant)
        _offset(network, layer, index, group, factors, edits)
    for layer in group.sinks:
        read = layer.inputs[0]
        assert read is not None
        replace(layer, 1, weight_axis(layer, reads=True), group.of(factors, read), "Mul")
    return edits


def _offset(
    network: NetworkDefinition,
    layer: Layer,
    index: int,
    group: ChannelGroup,
    factors: Array,
    edits: Edits,
) -> None:
    """An added constant, divided along the channel axis of the sum."""
    old, out = layer.inputs[index], layer.outputs[0]
    assert old is not None and old.weight is not None
    rank, axis = len(out.shape), group.places[out.name].axis
    by = group.of(factors, out).reshape([-1] + [1] * (rank - 1 - axis))
    new = network.add_weight(_scaled(old.weight, by, "Div", network))
    network.replace_input(layer, index, new)
    edits.append((layer, index, old, new))


def _scaled(weight: Weight, by: Array, op: str, network: NetworkDefinition) -> Weight:
    """The weight times or over constant factors, with its recipe."""
    row = operator_named(op)
    kind = TensorType(DataType.of(weight.array), weight.array.shape)
    source = BodyInput("w", kind, constant=True)
    nodes = (
        Node(CONSTANT, (), ("by",), {"value": Literal.of(np.ascontiguousarray(by))}),
        Node(row, ("w", "by"), ("scaled",), row.complete({})),
    )
    name = network.unique(f"{weight.name}_equal")
    return Weight.derive(name, Body((source,), nodes, ("scaled",)), (weight,))


Closed = tuple[Body, tuple[Tensor, ...]]


def _difference(before: Closed, after: Closed) -> str:
    """By how much the layers now give something else than before; empty within the bound."""
    old, new = at_small_sizes(before[0], after[0])
    constants = [
        {t.name: t.weight.array for t in tensors if t.weight is not None}
        for _, tensors in (before, after)
    ]
    try:
        result = check_rewrite(
            old, new, constants=constants[0], after_constants=constants[1], seeds=(0,)
        )
    except NetworkError as e:
        return f"it could not be checked: {e}"
    return "" if result.passed else result.message


def _drop(network: NetworkDefinition, tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        network.remove_if_unread(tensor)
