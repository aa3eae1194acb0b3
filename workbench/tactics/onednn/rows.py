"""Operators along an axis: softmax, layer normalization, reductions, concatenation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from workbench.formats import CHW16, HWC, LINEAR
from workbench.records import Refusal
from workbench.tactics.onednn.averages import first_pass, stretches
from workbench.tactics.onednn.constants import Algorithm, Argument, NormalizationFlag
from workbench.tactics.onednn.descriptors import MemoryDescriptor
from workbench.tactics.onednn.layouts import has_tag, own
from workbench.tactics.onednn.library import Library
from workbench.tactics.onednn.parts import Combine, Layer, Operand
from workbench.tactics.onednn.pooling import same_affine
from workbench.tactics.onednn.primitives import (
    concat,
    layer_normalization_forward,
    pooling_forward,
    reduction,
    softmax_forward,
)
from workbench.tactics.onednn.recipe import (
    Describer,
    Recipe,
    Variant,
    assigned,
    linear_formats,
    real_values,
)

_REDUCTIONS = {
    "ReduceMean": Algorithm.REDUCTION_MEAN,
    "ReduceSum": Algorithm.REDUCTION_SUM,
    "ReduceMax": Algorithm.REDUCTION_MAX,
    "ReduceMin": Algorithm.REDUCTION_MIN,
    "ReduceProd": Algorithm.REDUCTION_MUL,
}

ANCHORS = ("Softmax", "LogSoftmax", "LayerNormalization", "Concat", *_REDUCTIONS)


_POOLS = {
    "ReduceMean": Algorithm.POOLING_AVERAGE_INCLUDE_PADDING,
}
"""Reductions that are a pool over one window, with what lies behind the axes as channels."""

_FINITE = ("ReduceMax", "ReduceMin")


def variants(layer: Layer) -> Iterator[Variant]:
    """LINEAR always; a concatenation or reduction also of channels that lie inside."""
    op = layer.anchor.op
    yield Variant(_primitive(op), linear_formats(layer), LINEAR)
    if op in _POOLS:
        yield Variant("pooling", linear_formats(layer), LINEAR)
    if op != "Concat" and op not in _REDUCTIONS:
        return
    first = layer.operand(0)
    assert first is not None
    for layout in (HWC, own(CHW16)):
        target = layout if has_tag(layout, len(layer.output.shape)) and op == "Concat" else LINEAR
        inputs = assigned(layer, [(o, layout) for o in layer.operands], target)
        if inputs is not None and has_tag(layout, len(first.shape)):
            yield Variant(_primitive(op), inputs, target)
            if op in _POOLS and layout == HWC:
                yield Variant("pooling", inputs, target)


def _primitive(op: str) -> str:
    named = {"LayerNormalization": "layer normalization", "Concat": "concat"}
    return named.get(op, "reduction" if op in _REDUCTIONS else "softmax")


def describe(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    """The primitive in these layouts."""
    x = layer.operand(0)
    if x is None or x.index is None or x.permutation is not None:
        return layer.refusal("its input is a constant or transposed")
    match variant.primitive:
        case "concat":
            return _concat(library, layer, replace(variant, moves=True))
        case "reduction":
            return _reduction(library, layer, variant)
        case "pooling":
            return _pooled(library, layer, variant)
        case "softmax":
            return _softmax(library, layer, variant)
        case _:
            return _layer_normalization(library, layer, variant)


def _softmax(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    x, node = layer.operands[0], layer.anchor
    assert x is not None
    if layer.post:
        return layer.refusal("oneDNN runs nothing after a softmax")
    d = Describer(library, layer, variant)
    axis = int(node.attributes["axis"]) % len(x.shape)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    seen = (int(np.prod(before)), x.shape[axis], int(np.prod(after)))
    source, destination = d.input(Argument.SRC, x, seen), d.output(seen)
    refusal = d.quantized_source(Argument.SRC, x)
    if refusal is not None:
        return refusal
    d.quantized_output()
    logarithm = node.op == "LogSoftmax"
    descriptor = softmax_forward(
        *(source, destination),
        axis=1,
        attributes=d.attributes,
        algorithm=Algorithm.SOFTMAX_LOG if logarithm else Algorithm.SOFTMAX_ACCURATE,
    )
    return d.recipe(descriptor, destination)


def _layer_normalization(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    x, scale, shift = layer.operands[0], layer.operand(1), layer.operand(2)
    assert x is not None
    if scale is None or not scale.is_constant or (shift is not None and not shift.is_constant):
        return layer.refusal("its scale and shift are not constants")
    if layer.post:
        return layer.refusal("oneDNN runs nothing after a layer normalization")
    axis = layer.anchor.attributes["axis"] % len(x.shape)
    columns = int(np.prod(x.shape[axis:]))
    if scale.array is None or scale.array.size != columns:
        return layer.refusal(f"its scale has shape {scale.shape}, its rows {columns} elements")
    d = Describer(library, layer, variant)
    seen = (int(np.prod(x.shape[:axis])), columns)
    source, destination = d.input(Argument.SRC, x, seen), d.output(seen)
    flags = NormalizationFlag.USE_SCALE
    d.constant(Argument.SCALE, real_values(scale).reshape(-1))
    if shift is not None:
        flags |= NormalizationFlag.USE_SHIFT
        d.constant(Argument.SHIFT, np.broadcast_to(real_values(shift).reshape(-1), (columns,)))
    refusal = d.quantized_source(Argument.SRC, x)
    if refusal is not None:
        return refusal
    d.quantized_output()
    descriptor = layer_normalization_forward(
        *(source, destination),
        epsilon=float(layer.anchor.attributes["epsilon"]),
        flags=flags,
        attributes=d.attributes,
    )
    return d.recipe(descriptor, destination)


def _reduced_axes(layer: Layer, x: Operand) -> set[int] | Refusal:
    node = layer.anchor
    if x.affine is not None or layer.affine is not None:
        return layer.refusal("oneDNN reduces no quantized tensors")
    if node.op in _FINITE:
        # Measured: a row of -inf gives -3.4e38, and NaN is passed over. Attention masks have both.
        return layer.refusal(f"oneDNN's {node.op} neither gives an infinity nor hands on NaN")
    if len(node.inputs) > 1 and node.inputs[1] and layer.values[1] is None:
        return layer.refusal("its axes arrive at run time")
    given = layer.values[1] if len(layer.values) > 1 else None
    axes = {int(a) % len(x.shape) for a in given.reshape(-1)} if given is not None else set[int]()
    if not axes and not node.attributes.get("noop_with_empty_axes"):
        axes = set(range(len(x.shape)))
    if all(x.shape[a] == 1 for a in axes):
        return layer.refusal("no reduced axis has more than one element: nothing to compute")
    return axes


def _reduction(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    x = layer.operands[0]
    assert x is not None
    axes = _reduced_axes(layer, x)
    if isinstance(axes, Refusal):
        return axes
    kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    d = Describer(library, layer, variant)
    source, destination = d.input(Argument.SRC, x), d.output(kept)
    refusal = d.post_operations(layer.post, destination)
    if refusal is not None:
        return refusal
    algorithm = _REDUCTIONS[layer.anchor.op]
    descriptor = reduction(algorithm, source, destination, attributes=d.attributes)
    return d.recipe(descriptor, destination)


def _pooled(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    """Neighbouring axes reduced as the rows of an image whose channels lie inside."""
    x = layer.operands[0]
    assert x is not None
    axes = _reduced_axes(layer, x)
    if isinstance(axes, Refusal):
        return axes
    order = tuple(range(len(x.shape)))
    if variant.inputs[x.index or 0] == HWC:
        if axes != set(order[2:]):
            return layer.refusal("the result of a part of the spatial axes is not linear")
        order = (0, *order[2:], 1)  # as the elements lie in memory
    places = sorted(order.index(a) for a in axes)
    if places != list(range(places[0], places[-1] + 1)) or places[-1] == len(order) - 1:
        return layer.refusal("a pool reduces neighbouring axes, not the innermost")
    sizes = [x.shape[a] for a in order]
    before, rows, channels = (
        int(np.prod(part))
        for part in (sizes[: places[0]], sizes[places[0] : places[-1] + 1], sizes[places[-1] + 1 :])
    )
    d = Describer(library, layer, variant)
    first, cut = None, stretches(rows, x) if layer.anchor.op == "ReduceMean" else None
    if cut is not None:
        passed = first_pass(d, x, (before, channels, rows), cut)
        if isinstance(passed, Refusal):
            return passed
        (first, source), rows = passed, cut[0]
    else:
        strides = (rows * channels, 1, channels, channels)
        source = d.input(Argument.SRC, x, (before, channels, rows, 1), strides)
    destination = d.output((before, channels, 1, 1), (channels, 1, channels, channels))
    if any(isinstance(p, Combine) for p in layer.post):
        return layer.refusal("its result is combined with another tensor")
    refusal = d.post_operations(layer.post, destination)
    if refusal is not None:
        return refusal
    descriptor = pooling_forward(
        *(_POOLS[layer.anchor.op], source, destination),
        kernel=(rows, 1),
        strides=(1, 1),
        dilations=(1, 1),
        padding=((0, 0), (0, 0)),
        attributes=d.attributes,
    )
    recipe = d.recipe(descriptor, destination)
    return recipe if isinstance(recipe, Refusal) else replace(recipe, first=first)


def _concat(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    if layer.post:
        return layer.refusal("oneDNN runs nothing after a concatenation")
    d = Describer(library, layer, variant)
    sources: list[MemoryDescriptor] = []
    for k, o in enumerate(layer.operands):
        if o is None or o.index is None or o.permutation is not None:
            return layer.refusal(f"its input {k} is a constant or transposed")
        if not same_affine(o.affine, layer.affine):
            return layer.refusal("its inputs and output are quantized with different scales")
        if o.affine is None and o.type.dtype is not layer.output.dtype:
            return layer.refusal("its inputs have several types")
        sources.append(d.input(Argument.MULTIPLE_SRC + k, o))
    destination = d.output()
    axis = layer.anchor.attributes["axis"] % len(layer.result.shape)
    descriptor = concat(sources, destination, axis=axis, attributes=d.attributes)
    return d.recipe(descriptor, destination)
