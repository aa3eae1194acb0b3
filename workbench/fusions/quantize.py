"""QuantizeLinear: merged, moved towards the product that it follows, and absorbed by it."""

from __future__ import annotations

import numpy as np

from workbench.fusions.anchors import PRODUCTS, dequantized, too_large
from workbench.fusions.attention import ends_attention
from workbench.fusions.cast_pairs import holds
from workbench.fusions.swaps import MOVERS, in_turn, second_output
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.network.remedies import ReadInstead
from workbench.records import Refusal, Remedy
from workbench.rewrite import (
    Match,
    Replaced,
    RewriteRule,
    marked_output,
    not_constant,
    second_consumer,
)
from workbench.rewrite.twins import Twins, read_the_first, same_operand

MERGE_QUANTIZE = RewriteRule(
    "merge_quantize",
    Twins(frozenset({"QuantizeLinear"})),
    read_the_first,
    shares_inner=True,
    exact=True,
    about="A tensor that several readers quantize alike is quantized once.",
)


# -- of a half type -----------------------------------------------------------------------
def _widened(match: Match) -> Refusal | None:
    wide, x = match.layer("cast").outputs[0], match["x"]
    if x.dtype.is_float and holds(wide.dtype, x.dtype):
        return None
    return Refusal(
        f"{wide.dtype.value} does not hold every {x.dtype.value}: the values would change",
        code="lossy_cast",
    )


def _directly(network: NetworkDefinition, match: Match) -> Replaced:
    q = match.root
    assert q.operator is not None
    return network.add_layer(
        q.operator, [match["x"], *q.inputs[1:]], q.attributes, name=q.name, cause=q.cause
    ).outputs[0]


QUANTIZE_HALF = RewriteRule(
    "quantize_half",
    lambda op, x: op.QuantizeLinear(op.Cast(x).called("cast"), ...),
    _directly,
    _widened,
    shares_inner=True,
    exact=True,
    about="A half is quantized as it is: the division widens it anyway.",
)
"""ONNX QuantizeLinear-23: input and scale may have different types, the scale's decides."""


def parameters(layer: Layer) -> tuple[Tensor, ...]:
    """Scale and, where there is one, zero point."""
    return tuple(t for t in layer.inputs[1:] if t is not None)


def per_tensor(layer: Layer) -> Refusal | None:
    """Why a Q or DQ is not one known scale for the whole tensor, or None."""
    for t in parameters(layer):
        if t.value is None:
            return not_constant(t)
    scale = layer.inputs[1]
    if scale is None or np.prod(scale.shape, dtype=int) == 1:
        return None
    return Refusal(
        f"'{scale.name}' has shape {scale.shape}: it quantizes per channel, activations are "
        "quantized per tensor",
        code="per_channel_activation",
    )


# -- moving -------------------------------------------------------------------------------
def _moved(network: NetworkDefinition, match: Match) -> Replaced:
    mover = match.layer("mover")
    return in_turn(network, match.root, mover, mover.inputs[0])


def _stays(match: Match) -> Refusal | None:
    mover = match.layer("mover")
    return second_output(mover) or per_tensor(match.root) or _merges_heads(mover)


def _merges_heads(mover: Layer) -> Refusal | None:
    """Why a shuffle of an attention's result stays beside it: the attention takes it in."""
    layer: Layer | None = mover
    while layer is not None and layer.op in MOVERS and layer.operator is not None:
        given = layer.inputs[0]
        layer = given.producer if given is not None else None
    if layer is None or not ends_attention(layer):
        return None
    return Refusal(
        f"'{layer.name}' is an attention, which finishes in floats and writes its heads side by "
        "side: what was shuffled is quantized then",
        code="attention",
        layers=(layer.name,),
    )


QUANTIZE_EARLIER = RewriteRule(
    "quantize_earlier",
    lambda op: op.QuantizeLinear(op.any(MOVERS, ...).called("mover"), ...),
    _moved,
    _stays,
    about="Quantizing before a pooling or a reshape gives the same, and moves fewer bytes.",
)


def _joins_quantized(network: NetworkDefinition, match: Match) -> Replaced:
    q, concat = match.root, match.layer("concat")
    assert q.operator is not None and concat.operator is not None
    parts = [
        network.add_layer(
            q.operator,
            [t, *q.inputs[1:]],
            q.attributes,
            name=f"{q.name}_part",
            origin=q.origin,
            cause=q.cause,
        ).outputs[0]
        for t in concat.inputs
    ]
    return network.add_layer(
        concat.operator,
        parts,
        concat.attributes,
        name=concat.name,
        origin=concat.origin,
        cause=concat.cause,
    ).outputs[0]


def _joins_floats(match: Match) -> Refusal | None:
    concat = match.layer("concat")
    for t in concat.inputs:
        if t is not None and t.is_network_output:
            return marked_output(t)
        others = [u for u in t.users if u is not concat] if t is not None else []
        if t is not None and others:
            return second_consumer(t, others)
    return per_tensor(match.root)


QUANTIZE_BEFORE_CONCAT = RewriteRule(
    "quantize_before_concat",
    lambda op: op.QuantizeLinear(op.Concat(...).called("concat"), ...),
    _joins_quantized,
    _joins_floats,
    about="Each part of a concatenation is quantized by the kernel that makes it.",
)


def _differs(match: Match) -> Refusal | None:
    q, dq = match.root, match.layer("dq")
    same = len(q.inputs) == len(dq.inputs) and all(
        same_operand(a, b) for a, b in zip(q.inputs[1:], dq.inputs[1:], strict=True)
    )
    if same and q.outputs[0].dtype is match["q"].dtype:
        return per_tensor(q)
    return Refusal(
        f"'{dq.name}' and '{q.name}' have different scales: the values are requantized",
        remedy="calibrate both tensors together",
        code="scales_differ",
        layers=(dq.name, q.name),
        mend=_same_scale(q, dq),
    )


def _same_scale(q: Layer, dq: Layer) -> Remedy | None:
    """Both layers by the first one's scale."""
    if q.operator is None or dq.operator is None or len(q.inputs) != len(dq.inputs):
        return None
    edits = [
        ReadInstead(q.name, i, b.name)
        for i, (a, b) in enumerate(zip(q.inputs, dq.inputs, strict=True))
        if i and a is not None and b is not None and not same_operand(a, b)
    ]
    title = f"quantize '{q.name}' by the scale of '{dq.name}'"
    return Remedy(title, tuple(edits), keeps_meaning=False) if edits else None


REQUANTIZE_PAIR = RewriteRule(
    "requantize_pair",
    lambda op, q: op.QuantizeLinear(op.DequantizeLinear(q, ...).called("dq"), ...),
    lambda network, match: match["q"],
    _differs,
    shares_inner=True,
    about="Dequantizing and quantizing again by the same scale changes nothing.",
)


# -- absorbing ----------------------------------------------------------------------------
def _not_absorbed(match: Match) -> Refusal | None:
    if dequantized(match.layer("anchor")) != (True, True):
        return Refusal(
            "its product runs in floating point; only an INT8 product writes INT8",
            remedy="request INT8 for it",
            code="product_is_float",
        )
    return per_tensor(match.root) or too_large(*match.layers)


ABSORB_QUANTIZE = RewriteRule(
    "absorb_quantize",
    lambda op: op.QuantizeLinear(op.anchored(PRODUCTS).called("anchor"), ...),
    refuse=_not_absorbed,
    about="An INT8 product writes INT8: its result never exists in floating point.",
)
