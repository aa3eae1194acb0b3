"""Pointwise layers: one eltwise or binary primitive with what follows, and reorders.

A chain without arithmetic (Cast, QuantizeLinear, DequantizeLinear, a change of layout) is one
reorder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from workbench.body import TensorType
from workbench.datatypes import DataType
from workbench.formats import CHW16, HWC, LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.onednn.activations import Eltwise
from workbench.tactics.onednn.constants import Algorithm, Argument, ElementType
from workbench.tactics.onednn.descriptors import MemoryDescriptor
from workbench.tactics.onednn.layouts import has_tag, own
from workbench.tactics.onednn.library import Library
from workbench.tactics.onednn.parts import Combine, Layer, Operand, PostOperation
from workbench.tactics.onednn.primitives import binary, eltwise_forward, reorder
from workbench.tactics.onednn.recipe import (
    Describer,
    Recipe,
    Variant,
    assigned,
    broadcast_view,
    describe_tensor,
    real_values,
)

_SAME: tuple[tuple[Format, Format], ...] = ((LINEAR, LINEAR), (HWC, HWC), (CHW16, CHW16))
_FROM_OR_TO_LINEAR: tuple[tuple[Format, Format], ...] = (
    (LINEAR, HWC),
    (LINEAR, CHW16),
    (HWC, LINEAR),
    (CHW16, LINEAR),
)


def variants(layer: Layer) -> Iterator[Variant]:
    """The same layout throughout; a reorder also from one to another."""
    rank = len(layer.output.shape)
    pairs = _SAME if layer.post else _SAME + _FROM_OR_TO_LINEAR
    for source, target in [(own(a), own(b)) for a, b in pairs]:
        inputs = assigned(layer, [(layer.operand(0), source)], target)
        if inputs is not None and has_tag(source, rank) and has_tag(target, rank):
            yield Variant(_primitive(layer), inputs, target)


def _primitive(layer: Layer) -> str:
    if not layer.post:
        return "reorder"
    # oneDNN 3.2's eltwise kernels take no post-operations; its binary kernels take them all.
    alone = len(layer.post) == 1 and isinstance(layer.post[0], Eltwise)
    quantized = layer.affine is not None or any(o and o.affine for o in layer.operands)
    return "eltwise" if alone and not quantized else "binary"


def describe(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    """The primitive in these layouts."""
    x = layer.operand(0)
    if x is None or x.index is None or x.permutation is not None:
        return layer.refusal("its input is a constant or transposed")
    unscaled = x.affine is None and layer.affine is None
    if not layer.post and unscaled and x.type.dtype is layer.output.dtype:
        variant = replace(variant, moves=True)
    d = Describer(library, layer, variant)
    match variant.primitive:
        case "reorder":
            return _reorder(d, x)
        case "eltwise":
            return _eltwise(d, x)
        case _:
            return _binary(d, x)


def _reorder(d: Describer, x: Operand) -> Recipe | Refusal:
    source, destination = d.input(Argument.SRC, x), d.output()
    if x.affine is not None and x.affine.axis is not None:
        if x.affine.zero_point:
            return d.layer.refusal("it is quantized per channel with a zero point")
        d.constant(d.attributes.scale(Argument.SRC, 1 << x.affine.axis), x.affine.scale)
    elif x.affine is not None:
        d.quantized_source(Argument.SRC, x)
    d.quantized_output()
    return d.recipe(reorder(source, destination, attributes=d.attributes), destination)


def _eltwise(d: Describer, x: Operand) -> Recipe | Refusal:
    (only,) = d.layer.post
    assert isinstance(only, Eltwise)
    source, destination = d.input(Argument.SRC, x), d.output()
    descriptor = eltwise_forward(
        *(only.algorithm, source, destination),
        alpha=only.alpha,
        beta=only.beta,
        attributes=d.attributes,
    )
    return d.recipe(descriptor, destination)


def _leading(post: Sequence[PostOperation]) -> tuple[float, Combine, Sequence[PostOperation]]:
    """(factor of the first input, the binary step, what follows). A chain without one times 1."""
    first = post[0]
    if isinstance(first, Combine):
        return 1.0, first, post[1:]
    second = post[1] if len(post) > 1 else None
    if first.algorithm is Algorithm.LINEAR and not first.beta and isinstance(second, Combine):
        return first.alpha, second, post[2:]
    one = Operand(TensorType(DataType.FLOAT, ()), array=np.ones((), np.float32))
    return 1.0, Combine(Algorithm.MUL, one), post


def _binary(d: Describer, x: Operand) -> Recipe | Refusal:
    layer = d.layer
    factor, first, rest = _leading(layer.post)
    other = first.operand
    viewed = broadcast_view(other.shape, layer.result.shape, layer.result.shape)
    if viewed is None or other.permutation is not None:
        return layer.refusal("its second input is transposed")
    shift = _scaled_sources(d, x, first, factor)
    if isinstance(shift, Refusal):
        return shift
    source, destination = d.input(Argument.SRC, x), d.output()
    second = _second(d, other, viewed)
    if shift:
        d.attributes.eltwise(Algorithm.LINEAR, 1.0, shift)
    refusal = d.post_operations(rest, destination)
    if refusal is not None:
        return refusal
    if layer.affine is not None:
        # oneDNN 3.2's binary scales no destination: stored = real / scale + zero point.
        scale, point = float(layer.affine.scale[0]), float(layer.affine.zero_point)
        d.attributes.eltwise(Algorithm.LINEAR, 1 / scale, point)
    descriptor = binary(first.algorithm, source, second, destination, attributes=d.attributes)
    return d.recipe(descriptor, destination)


def _scaled_sources(d: Describer, x: Operand, first: Combine, factor: float) -> float | Refusal:
    """Set the scales of the inputs; gives what their zero points add to the result."""
    shift = 0.0
    other = first.operand
    signs = {Algorithm.ADD: 1.0, Algorithm.SUB: -1.0}
    constant_factor = other.is_constant and first.algorithm in (Algorithm.MUL, Algorithm.DIV)
    for argument, operand, times, sign in (
        (Argument.SRC, x, factor, 1.0),
        (Argument.SRC_1, other, 1.0, signs.get(first.algorithm, 0.0)),
    ):
        affine = None if operand.is_constant else operand.affine
        if affine is None and times == 1.0:
            continue
        scale = np.ones(1, np.float32) if affine is None else affine.scale
        point = 0 if affine is None else affine.zero_point
        if scale.size != 1:
            return d.layer.refusal("an input is quantized per channel")
        if point and first.algorithm not in signs:
            if not (constant_factor and other.array is not None and other.array.size == 1):
                return d.layer.refusal("oneDNN's binary takes no zero points")
            sign = _factor(first, float(real_values(other).reshape(-1)[0]))
        scaled = (scale * np.float32(times)).astype(np.float32)
        d.constant(d.attributes.scale(argument), scaled)
        shift -= sign * float(scaled[0]) * point
    return shift


def _factor(first: Combine, scalar: float) -> float:
    return 1 / scalar if first.algorithm is Algorithm.DIV else scalar


def _second(d: Describer, other: Operand, viewed: tuple[int, ...]) -> MemoryDescriptor:
    full = viewed == tuple(d.layer.result.shape)
    if other.index is None:
        array = np.ascontiguousarray(real_values(other).reshape(viewed))
        layout = d.variant.output if full else LINEAR
        wanted = describe_tensor(d.library, viewed, ElementType.F32, layout)
        return d.constant(Argument.SRC_1, array, wanted)
    if full:
        return d.input(Argument.SRC_1, other, rank=len(viewed))
    return d.input(Argument.SRC_1, other, viewed)
