"""Resize: every axis by itself, each output a weighted sum of a few inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Array, Attributes, Inference, Operator, TensorType
from workbench.dimensions import Shape
from workbench.errors import InferenceError
from workbench.operators import open_shapes
from workbench.operators.products import gamma, operand
from workbench.operators.rules import absent, axes_of, filled, known, numeric, sizes_of

MODES = ("nearest", "linear", "cubic")
TRANSFORMS = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)


# -- sizes --------------------------------------------------------------------------------
def _axes(attributes: Attributes, rank: int) -> tuple[int, ...]:
    axes = attributes["axes"]
    return tuple(range(rank)) if axes is None else axes_of(axes, rank)


def _resize_types(inference: Inference) -> tuple[TensorType, ...]:
    x, attributes = numeric(inference), inference.attributes
    for name, choices in (
        ("mode", MODES),
        ("coordinate_transformation_mode", TRANSFORMS),
        ("nearest_mode", tuple(_ROUNDINGS)),
    ):
        if attributes[name] not in choices:
            raise InferenceError(f"{name} is {attributes[name]!r}", remedy=f"use {choices}")
    if absent(inference, 2) == absent(inference, 3):
        raise InferenceError("needs scales or sizes", remedy="give one of the two")
    if attributes["coordinate_transformation_mode"] == "tf_crop_and_resize":
        inference.input(1)
    if attributes["mode"] == "nearest" and attributes["antialias"]:
        raise InferenceError("antialias has no nearest form", remedy="use linear or cubic")
    axes = _axes(attributes, len(x.shape))
    scales = None if absent(inference, 2) else known(inference, 2, "scales")
    sizes = None if absent(inference, 3) else sizes_of(known(inference, 3, "sizes"))
    given = scales if scales is not None else sizes
    assert given is not None
    if len(given) != len(axes):
        raise InferenceError(
            f"{len(given)} scales or sizes for {len(axes)} axes", remedy="give one an axis"
        )
    if scales is not None and not np.all(scales > 0):
        raise InferenceError(f"scales are {scales}", remedy="make them positive")
    return (TensorType(x.dtype, _output_shape(attributes, x.shape, axes, scales, sizes)),)


def _output_shape(
    attributes: Attributes,
    shape: Shape,
    axes: tuple[int, ...],
    scales: Array | None,
    sizes: Sequence[Any] | None,
) -> Shape:
    result = list(shape)
    if scales is not None:
        for axis, scale in zip(axes, scales.tolist(), strict=True):
            exact = Fraction(scale)
            result[axis] = dimensions.floordiv(shape[axis] * exact.numerator, exact.denominator)
        return tuple(result)
    assert sizes is not None
    if attributes["keep_aspect_ratio_policy"] != "stretch":
        if not dimensions.is_static((*sizes, *(shape[a] for a in axes))):
            raise InferenceError(
                "keep_aspect_ratio_policy of symbolic sizes", remedy="bind the symbols"
            )
        scale = _kept_ratio(attributes, shape, axes, sizes)
        sizes = [int(scale * shape[a] + 0.5) for a in axes]
    for axis, size in zip(axes, sizes, strict=True):
        result[axis] = size
    return tuple(result)


def _kept_ratio(
    attributes: Attributes, shape: Shape, axes: tuple[int, ...], sizes: Sequence[int]
) -> float:
    choose = {"not_larger": min, "not_smaller": max}.get(attributes["keep_aspect_ratio_policy"])
    if choose is None:
        raise InferenceError(
            f"keep_aspect_ratio_policy is {attributes['keep_aspect_ratio_policy']!r}",
            remedy="use stretch, not_larger or not_smaller",
        )
    return choose(s / shape[a] for s, a in zip(sizes, axes, strict=True))


# -- one axis -----------------------------------------------------------------------------
@dataclass(frozen=True)
class AxisPlan:
    """How one axis is resized. scale: output over input length. start, end: of the crop."""

    axis: int
    length: int
    output: int
    scale: float
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True)
class Taps:
    """indices, weights: (output, taps). outside: output positions that read beyond the crop."""

    indices: Array
    weights: Array
    outside: Array


def plan_axes(attributes: Attributes, inputs: Sequence[Any]) -> list[AxisPlan]:
    """The axes that change."""
    shape = np.shape(inputs[0])
    axes = _axes(attributes, len(shape))
    scales, sizes, roi = operand(inputs, 2), operand(inputs, 3), operand(inputs, 1)
    whole = None if sizes is None else [int(s) for s in sizes]
    result = _output_shape(attributes, shape, axes, scales, whole)
    cropped = attributes["coordinate_transformation_mode"] == "tf_crop_and_resize"
    ratio = 0.0
    if whole is not None and attributes["keep_aspect_ratio_policy"] != "stretch":
        ratio = _kept_ratio(attributes, shape, axes, whole)
    plans: list[AxisPlan] = []
    for i, axis in enumerate(axes):
        scale = float(scales[i]) if scales is not None else ratio or result[axis] / shape[axis]
        ends = (float(roi[i]), float(roi[i + len(axes)])) if cropped else (0.0, 1.0)
        if scale != 1 or ends != (0.0, 1.0):
            plans.append(AxisPlan(axis, shape[axis], result[axis], scale, *ends))
    return plans


def _coordinates(attributes: Attributes, plan: AxisPlan) -> Array:
    """Where each output position lies on the input. Source: ONNX Resize-19."""
    y = np.arange(plan.output, dtype=np.float64)
    n, resized = plan.length, plan.scale * plan.length
    match attributes["coordinate_transformation_mode"]:
        case "align_corners":
            return 0 * y if resized == 1 else y * (n - 1) / (resized - 1)
        case "asymmetric":
            return y / plan.scale
        case "tf_crop_and_resize":
            span = (plan.end - plan.start) * (n - 1)
            if resized == 1:
                return 0 * y + plan.start * (n - 1) + span / 2
            return y * span / (resized - 1) + plan.start * (n - 1)
        case "half_pixel_symmetric":
            offset = n / 2 * (1 - plan.output / resized)
            return offset + (y + 0.5) / plan.scale - 0.5
        case "pytorch_half_pixel" if resized == 1:
            return 0 * y
        case _:
            return (y + 0.5) / plan.scale - 0.5


_ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _linear(x: Array, a: float) -> Array:
    return np.maximum(1 - np.abs(x), 0)


def cubic_kernel(x: Array, a: float) -> Array:
    """Keys' cubic convolution kernel. Source: Keys 1981, IEEE ASSP 29(6), equation 4."""
    s = np.abs(x)
    near = ((a + 2) * s - (a + 3)) * s * s + 1
    far = ((a * s - 5 * a) * s + 8 * a) * s - 4 * a
    return np.where(s <= 1, near, np.where(s < 2, far, 0))


def taps_of(attributes: Attributes, plan: AxisPlan, shift: Any = 0.0) -> Taps:
    """What each output position sums; ``shift`` moves the coordinates."""
    x = _coordinates(attributes, plan) + shift
    last = plan.length - 1
    outside = np.zeros(plan.output, np.bool_)
    if attributes["coordinate_transformation_mode"] == "tf_crop_and_resize":
        outside = (x < 0) | (x > last)
    if attributes["mode"] == "nearest":
        nearest = _ROUNDINGS[attributes["nearest_mode"]](x).astype(np.int64)[:, None]
        return Taps(np.clip(nearest, 0, last), np.ones((plan.output, 1)), outside)
    cubic = attributes["mode"] == "cubic"
    # Antialiasing widens the kernel where the axis shrinks.
    shrink = min(plan.scale, 1.0) if attributes["antialias"] else 1.0
    reach = math.ceil((2 if cubic else 1) / shrink)
    places = np.floor(x)[:, None] + np.arange(1 - reach, reach + 1)
    kernel = cubic_kernel if cubic else _linear
    weights = kernel((places - x[:, None]) * shrink, attributes["cubic_coeff_a"])
    if attributes["exclude_outside"]:
        weights = np.where((places < 0) | (places > last), 0, weights)
    if attributes["exclude_outside"] or attributes["antialias"]:
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1, total)
    return Taps(np.clip(places, 0, last).astype(np.int64), weights, outside)


# -- the whole ----------------------------------------------------------------------------
def _resized(attributes: Attributes, inputs: Sequence[Any], x: Array) -> Array:
    nearest = attributes["mode"] == "nearest"
    for plan in plan_axes(attributes, inputs):
        taps = taps_of(attributes, plan)
        column = (-1, *(1,) * (x.ndim - 1 - plan.axis))
        result: Any = 0
        for k in range(taps.indices.shape[1]):
            seen = np.take(x, taps.indices[:, k], axis=plan.axis)
            weights = taps.weights[:, k].reshape(column).astype(x.dtype)
            result = seen if nearest else result + seen * weights
        fill = np.asarray(attributes["extrapolation_value"]).astype(x.dtype)
        x = np.where(taps.outside.reshape(column), fill, result) if taps.outside.any() else result
    return x


def _resize(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    if attributes["mode"] == "nearest" or x.dtype.kind == "f":
        return (_resized(attributes, inputs, x),)
    real = _resized(attributes, inputs, x.astype(np.float64))
    limits = np.iinfo(x.dtype)
    return (np.clip(np.rint(real), limits.min, limits.max).astype(x.dtype),)


def dense_taps(taps: Taps, plan: AxisPlan) -> Array:
    """The taps as a matrix (output, input)."""
    matrix = np.zeros((plan.output, plan.length))
    rows = np.arange(plan.output)[:, None]
    np.add.at(matrix, (rows, taps.indices), taps.weights * ~taps.outside[:, None])
    return matrix


def _uncertainty(attributes: Attributes, plan: AxisPlan, unit: float) -> Any:
    """How far a coordinate computed with this roundoff may be off; 0 where nothing rounds."""
    plain = attributes["coordinate_transformation_mode"] in ("half_pixel", "asymmetric")
    if plain and math.frexp(plan.scale)[0] == 0.5:
        return 0.0
    return 8 * unit * (plan.length + 1)


def _resize_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    """Each axis a matrix; its entries change with the coordinates' rounding."""
    x = np.asarray(inputs[0])
    if x.dtype.kind not in "fiu":
        return (0.0,)
    size = np.abs(x.astype(np.float64))
    large, terms = size + filled(bounds[0], x), 8
    for plan in plan_axes(attributes, inputs):
        exact = dense_taps(taps_of(attributes, plan), plan)
        delta = _uncertainty(attributes, plan, unit)
        change = np.zeros(exact.shape)
        if delta:
            for s in (-delta, delta):
                moved = dense_taps(taps_of(attributes, plan, s), plan)
                change = np.maximum(change, np.abs(moved - exact))
        terms += int(np.max(np.count_nonzero(exact, axis=1), initial=0)) + 8
        size = _along(np.abs(exact), size, plan.axis)
        large = _along(np.abs(exact) + change, large, plan.axis)
    nearest = attributes["mode"] == "nearest"
    error = large - size + (0.0 if nearest else 4 * gamma(terms, unit) * large)
    if x.dtype.kind == "f" or nearest:
        return (error,)
    real = _resized(attributes, inputs, x.astype(np.float64))
    return (np.where(np.abs(real - np.rint(real)) + error >= 0.5, np.ceil(error), 0.0),)


def _along(matrix: Array, x: Array, axis: int) -> Array:
    return np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)


RESIZING: tuple[Operator, ...] = (
    Operator(
        name="Resize",
        infer=_resize_types,
        reference=_resize,
        bound=_resize_bound,
        layer_type="RESIZE",
        family="resampling",
        structural=frozenset({2, 3}),
        open=open_shapes.same_rank,
        attributes=MappingProxyType(
            {
                "antialias": 0,
                "axes": None,
                "coordinate_transformation_mode": "half_pixel",
                "cubic_coeff_a": -0.75,
                "exclude_outside": 0,
                "extrapolation_value": 0.0,
                "keep_aspect_ratio_policy": "stretch",
                "mode": "nearest",
                "nearest_mode": "round_prefer_floor",
            }
        ),
    ),
)
