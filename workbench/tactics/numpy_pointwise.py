"""NumPy kernels of pointwise operators and quantization: ufuncs that write into place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from workbench.body import Array, Node
from workbench.tactics.numpy_program import Kernel, KernelMaker, Lowering, working_type
from workbench.tactics.protocol import Launch

FLOAT_UFUNCS: dict[str, Any] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Tanh": np.tanh,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Reciprocal": np.reciprocal,
    "Sin": np.sin,
    "Cos": np.cos,
}
"""Operators that are one ufunc on float32 and float64."""

FOLDED_UFUNCS: dict[str, Any] = {"Max": np.maximum, "Min": np.minimum, "Sum": np.add}
"""Operators of any number of inputs, folded pairwise; NaN wins, as in ONNX."""


def _floats(node: Node, low: Lowering) -> np.dtype[Any] | None:
    """The float type that all inputs and the output share in their buffers, or None."""
    names = [v for v in (*node.inputs, *node.outputs) if v]
    found = {working_type(low.types[v].dtype) for v in names}
    dtype = found.pop()
    return dtype if not found and dtype.kind == "f" else None


def _reads(node: Node, low: Lowering) -> tuple[str, ...]:
    return tuple(low.operand(v) if v else "" for v in node.inputs)


def one_ufunc(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    """A ufunc with its output given."""
    if _floats(node, low) is None:
        return None
    ufunc = FLOAT_UFUNCS[node.op]

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        args, y = tuple(inputs), outputs[0]

        def launch() -> None:
            with np.errstate(all="ignore"):
                ufunc(*args, out=y)

        return launch

    return Kernel(node.op, bind, inplace=True), _reads(node, low)


def folded_ufunc(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    """A ufunc applied pairwise; reads every input before it overwrites one."""
    if _floats(node, low) is None or len(node.inputs) > 2:
        return None
    ufunc = FOLDED_UFUNCS[node.op]

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        y = outputs[0]
        if len(inputs) == 1:
            return lambda: np.copyto(y, inputs[0])
        a, b = inputs

        def launch() -> None:
            with np.errstate(all="ignore"):
                ufunc(a, b, out=y)

        return launch

    return Kernel(node.op, bind, inplace=True), _reads(node, low)


def relu(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    """max(x, 0)."""
    dtype = _floats(node, low)
    if dtype is None:
        return None

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        (x,), (y,), zero = inputs, outputs, dtype.type(0)

        def launch() -> None:
            with np.errstate(invalid="ignore"):
                np.maximum(x, zero, out=y)

        return launch

    return Kernel("Relu", bind, inplace=True), _reads(node, low)


def clip(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    """min(max(x, low), high), with constant limits."""
    x, *limits = node.inputs
    dtype = working_type(low.types[x].dtype)
    bounds = [low.value(v) if v else None for v in limits]
    unknown = any(v and b is None for v, b in zip(limits, bounds, strict=True))
    if unknown or dtype.kind != "f":
        return None
    least, most = [*bounds, None, None][:2]

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        (a,), (y,) = inputs, outputs

        def launch() -> None:
            with np.errstate(invalid="ignore"):
                if least is not None:
                    np.maximum(a, least, out=y)
                elif most is None:
                    np.copyto(y, a)
                if most is not None:
                    np.minimum(a if least is None else y, most, out=y)

        return launch

    return Kernel("Clip", bind, inplace=True), (low.operand(x),)


def sigmoid(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    """1 / (1 + exp(-x))."""
    dtype = _floats(node, low)
    if dtype is None:
        return None

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        (x,), (y,), one = inputs, outputs, dtype.type(1)

        def launch() -> None:
            with np.errstate(all="ignore"):
                np.negative(x, out=y)
                np.exp(y, out=y)
                np.add(y, one, out=y)
                np.divide(one, y, out=y)

        return launch

    return Kernel("Sigmoid", bind, inplace=True), _reads(node, low)


def _along_axis(value: Array, axis: int, rank: int) -> Array:
    """A per-axis scale or zero point, shaped to broadcast."""
    if value.size == 1:
        return value.reshape(())
    return value.reshape([-1 if k == axis else 1 for k in range(rank)])


def quantize(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    """saturate(round(x / scale) + zero_point), ties to even. Constant scales of rank <= 1."""
    x, scale_name, *rest = node.inputs
    target, shape = low.types[node.outputs[0]], low.types[x].shape
    scale, point = low.value(scale_name), low.value(rest[0]) if rest and rest[0] else None
    absent = not rest or not rest[0]
    if scale is None or scale.ndim > 1 or (point is None and not absent):
        return None
    integer = target.dtype.is_integer and target.dtype.info.bits <= 16
    if node.attributes.get("block_size") or not integer:
        return None
    if working_type(low.types[x].dtype) != np.float32 or scale.dtype != np.float32:
        return None
    axis = node.attributes.get("axis", 1) % max(1, len(shape))
    scale = _along_axis(scale, axis, len(shape))
    shift = None if point is None or not point.any() else _along_axis(point, axis, len(shape))
    shift = None if shift is None else shift.astype(np.float32)
    info = target.dtype.info
    least, most = np.float32(info.low), np.float32(info.high)
    count = int(np.prod(shape, dtype=np.int64))

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        (a,), (y,) = inputs, outputs
        assert scratch is not None
        real = scratch[: count * 4].view(np.float32).reshape(shape)

        def launch() -> None:
            with np.errstate(all="ignore"):
                np.divide(a, scale, out=real)
                np.rint(real, out=real)
                if shift is not None:
                    np.add(real, shift, out=real)
                np.clip(real, least, most, out=real)
                np.copyto(y, real, casting="unsafe")

        return launch

    return Kernel("QuantizeLinear", bind, count * 4 or 64), (low.operand(x),)


def dequantize(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    """Scale * (x - zero_point), with constant scales of rank <= 1."""
    q = low.dequantized(node.outputs[0])
    dtype = working_type(low.types[node.outputs[0]].dtype)
    if q is None or dtype != np.float32:
        return None
    rank = len(low.types[q.stored].shape)
    scale = _along_axis(q.scale.astype(np.float32), q.axis, rank)
    point = _along_axis(q.zero_point.astype(np.float32), q.axis, rank)

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        (a,), (y,) = inputs, outputs

        def launch() -> None:
            np.subtract(a, point, out=y, dtype=np.float32, casting="unsafe")
            np.multiply(y, scale, out=y)

        return launch

    return Kernel("DequantizeLinear", bind), (low.operand(q.stored),)


def copied(view: Callable[[Node, Any], Any]) -> KernelMaker:
    """A kernel that copies a view of its first input."""

    def make(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
        def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
            y = outputs[0]
            x = view(node, inputs[0])
            return lambda: np.copyto(y, x.reshape(y.shape))

        return Kernel(f"copy {node.op}", bind), (low.operand(node.inputs[0]),)

    return make


def _transposed(node: Node, x: Any) -> Any:
    perm = node.attributes.get("perm")
    return x.transpose(perm) if perm is not None else x.transpose()


def _same(node: Node, x: Any) -> Any:
    return x


POINTWISE_MAKERS: dict[str, KernelMaker] = {
    **dict.fromkeys(FLOAT_UFUNCS, one_ufunc),
    **dict.fromkeys(FOLDED_UFUNCS, folded_ufunc),
    "Relu": relu,
    "Clip": clip,
    "Sigmoid": sigmoid,
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "Transpose": copied(_transposed),
    **dict.fromkeys(("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"), copied(_same)),
}
"""How NumPy computes these operators, by name."""
