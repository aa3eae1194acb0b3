"""Pools: maximum and average over windows or over everything."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workbench.formats import CHW16, HWC, LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.onednn.constants import Algorithm, Argument
from workbench.tactics.onednn.layouts import has_tag, own
from workbench.tactics.onednn.library import Library
from workbench.tactics.onednn.parts import Affine, Layer
from workbench.tactics.onednn.primitives import pooling_forward
from workbench.tactics.onednn.recipe import Describer, Recipe, Variant, assigned
from workbench.tactics.onednn.window import Window, read_window

ANCHORS = ("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool")

_SAME: tuple[tuple[Format, Format], ...] = ((HWC, HWC), (CHW16, CHW16), (LINEAR, LINEAR))


def variants(layer: Layer) -> Iterator[Variant]:
    """Each layout in and out."""
    rank = len(layer.result.shape)
    for source, target in [(own(a), own(b)) for a, b in _SAME]:
        inputs = assigned(layer, [(layer.operand(0), source)], target)
        if inputs is not None and has_tag(source, rank):
            yield Variant("pooling", inputs, target)


def describe(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    """The pool in these layouts."""
    x, node = layer.operand(0), layer.anchor
    if x is None or x.index is None or x.permutation is not None:
        return layer.refusal("its input is a constant or transposed")
    if not same_affine(x.affine, layer.affine):
        return layer.refusal("input and output are quantized with different scales")
    if layer.affine is not None and layer.post:
        return layer.refusal("something follows it before the output is quantized")
    source_sizes, result_sizes = x.shape[2:], layer.result.shape[2:]
    everything = node.op.startswith("Global")
    kernel = source_sizes if everything else node.attributes["kernel_shape"]
    window = read_window({} if everything else node.attributes, kernel, source_sizes, result_sizes)
    algorithm = _algorithm(layer, window)
    if isinstance(algorithm, Refusal):
        return algorithm
    d = Describer(library, layer, variant)
    source, destination = d.input(Argument.SRC, x), d.output()
    refusal = d.post_operations(layer.post, destination)
    if refusal is not None:
        return refusal
    descriptor = pooling_forward(
        *(algorithm, source, destination),
        kernel=window.kernel,
        strides=window.strides,
        dilations=window.dilations,
        padding=window.padding,
        attributes=d.attributes,
    )
    return d.recipe(descriptor, destination)


def _algorithm(layer: Layer, window: Window) -> Algorithm | Refusal:
    if layer.anchor.op.endswith("MaxPool"):
        return Algorithm.POOLING_MAX
    if not layer.anchor.attributes.get("count_include_pad"):
        return Algorithm.POOLING_AVERAGE_EXCLUDE_PADDING
    if window.reaches_past_padding:
        return layer.refusal("oneDNN would count ceil_mode's extra cells into the average")
    return Algorithm.POOLING_AVERAGE_INCLUDE_PADDING


def same_affine(first: Affine | None, second: Affine | None) -> bool:
    """Whether two tensors are quantized alike, or neither is."""
    if first is None or second is None:
        return first is second
    return first.zero_point == second.zero_point and np.array_equal(first.scale, second.scale)
