"""What fused layers grow around, and what their epilogues may read."""

from __future__ import annotations

from workbench.body import Body, Node
from workbench.network import Layer, Tensor
from workbench.records import Refusal
from workbench.rewrite import not_same_shape

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that carry a fused layer: sums of products, whose kernels can finish an epilogue."""

MAX_NODES = 48
"""Nodes in one Body (literals left out): a kernel generator's limit, and a reader's."""


def channel_axis(layer: Layer) -> int:
    """The output axis along which a bias of this layer runs."""
    rank = len(layer.outputs[0].shape)
    return 1 if layer.op in ("Conv", "ConvTranspose") else rank - 1


def per_channel(tensor: Tensor, out: Tensor, axis: int) -> bool:
    """Whether a tensor broadcasts to ``out`` along its channel axis alone (or is one number)."""
    offset = len(out.shape) - len(tensor.shape)
    if offset < 0:
        return False
    sizes = {a + offset: d for a, d in enumerate(tensor.shape) if d != 1}
    return not sizes or sizes == {axis: out.shape[axis]}


def main_output(layer: Layer) -> Tensor:
    """The output of a layer that has one."""
    return layer.outputs[0]


def not_per_channel(tensor: Tensor, out: Tensor, axis: int) -> Refusal:
    """A constant that is neither one number nor one per channel."""
    return Refusal(
        f"'{tensor.name}' has shape {_sizes(tensor)}; the kernel's epilogue takes one value, or "
        f"one per channel: {out.shape[axis]} on axis {axis} of {_sizes(out)}",
        code="shape_mismatch",
    )


def epilogue_operand(tensor: Tensor, anchor: Layer) -> Refusal | None:
    """Why an outside operand of an epilogue does not suit the anchor's kernel, or None."""
    out, axis = main_output(anchor), channel_axis(anchor)
    if tensor.value is not None and tensor.value.size == 1:
        return None
    if tensor.is_constant:
        fits = per_channel(tensor, out, axis) or tensor.shape == out.shape
        return None if fits else not_per_channel(tensor, out, axis)
    return None if tensor.shape == out.shape else not_same_shape(tensor, out)


def too_large(*layers: Layer) -> Refusal | None:
    """Whether the layers together have more nodes than one Body may."""
    count = sum(len(x.operator_names) for x in layers)
    if count <= MAX_NODES:
        return None
    return Refusal(
        f"together they have {count} nodes, one layer takes {MAX_NODES}", code="too_large"
    )


def node_of(body: Body, value: str) -> Node | None:
    """The node that makes a value of a Body, None for an input."""
    return next((n for n in body.nodes if value in n.outputs), None)


def dequantized(layer: Layer) -> tuple[bool, bool]:
    """Whether the anchor's two factors are dequantized integers: inside the layer or before it."""
    body, operands = layer.body, layer.operands
    anchor = body.anchor_node
    if anchor is None:
        return False, False
    outside = {i.name: t for i, t in zip(body.inputs, operands, strict=True)}

    def is_dequantized(value: str) -> bool:
        node = node_of(body, value)
        if node is not None:
            return node.op == "DequantizeLinear"
        tensor = outside.get(value)
        made = tensor.producer if tensor is not None else None
        return made is not None and made.op == "DequantizeLinear"

    return is_dequantized(anchor.inputs[0]), is_dequantized(anchor.inputs[1])


def _sizes(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"
