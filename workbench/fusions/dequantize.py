"""DequantizeLinear: copied for each reader, and absorbed by the product that reads it."""

from __future__ import annotations

import numpy as np

from workbench.datatypes import DataType
from workbench.fusions.anchors import PRODUCTS, dequantized, too_large
from workbench.fusions.quantize import parameters, per_tensor
from workbench.fusions.swaps import MOVERS, in_turn, second_output
from workbench.network import Cause, Layer, NetworkDefinition, Tensor
from workbench.records import Refusal
from workbench.rewrite import Match, Replaced, RewriteRule, marked_output, not_constant
from workbench.tactics.strided import permutation


# -- moving -------------------------------------------------------------------------------
def _leads_to_product(tensor: Tensor) -> bool:
    """Whether all that reads it are products of dequantized factors, behind nothing but movers."""
    return bool(tensor.users) and all(_takes_in(u, tensor) for u in tensor.users)


def _takes_in(reader: Layer, tensor: Tensor) -> bool:
    if reader.op in MOVERS and reader.operator is not None:
        given = reader.inputs[0] is tensor and len(reader.outputs) == 1
        return given and _leads_to_product(reader.outputs[0])
    index = factor_index(reader, tensor) if reader.op in PRODUCTS else None
    if index not in (0, 1):
        return False
    other = reader.inputs[1 - index]
    return other is tensor or (other is not None and _is_dequantized(other))


def _is_dequantized(tensor: Tensor) -> bool:
    """Whether a DequantizeLinear made it, and nothing but movers came behind."""
    layer = tensor.producer
    while layer is not None and layer.op in MOVERS and layer.operator is not None:
        given = layer.inputs[0]
        layer = given.producer if given is not None else None
    return layer is not None and layer.op == "DequantizeLinear" and layer.operator is not None


def _turned_axis(match: Match) -> int | None:
    """Where a Transpose puts the axis along which the scales run; None if they run along none."""
    mover, dq = match.layer("mover"), match.layer("dq")
    scale, rank = dq.inputs[1], len(dq.outputs[0].shape)
    if mover.op != "Transpose" or scale is None or len(scale.shape) != 1 or scale.shape == (1,):
        return None
    return permutation(mover.attributes, rank).index(dq.attributes["axis"] % rank)


def _stays(match: Match) -> Refusal | None:
    mover, dq = match.layer("mover"), match.layer("dq")
    if mover.outputs[0].is_network_output:
        return marked_output(mover.outputs[0])
    if _turned_axis(match) is not None:
        return next((not_constant(t) for t in parameters(dq) if t.value is None), None)
    return second_output(mover) or per_tensor(dq)


def _later(network: NetworkDefinition, match: Match) -> Replaced:
    mover, dq, axis = match.layer("mover"), match.layer("dq"), _turned_axis(match)
    attributes = dq.attributes if axis is None else {**dq.attributes, "axis": axis}
    return in_turn(network, mover, dq, dq.inputs[0], attributes=attributes)


DEQUANTIZE_LATER = RewriteRule(
    "dequantize_later",
    lambda op: op.layer(
        lambda x: x.op in MOVERS and x.operator is not None and _leads_to_product(x.outputs[0]),
        op.DequantizeLinear(...).called("dq"),
        described="a shuffle that leads to a product",
        operators=MOVERS,
    ).called("mover"),
    _later,
    _stays,
    shares_inner=True,
    about="Integers are reshaped, transposed and pooled as they are, up to the product.",
)


# -- absorbing ----------------------------------------------------------------------------
def factor_index(layer: Layer, tensor: Tensor) -> int | None:
    """Which operand of the layer's anchor the tensor is; None where another node reads it."""
    body, operands = layer.body, layer.operands
    anchor = body.anchor_node
    names = [i.name for i, t in zip(body.inputs, operands, strict=True) if t is tensor]
    if anchor is None or not names:
        return None
    return next((i for i, v in enumerate(anchor.inputs) if v == names[0]), None)


def not_absorbed(match: Match) -> Refusal | None:
    """Why the product must read this tensor in floating point, or None."""
    reader, dq = match.layer("reader"), match.layer("dq")
    index = factor_index(reader, dq.outputs[0])
    if dequantized(reader) != (True, True):
        return _weight_only(reader, dq) or _float_product(reader, index)
    for t in parameters(dq):
        if t.value is None:
            return not_constant(t)
    if index == 1 and dq.inputs[0] is not None and dq.inputs[0].is_constant:
        return _wrong_axis(reader, dq)
    if index == 2:
        return None
    return per_tensor(dq)


def _weight_only(reader: Layer, dq: Layer) -> Refusal | None:
    """INT4's way: nothing to absorb, the product reads FP32 from a kernel of its own."""
    stored = dq.inputs[0]
    if stored is None or not stored.is_constant or stored.dtype is not DataType.INT4:
        return None
    return Refusal(
        f"INT4 is weight-only: '{reader.name}' multiplies FP32 values that '{dq.name}' unpacks",
        remedy="request INT8 for it, to multiply integers",
        code="weight_only",
    )


def _float_product(reader: Layer, index: int | None) -> Refusal:
    if index in (0, 1):
        return Refusal(
            f"'{reader.name}' multiplies it by a tensor that is not quantized",
            remedy="quantize its other factor too",
            code="other_factor_is_float",
        )
    return Refusal(
        f"'{reader.name}' multiplies in floating point",
        remedy="request INT8 for it",
        code="product_is_float",
    )


def weight_axis(layer: Layer) -> int:
    """The axis of the anchor's second operand that runs over output channels."""
    anchor = layer.body.anchor_node
    assert anchor is not None
    if anchor.op == "Conv":
        return 0
    if anchor.op == "Gemm":
        return 0 if anchor.attributes["transB"] else 1
    if anchor.op == "ConvTranspose":
        return 1
    return len(layer.body.types[anchor.inputs[1]].shape) - 1


def _wrong_axis(reader: Layer, dq: Layer) -> Refusal | None:
    scale, stored = dq.inputs[1], dq.inputs[0]
    assert scale is not None and stored is not None
    if np.prod(scale.shape, dtype=int) == 1:
        return None
    axis, wanted = dq.attributes["axis"] % len(stored.shape), weight_axis(reader)
    if axis == wanted and len(scale.shape) == 1:
        return None
    return Refusal(
        f"'{stored.name}' is quantized along axis {axis}, its output channels lie on {wanted}",
        remedy=f"quantize it along axis {wanted}",
        code="wrong_axis",
    )


def _is_shared(layer: Layer) -> bool:
    return layer.op == "DequantizeLinear" and len(layer.outputs[0].users) > 1


def _copied(network: NetworkDefinition, match: Match) -> Replaced:
    """The reader again, with a DequantizeLinear of its own."""
    reader, dq = match.layer("reader"), match.layer("dq")
    assert dq.operator is not None
    own = network.add_layer(
        dq.operator,
        dq.inputs,
        dq.attributes,
        name=f"{dq.name}_for_{reader.name}",
        origin=dq.origin,
        cause=dq.cause or Cause("Fuse", f"read by {reader.name} alone"),
    )
    old = dq.outputs[0]
    inputs = [own.outputs[0] if t is old else t for t in reader.inputs]
    if reader.operator is not None:
        new = network.add_layer(
            reader.operator,
            inputs,
            reader.attributes,
            name=reader.name,
            outputs=len(reader.outputs),
            origin=reader.origin,
            cause=reader.cause,
        )
    else:
        names = [network.unique(t.name) for t in reader.outputs]
        new = network.add_fused(
            reader.body,
            [t for t in inputs if t is not None],
            names,
            name=reader.name,
            origin=reader.origin,
            cause=reader.cause,
        )
    return dict(zip(reader.outputs, new.outputs, strict=True))


DUPLICATE_DEQUANTIZE = RewriteRule(
    "duplicate_dequantize",
    lambda op: op.anchored(
        PRODUCTS,
        op.layer(_is_shared, described="a DequantizeLinear with several readers").called("dq"),
    ).called("reader"),
    _copied,
    not_absorbed,
    shares_inner=True,
    exact=True,
    about="Each INT8 product reads the stored integers; a copy of the map costs nothing.",
)


def _refuse(match: Match) -> Refusal | None:
    return not_absorbed(match) or too_large(*match.layers)


ABSORB_DEQUANTIZE = RewriteRule(
    "absorb_dequantize",
    lambda op: op.anchored(PRODUCTS, op.DequantizeLinear(...).called("dq")).called("reader"),
    refuse=_refuse,
    about="A product of dequantized integers is an INT8 product.",
)
