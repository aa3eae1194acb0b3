"""NumPy kernels of Conv, Gemm and MatMul: BLAS products of prepared operands.

8-bit operands behind DequantizeLinear are multiplied as whole numbers in float32, or in float64
where a sum may reach 2**24, so that the accumulator is exact; then scaled once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.body import Array, Node
from workbench.operators.windows import Window, window_of
from workbench.tactics.numpy_program import Kernel, KernelMaker, Lowering, Quantized
from workbench.tactics.protocol import Launch

EXACT_FLOAT = 2**24
"""Whole numbers up to this size are exact in float32, in any order of summation."""


def _exact_type(bound: int, terms: int) -> np.dtype[Any]:
    """The float type in which ``terms`` products of size ``bound`` are summed exactly."""
    return np.dtype(np.float32 if bound * terms < EXACT_FLOAT else np.float64)


def _reach(low: Lowering, q: Quantized) -> int:
    """Largest magnitude of stored - zero_point."""
    known = low.known.get(q.stored)
    if known is not None and q.zero_point.ndim == 0:
        return int(np.abs(known.astype(np.int64) - q.zero_point).max(initial=0))
    info = low.types[q.stored].dtype.info
    points = q.zero_point
    return int(max(info.high - points.min(), points.max() - info.low))


def _centered(stored: Array, q: Quantized, dtype: Any) -> Array:
    """Stored - zero_point as whole numbers in ``dtype``."""
    point = q.zero_point
    if point.ndim:
        point = point.reshape([-1 if k == q.axis else 1 for k in range(stored.ndim)])
    return (stored.astype(np.int64) - point).astype(dtype)


def product(a: Array, b: Array, out: Array) -> Launch:
    """``np.matmul`` into place."""

    def launch() -> None:
        np.matmul(a, b, out=out)

    return launch


# -- Conv ---------------------------------------------------------------------------------
def conv(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    """Unfold patches, multiply with packed weights; depthwise: one multiply-add a tap."""
    x, w, *rest = node.inputs
    bias = rest[0] if rest else ""
    shape, group = low.types[w].shape, node.attributes["group"]
    if not all(isinstance(d, int) for d in (*low.types[x].shape, *shape)):
        return None
    window = window_of(node.attributes, low.types[x].shape[2:], shape[2:])
    terms = math.prod(shape[1:])
    quantized = _quantized_operands(low, x, w, channel_axis=0)
    if quantized is not None:
        qx, qw = quantized
        dtype = _exact_type(_reach(low, qx) * _reach(low, qw), terms)
        stored = low.known[qw.stored]
        weights = np.ascontiguousarray(_centered(stored, qw, dtype))
        scale = np.broadcast_to(qx.scale * qw.scale, (shape[0],)).astype(np.float32)
        reads = (qx.stored, bias)
        shift = int(qx.zero_point)
    else:
        value = low.value(w)
        if value is None:
            return None
        weights, scale, shift = np.ascontiguousarray(value), None, 0
        dtype: np.dtype[Any] = value.dtype
        reads = (low.operand(x), bias)
        if dtype.kind != "f":
            return None
    reads = (reads[0], low.operand(reads[1]) if reads[1] else "")
    plan = _Convolution(tuple(low.types[x].shape), weights, window, group, dtype, shift, scale)
    return plan.kernel(), reads


def _quantized_operands(
    low: Lowering, x: str, w: str, *, channel_axis: int
) -> tuple[Quantized, Quantized] | None:
    """Both operands' integers, where one scale an output channel comes out of the sum."""
    qx, qw = low.dequantized(x), low.dequantized(w)
    if qx is None or qw is None or qx.scale.ndim or qw.stored not in low.known:
        return None
    if qw.scale.ndim and qw.axis != channel_axis:
        return None
    return qx, qw


class _Convolution:
    """A convolution at fixed sizes: buffers, and the steps over them."""

    def __init__(
        self,
        shape: tuple[int, ...],
        weights: Array,
        window: Window,
        group: int,
        dtype: np.dtype[Any],
        shift: int,
        scale: Array | None,
    ) -> None:
        self.shape, self.window, self.group = shape, window, group
        self.dtype, self.shift = np.dtype(dtype), shift
        self.filters, self.rank = weights.shape[0], len(window.kernel)
        self.output = (shape[0], self.filters, *window.output)
        self.depthwise = weights.shape[1] == 1 and group > 1
        self.weights = weights.reshape(group, self.filters // group, -1)
        tail = (1,) * self.rank
        self.scale = None if scale is None else scale.reshape(self.filters, *tail)
        reach = [
            (o - 1) * s + e
            for o, s, e in zip(window.output, window.strides, window.extent, strict=True)
        ]
        self.padded = tuple(
            max(b + n, r) for b, n, r in zip(window.begin, shape[2:], reach, strict=True)
        )
        unpadded = self.padded == tuple(shape[2:])
        self.copies_input = not unpadded or scale is not None
        one = all(k == 1 for k in window.kernel) and all(s == 1 for s in window.strides)
        self.unfolds = not self.depthwise and not one
        if one and not unpadded:
            self.unfolds = True

    def _sizes(self) -> tuple[int, int, int]:
        """Elements of the padded input, of one image's columns, of the sum before scaling."""
        batch, channels = self.shape[:2]
        padded = batch * channels * math.prod(self.padded) if self.copies_input else 0
        taps = math.prod(self.window.kernel)
        columns = channels * taps * math.prod(self.window.output) if self.unfolds else 0
        direct = self.scale is None or self.dtype == np.float32
        total = 0 if direct and not self.depthwise else math.prod(self.output)
        return padded, columns, total

    def kernel(self) -> Kernel:
        name = "depthwise" if self.depthwise else "blas conv"
        size = sum(self._sizes()) * self.dtype.itemsize + 64 * 3
        return Kernel(
            f"{name} int8" if self.scale is not None else name,
            self.bind,
            size,
            packed={"weights": self.weights},
        )

    def bind(
        self, inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None
    ) -> Launch:
        x, bias = inputs
        y = outputs[0]
        assert scratch is not None
        pieces = _split(scratch, self._sizes(), self.dtype)
        padded = pieces[0].reshape(*self.shape[:2], *self.padded) if self.copies_input else None
        seen = self._windows(x if padded is None else padded)
        total = pieces[2].reshape(self.output) if pieces[2].size else y
        if self.depthwise:
            total = y if self.scale is None or self.dtype == np.float32 else total
            multiply = self._taps(seen, pieces[2].reshape(self.output), total)
        else:
            multiply = self._columns(seen, pieces[1], total)
        interior = self._interior(padded)
        row = None if bias is None else bias.reshape(self.filters, *(1,) * self.rank)
        scale, shift = self.scale, self.shift

        def launch() -> None:
            if padded is not None:
                padded.fill(0)
                if shift:
                    np.subtract(x, shift, out=interior, dtype=padded.dtype, casting="unsafe")
                else:
                    np.copyto(interior, x, casting="unsafe")
            multiply()
            if scale is not None:
                np.multiply(total, scale, out=y, casting="unsafe")
            if row is not None:
                np.add(y, row, out=y)

        return launch

    def _interior(self, padded: Array | None) -> Any:
        if padded is None:
            return None
        cut = tuple(slice(b, b + n) for b, n in zip(self.window.begin, self.shape[2:], strict=True))
        return padded[(slice(None), slice(None), *cut)]

    def _windows(self, x: Array) -> Array:
        """A view (N, C, *kernel, *output) of what the kernel sees."""
        w = self.window
        spatial = x.strides[2:]
        return np.lib.stride_tricks.as_strided(
            x,
            (*x.shape[:2], *w.kernel, *w.output),
            (
                *x.strides[:2],
                *(s * d for s, d in zip(spatial, w.dilations, strict=True)),
                *(s * d for s, d in zip(spatial, w.strides, strict=True)),
            ),
        )

    def _columns(self, seen: Array, memory: Array, total: Array) -> Launch:
        batch, channels = self.shape[:2]
        positions = math.prod(self.window.output)
        terms = self.weights.shape[2]
        result = total.reshape(batch, self.group, self.weights.shape[1], positions)
        weights = self.weights
        if not self.unfolds:
            columns = seen.reshape(batch, self.group, terms, positions)
            return product(weights, columns, result)
        patches = memory.reshape(channels, *self.window.kernel, *self.window.output)
        columns = memory.reshape(self.group, terms, positions)

        def multiply() -> None:
            for n in range(batch):
                np.copyto(patches, seen[n])
                np.matmul(weights, columns, out=result[n])

        return multiply

    def _taps(self, seen: Array, product: Array, total: Array) -> Launch:
        factor = self.filters // self.group
        batch, channels = self.shape[:2]
        parts = total.reshape(batch, channels, factor, *self.window.output)
        product = product.reshape(parts.shape)
        weights = self.weights.reshape(channels, factor, *(1,) * self.rank, -1)
        taps = [
            (weights[..., k], seen[(slice(None), slice(None), None, *t)])
            for k, t in enumerate(itertools.product(*map(range, self.window.kernel)))
        ]

        def multiply() -> None:
            np.multiply(taps[0][1], taps[0][0], out=parts)
            for w, x in taps[1:]:
                np.multiply(x, w, out=product)
                np.add(parts, product, out=parts)

        return multiply


def _split(scratch: Array, counts: Sequence[int], dtype: np.dtype[Any]) -> list[Array]:
    pieces: list[Array] = []
    offset = 0
    for count in counts:
        nbytes = count * dtype.itemsize
        pieces.append(scratch[offset : offset + nbytes].view(dtype))
        offset += -(-nbytes // 64) * 64
    return pieces


# -- Gemm and MatMul ----------------------------------------------------------------------
def matmul(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    """``np.matmul`` into place; a constant right side of rank 2 makes one product of all rows."""
    a, b = node.inputs
    made = _quantized_matmul(node, low)
    if made is not None:
        return made
    if low.types[node.outputs[0]].dtype.is_integer:
        return None
    rows = len(low.types[b].shape) == 2 and len(low.types[a].shape) > 2

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        (x, w), (y,) = inputs, outputs
        if rows:
            x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        return product(x, w, y)

    return Kernel("blas matmul", bind), (low.operand(a), low.operand(b))


def _quantized_matmul(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    a, b = node.inputs
    rank = len(low.types[b].shape)
    if rank < 2 or len(low.types[a].shape) < 2:
        return None
    quantized = _quantized_operands(low, a, b, channel_axis=rank - 1)
    if quantized is None:
        return None
    qa, qb = quantized
    dtype = _exact_type(_reach(low, qa) * _reach(low, qb), low.types[b].shape[-2])
    weights = np.ascontiguousarray(_centered(low.known[qb.stored], qb, dtype))
    scale = (qa.scale * qb.scale).astype(np.float32)
    kernel = _product_kernel(weights, scale, qa, low, node, transposed=False)
    return kernel, (qa.stored,)


def _product_kernel(
    weights: Array, scale: Array, qa: Quantized, low: Lowering, node: Node, *, transposed: bool
) -> Kernel:
    shape, out = low.types[qa.stored].shape, low.types[node.outputs[0]].shape
    shift, dtype = int(qa.zero_point), weights.dtype
    counts = (math.prod(shape), 0 if dtype == np.float32 else math.prod(out))

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        x, y = inputs[0], outputs[0]
        assert scratch is not None
        whole, total = _split(scratch, counts, dtype)
        whole = whole.reshape(shape)
        total = total.reshape(out) if total.size else y
        operand = whole.T if transposed else whole

        def launch() -> None:
            np.subtract(x, shift, out=whole, dtype=dtype, casting="unsafe")
            np.matmul(operand, weights, out=total)
            np.multiply(total, scale, out=y, casting="unsafe")

        return launch

    size = sum(counts) * dtype.itemsize + 128
    return Kernel("blas matmul int8", bind, size, packed={"weights": weights})


def gemm(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    """Alpha * A·B into place, then beta * C."""
    a, b, *rest = node.inputs
    c = rest[0] if rest else ""
    if low.types[node.outputs[0]].dtype.is_integer:
        return None
    alpha, beta = float(node.attributes["alpha"]), float(node.attributes["beta"])
    flip_a, flip_b = bool(node.attributes["transA"]), bool(node.attributes["transB"])
    quantized = _quantized_operands(low, a, b, channel_axis=0 if flip_b else 1)
    if quantized is not None:
        qa, qb = quantized
        dtype = _exact_type(
            _reach(low, qa) * _reach(low, qb), low.types[a].shape[0 if flip_a else 1]
        )
        stored = _centered(low.known[qb.stored], qb, dtype)
        weights = np.ascontiguousarray(stored.T if flip_b else stored)
        scale = (alpha * qa.scale * qb.scale).astype(np.float32)
        product = _product_kernel(weights, scale, qa, low, node, transposed=flip_a)
        reads = (qa.stored,)
    else:
        product = _float_product(alpha, flip_a, flip_b)
        reads = (low.operand(a), low.operand(b))
    count = len(reads)

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        multiply = product.bind(inputs[:count], outputs, scratch)
        y, added = outputs[0], inputs[count]
        if added is None:
            return multiply
        if beta != 1.0 and c in low.known:
            added = np.asarray(added * beta, y.dtype)

        def launch() -> None:
            multiply()
            if beta == 1.0 or c in low.known:
                np.add(y, added, out=y)
            else:
                np.add(y, added * y.dtype.type(beta), out=y)

        return launch

    kernel = Kernel(
        product.name.replace("matmul", "gemm"), bind, product.scratch_bytes, packed=product.packed
    )
    return kernel, (*reads, low.operand(c) if c else "")


def _float_product(alpha: float, flip_a: bool, flip_b: bool) -> Kernel:
    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        x, w = inputs
        y = outputs[0]
        x, w = x.T if flip_a else x, w.T if flip_b else w

        def launch() -> None:
            np.matmul(x, w, out=y)
            if alpha != 1.0:
                np.multiply(y, y.dtype.type(alpha), out=y)

        return launch

    return Kernel("blas matmul", bind)


PRODUCT_MAKERS: dict[str, KernelMaker] = {"Conv": conv, "MatMul": matmul, "Gemm": gemm}
"""How NumPy computes these operators, by name."""
