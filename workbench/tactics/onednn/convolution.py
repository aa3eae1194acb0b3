"""Convolutions: dense, grouped, depthwise and transposed, in floats and in quantized integers.

Winograd's algorithm is asked for wherever it applies; oneDNN 3.2 has it on no x86-64 processor.
"""

from __future__ import annotations

from collections.abc import Iterator

from workbench.datatypes import DataType
from workbench.formats import CHW16, HWC, LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.onednn.constants import Algorithm, Argument
from workbench.tactics.onednn.descriptors import MemoryDescriptor
from workbench.tactics.onednn.layouts import has_tag, own
from workbench.tactics.onednn.library import Library
from workbench.tactics.onednn.parts import Combine, Layer, Operand, PostOperation
from workbench.tactics.onednn.primitives import convolution_forward
from workbench.tactics.onednn.recipe import (
    Describer,
    Recipe,
    Variant,
    assigned,
    in_place_too,
    real_values,
)
from workbench.tactics.onednn.window import read_transposed_window, read_window

ANCHORS = ("Conv", "ConvTranspose")

LAYOUTS: tuple[tuple[Format, Format], ...] = (
    (HWC, HWC),
    (CHW16, CHW16),
    (LINEAR, HWC),
    (LINEAR, CHW16),
    (LINEAR, LINEAR),
)
"""(input, output): oneDNN's kernels want channels inside; a first layer may read LINEAR."""


_ALGORITHMS = {
    "convolution": Algorithm.CONVOLUTION_DIRECT,
    "winograd convolution": Algorithm.CONVOLUTION_WINOGRAD,
    "deconvolution": Algorithm.DECONVOLUTION_DIRECT,
}


def variants(layer: Layer) -> Iterator[Variant]:
    """Every algorithm in every pair of layouts."""
    return in_place_too(layer, _variants(layer))


def _variants(layer: Layer) -> Iterator[Variant]:
    rank = len(layer.result.shape)
    for source, target in [(own(a), own(b)) for a, b in LAYOUTS]:
        inputs = assigned(layer, [(layer.operand(0), source)], target)
        if inputs is not None and has_tag(source, rank) and has_tag(target, rank):
            for algorithm in _algorithms(layer):
                yield Variant(algorithm, inputs, target)


def _algorithms(layer: Layer) -> tuple[str, ...]:
    w, attributes = layer.operand(1), layer.anchor.attributes
    if layer.anchor.op == "ConvTranspose":
        return ("deconvolution",)
    steps = {*(attributes.get("strides") or ()), *(attributes.get("dilations") or ())}
    dense = steps <= {1} and attributes.get("group", 1) == 1
    if w is not None and w.shape[2:] == (3, 3) and dense:
        return ("convolution", "winograd convolution")
    return ("convolution",)


def describe(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    """The convolution in these layouts."""
    x, w = layer.operand(0), layer.operand(1)
    if x is None or w is None or w.array is None or x.index is None:
        return layer.refusal("oneDNN packs weights ahead, these are not constants")
    given = layer.operand(2)
    if x.permutation is not None or (given is not None and not given.is_constant):
        return layer.refusal("its input is transposed, or its bias is not a constant")
    d = Describer(library, layer, variant)
    groups = int(layer.anchor.attributes.get("group") or 1)
    source = d.input(Argument.SRC, x)
    weights = _weights(d, x, w, groups)
    if isinstance(weights, Refusal):
        return weights
    bias, post = _bias(d, layer)
    destination = d.output()
    refusal = d.quantized_source(Argument.SRC, x) or d.post_operations(post, destination)
    if refusal is not None:
        return refusal
    d.quantized_output()
    sizes = (w.shape[2:], x.shape[2:], layer.result.shape[2:])
    read = read_transposed_window if variant.primitive == "deconvolution" else read_window
    window = read(layer.anchor.attributes, *sizes)
    descriptor = convolution_forward(
        *(source, weights, bias, destination),
        strides=window.strides,
        dilations=window.dilations,
        padding=window.padding,
        attributes=d.attributes,
        algorithm=_ALGORITHMS[variant.primitive],
    )
    return d.recipe(descriptor, destination)


def _weights(d: Describer, x: Operand, w: Operand, groups: int) -> MemoryDescriptor | Refusal:
    array = w.array if x.affine is not None else real_values(w) if w.affine else w.array
    assert array is not None
    if x.affine is not None:
        refusal = _quantized_weights(d, w, groups)
        if refusal is not None:
            return refusal
    parted = array.reshape(groups, array.shape[0] // groups, *array.shape[1:])
    if d.layer.anchor.op == "ConvTranspose":
        parted = parted.swapaxes(1, 2)  # ONNX: input channels first; oneDNN: output channels
    return d.weights(parted[0] if groups == 1 else parted)


def _quantized_weights(d: Describer, w: Operand, groups: int) -> Refusal | None:
    if w.affine is None or w.type.dtype is not DataType.INT8:
        kind = w.type.dtype.value
        return d.layer.refusal(f"its input is quantized, its weights are {kind}", "quantize both")
    if w.affine.zero_point:
        return d.layer.refusal("its weights have a zero point; oneDNN wants symmetric ones")
    outputs = 1 if d.layer.anchor.op == "ConvTranspose" else 0
    if w.affine.axis not in (None, outputs) or (w.affine.axis == 1 and groups > 1):
        have = f"along axis {w.affine.axis} in {groups} groups"
        return d.layer.refusal(f"its weights are quantized {have}, not per output channel")
    per_channel = 1 if groups == 1 else 3  # output channels, or (group, output channel)
    mask = 0 if w.affine.is_per_tensor else per_channel
    d.constant(d.attributes.scale(Argument.WEIGHTS, mask), w.affine.scale)
    return None


def _bias(d: Describer, layer: Layer) -> tuple[MemoryDescriptor | None, tuple[PostOperation, ...]]:
    """The bias, an own input or a constant added first; and the post-operations left."""
    given = layer.operand(2)
    if given is not None:
        return d.constant(Argument.BIAS, real_values(given)), layer.post
    if layer.post and isinstance(layer.post[0], Combine):
        first, channels = layer.post[0], layer.result.shape[1]
        column = (channels, *(1,) * (len(layer.result.shape) - 2))
        operand = first.operand
        if operand.is_constant and first.algorithm is Algorithm.ADD:
            values = real_values(operand)
            if tuple(values.shape) in (column, (1, *column)):
                return d.constant(Argument.BIAS, values.reshape(-1)), layer.post[1:]
    return None, layer.post
