"""Resize: oneDNN's nearest and linear resampling, where they read what ONNX says.

oneDNN has one coordinate rule, half_pixel with the sizes' own ratio, and rounds halves up. What a
Resize reads is compared with that, position by position: other rules often come to the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workbench.body import Array
from workbench.formats import CHW16, HWC, LINEAR
from workbench.operators.resizing import AxisPlan, dense_taps, plan_axes, taps_of
from workbench.records import Refusal
from workbench.tactics.onednn.constants import Algorithm, Argument
from workbench.tactics.onednn.layouts import has_tag, own
from workbench.tactics.onednn.library import Library
from workbench.tactics.onednn.parts import Layer
from workbench.tactics.onednn.pooling import same_affine
from workbench.tactics.onednn.primitives import resampling_forward
from workbench.tactics.onednn.recipe import Describer, Recipe, Variant, assigned

ANCHORS = ("Resize",)

_TOLERANCE = 1e-6
"""Of a weight: oneDNN computes coordinates in float32, too."""


def variants(layer: Layer) -> Iterator[Variant]:
    """Each layout in and out."""
    rank = len(layer.result.shape)
    for layout in (HWC, own(CHW16), LINEAR):
        inputs = assigned(layer, [(layer.operand(0), layout)], layout)
        if inputs is not None and has_tag(layout, rank):
            yield Variant("resampling", inputs, layout)


def describe(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    """The resampling in these layouts."""
    x = layer.operand(0)
    if x is None or x.index is None or x.permutation is not None:
        return layer.refusal("its input is a constant or transposed")
    if not 3 <= len(x.shape) <= 5:
        return layer.refusal(f"oneDNN resamples one to three axes, its rank is {len(x.shape)}")
    if not same_affine(x.affine, layer.affine):
        return layer.refusal("input and output are quantized with different scales")
    if layer.affine is not None and layer.post:
        return layer.refusal("something follows it before the output is quantized")
    algorithm = _algorithm(layer, x.shape)
    if isinstance(algorithm, Refusal):
        return algorithm
    d = Describer(library, layer, variant)
    source, destination = d.input(Argument.SRC, x), d.output()
    refusal = d.post_operations(layer.post, destination)
    if refusal is not None:
        return refusal
    made = resampling_forward(algorithm, source, destination, attributes=d.attributes)
    return d.recipe(made, destination)


def _algorithm(layer: Layer, shape: tuple[int, ...]) -> Algorithm | Refusal:
    attributes, values = layer.anchor.attributes, layer.values
    mode = attributes["mode"]
    if mode == "cubic":
        return layer.refusal("oneDNN has no cubic resampling")
    if any(v is None for v, n in zip(values[1:], layer.anchor.inputs[1:], strict=True) if n):
        return layer.refusal("its scales or sizes arrive at run time")
    axes = plan_axes(attributes, [np.broadcast_to(np.float32(0), shape), *values[1:]])
    if any(p.axis < 2 for p in axes):
        return layer.refusal("oneDNN resamples images, not batch or channels")
    for plan in axes:
        taps = taps_of(attributes, plan)
        found = dense_taps(taps, plan)
        wanted = _nearest(plan) if mode == "nearest" else _linear(plan)
        if taps.outside.any() or np.abs(found - wanted).max() > _TOLERANCE:
            rule = attributes["coordinate_transformation_mode"]
            return layer.refusal(f"oneDNN reads other positions than {mode} {rule} does")
    linear = mode == "linear"
    return Algorithm.RESAMPLING_LINEAR if linear else Algorithm.RESAMPLING_NEAREST


def _positions(plan: AxisPlan) -> Array:
    return (np.arange(plan.output) + 0.5) * plan.length / plan.output - 0.5


def _nearest(plan: AxisPlan) -> Array:
    """oneDNN's weights: (output, input). Halves are rounded away from zero."""
    nearest = np.clip(np.floor(_positions(plan) + 0.5).astype(np.int64), 0, plan.length - 1)
    return np.eye(plan.length)[nearest]


def _linear(plan: AxisPlan) -> Array:
    x = np.clip(_positions(plan), 0, plan.length - 1)
    return np.maximum(1 - np.abs(x[:, None] - np.arange(plan.length)), 0)
