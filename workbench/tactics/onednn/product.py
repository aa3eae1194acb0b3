"""Matrix products: Gemm and MatMul, by constant weights or by another tensor, also in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.onednn.activations import Eltwise
from workbench.tactics.onednn.constants import Algorithm, Argument
from workbench.tactics.onednn.descriptors import MemoryDescriptor
from workbench.tactics.onednn.library import Library
from workbench.tactics.onednn.parts import Combine, Layer, Operand, PostOperation
from workbench.tactics.onednn.primitives import inner_product_forward, matmul
from workbench.tactics.onednn.recipe import (
    Describer,
    Recipe,
    Variant,
    in_place_too,
    linear_formats,
    real_values,
)

ANCHORS = ("Gemm", "MatMul")


def variants(layer: Layer) -> Iterator[Variant]:
    """The two primitives that multiply matrices; both read row-major tensors."""
    return in_place_too(layer, _variants(layer))


def _variants(layer: Layer) -> Iterator[Variant]:
    yield Variant("matmul", linear_formats(layer), LINEAR)
    w = layer.operand(1)
    if w is not None and w.is_constant and len(w.shape) == 2:
        yield Variant("inner product", linear_formats(layer), LINEAR)


def describe(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    """The product by one of the two primitives."""
    a, b = layer.operand(0), layer.operand(1)
    if a is None or b is None or a.index is None:
        return layer.refusal("its first input is a constant")
    if len(a.shape) < 2 or len(b.shape) < 2:
        return layer.refusal("an input is a vector")
    if layer.anchor.op == "Gemm":
        a = _transposed(a) if layer.anchor.attributes.get("transA") else a
        b = _transposed(b) if layer.anchor.attributes.get("transB") else b
    d = Describer(library, layer, variant)
    m, n = _view(layer, a, b)
    source = _source(d, a, m)
    inner = variant.primitive == "inner product"
    if inner and (len(m) != 2 or a.permutation is not None):
        return layer.refusal("an inner product reads one row-major matrix")
    weights = _weights(d, a, b, rank=len(m), inner=inner)
    if isinstance(weights, Refusal):
        return weights
    bias, post = _bias(d, layer, rank=1 if inner else len(m))
    destination = d.output((*m[:-1], n))
    refusal = d.quantized_source(Argument.SRC, a) or d.post_operations(post, destination)
    if refusal is not None:
        return refusal
    d.quantized_output()
    make = inner_product_forward if inner else matmul
    descriptor = make(source, weights, bias, destination, attributes=d.attributes)
    return d.recipe(descriptor, destination)


def _transposed(operand: Operand) -> Operand:
    order = operand.permutation or tuple(range(len(operand.shape)))
    return replace(operand, permutation=(*order[:-2], order[-1], order[-2]))


def _view(layer: Layer, a: Operand, b: Operand) -> tuple[tuple[int, ...], int]:
    """Sizes of the first matrix as the primitive sees it, and the columns of the result.

    Leading axes merge into rows where the second matrix is the same for all of them.
    """
    n = b.shape[-1]
    if len(b.shape) == 2 and a.permutation is None:
        rows = int(np.prod(a.shape[:-1]))
        return (rows, a.shape[-1]), n
    rank = max(len(a.shape), len(b.shape))
    return (*layer.result.shape[:-2][-(rank - 2) :], *a.shape[-2:]) if rank > 2 else a.shape, n


def _source(d: Describer, a: Operand, seen: tuple[int, ...]) -> MemoryDescriptor:
    if len(seen) == 2 and a.permutation is None:
        return d.input(Argument.SRC, a, seen)
    return d.input(Argument.SRC, a, rank=len(seen))


def _weights(
    d: Describer, a: Operand, b: Operand, *, rank: int, inner: bool
) -> MemoryDescriptor | Refusal:
    if b.array is None:
        refusal = d.quantized_source(Argument.WEIGHTS, b)
        return refusal or d.input(Argument.WEIGHTS, b, rank=rank)
    if a.affine is None:
        array: Array = real_values(b) if b.affine is not None else b.array
    else:
        array = b.array
        refusal = _quantized_weights(d, b, rank=rank, inner=inner)
        if refusal is not None:
            return refusal
    array = array.transpose(b.permutation) if b.permutation is not None else array
    if inner:
        return d.weights(array.T)
    return d.weights(array.reshape((1,) * (rank - array.ndim) + array.shape))


def _quantized_weights(d: Describer, b: Operand, *, rank: int, inner: bool) -> Refusal | None:
    if b.affine is None or b.type.dtype is not DataType.INT8:
        kind = b.type.dtype.value
        return d.layer.refusal(f"its input is quantized, its weights are {kind}", "quantize both")
    if b.affine.zero_point:
        return d.layer.refusal("its weights have a zero point; oneDNN wants symmetric ones")
    mask = 0
    if b.affine.axis is not None:
        order = b.permutation or tuple(range(len(b.shape)))
        if order.index(b.affine.axis) != len(order) - 1:
            return d.layer.refusal("its weights are not quantized along the output columns")
        mask = 1 if inner else 1 << (rank - 1)
    d.constant(d.attributes.scale(Argument.WEIGHTS, mask), b.affine.scale)
    return None


def _bias(
    d: Describer, layer: Layer, *, rank: int
) -> tuple[MemoryDescriptor | None, tuple[PostOperation, ...]]:
    """The bias row, from Gemm's C or a constant that is added first; and what is left to do."""
    post = _gemm_post_operations(layer) + layer.post
    if post and isinstance(post[0], Combine) and post[0].algorithm is Algorithm.ADD:
        operand = post[0].operand
        columns = layer.result.shape[-1]
        if operand.is_constant and operand.shape[-1:] == (columns,):
            values = real_values(operand)
            if values.size == columns:
                return d.constant(Argument.BIAS, values.reshape((1,) * (rank - 1) + (-1,))), post[
                    1:
                ]
    return None, post


def _gemm_post_operations(layer: Layer) -> tuple[PostOperation, ...]:
    """Alpha and C as post-operations. beta is multiplied into a constant C."""
    if layer.anchor.op != "Gemm":
        return ()
    alpha, beta = layer.anchor.attributes["alpha"], layer.anchor.attributes["beta"]
    found: list[PostOperation] = []
    if alpha != 1:
        found.append(Eltwise(Algorithm.LINEAR, alpha))
    c = layer.operand(2)
    if c is None or not beta:
        return tuple(found)
    if c.is_constant:
        values = real_values(c) * np.float32(beta)
        c = Operand(replace(c.type, dtype=DataType.FLOAT), array=values)
        return (*found, Combine(Algorithm.ADD, c))
    # beta·C + x = beta·(x/beta + C)
    around = beta != 1
    before = (Eltwise(Algorithm.LINEAR, 1 / beta),) if around else ()
    after = (Eltwise(Algorithm.LINEAR, beta),) if around else ()
    return (*found, *before, Combine(Algorithm.ADD, c), *after)
