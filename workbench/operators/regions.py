"""Pooling of regions of interest: RoiAlign and MaxRoiPool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench.body import REQUIRED, Array, Attributes, Inference, Operator, TensorType
from workbench.errors import InferenceError
from workbench.operators.products import gamma
from workbench.operators.rules import certain, filled, one_dtype
from workbench.operators.tracking import nudged


def _checked(inference: Inference, columns: int) -> tuple[TensorType, TensorType]:
    x, rois = inference.input(0), inference.input(1)
    one_dtype(x, rois)
    if len(x.shape) != 4 or len(rois.shape) != 2 or rois.shape[1] != columns:
        raise InferenceError(
            f"input is {x.shape}, rois {rois.shape}", remedy=f"give [N, C, H, W] and [n, {columns}]"
        )
    return x, rois


# -- RoiAlign -----------------------------------------------------------------------------
def _align_types(inference: Inference) -> tuple[TensorType, ...]:
    x, rois = _checked(inference, 4)
    a = inference.attributes
    for name, choices in (
        ("mode", ("avg", "max")),
        ("coordinate_transformation_mode", ("half_pixel", "output_half_pixel")),
    ):
        if a[name] not in choices:
            raise InferenceError(f"{name} is {a[name]!r}", remedy=f"use {choices}")
    return (
        TensorType(x.dtype, (rois.shape[0], x.shape[1], a["output_height"], a["output_width"])),
    )


def _samples(
    attributes: Attributes, start: float, end: float, bins: int, size: int
) -> tuple[Array, Array, Array]:
    """Sampled pixels along one axis: lower and upper index (bins, samples), and upper weight.

    A sample beyond the image has the index -1.
    """
    scale = attributes["spatial_scale"]
    half = attributes["coordinate_transformation_mode"] == "half_pixel"
    start, end = start * scale - half * 0.5, end * scale - half * 0.5
    length = end - start if half else max(end - start, 1.0)
    count = attributes["sampling_ratio"] or max(math.ceil(length / bins), 0)
    step = length / bins
    places = start + np.arange(bins)[:, None] * step
    places = places + (np.arange(count) + 0.5) * step / max(count, 1)
    outside = (places < -1) | (places > size)
    places = np.maximum(places, 0)
    low = np.floor(places).astype(np.int64)
    last = low >= size - 1
    low = np.where(last, size - 1, low)
    high = np.where(last, size - 1, low + 1)
    above = np.where(last, 0.0, places - low)
    return np.where(outside, -1, low), high, above


def _align_one(attributes: Attributes, plane: Array, roi: Sequence[float]) -> Array:
    """One region of one image (C, H, W): (C, height, width)."""
    bins = attributes["output_height"], attributes["output_width"]
    x_low, x_high, x_above = _samples(attributes, roi[0], roi[2], bins[1], plane.shape[2])
    y_low, y_high, y_above = _samples(attributes, roi[1], roi[3], bins[0], plane.shape[1])
    inside = (y_low >= 0)[:, None, :, None] & (x_low >= 0)[None, :, None, :]
    parts: list[Array] = []
    for y, y_weight in ((y_low, 1 - y_above), (y_high, y_above)):
        for x, x_weight in ((x_low, 1 - x_above), (x_high, x_above)):
            weight = y_weight[:, None, :, None] * x_weight[None, :, None, :] * inside
            seen = plane[:, y[:, None, :, None], x[None, :, None, :]]
            parts.append(seen * weight.astype(plane.dtype, copy=False))
    if not inside.size:
        return np.zeros((plane.shape[0], *bins), plane.dtype)
    if attributes["mode"] == "avg":
        return sum(parts[1:], parts[0]).mean(axis=(3, 4))
    # The largest of the weighted neighbours, not of the interpolated samples: so the standard's
    # test ``roialign_mode_max`` has it.
    return np.maximum.reduce(parts).max(axis=(3, 4))


def _aligned(attributes: Attributes, x: Array, rois: Array, batch: Array) -> Array:
    shape = (len(rois), x.shape[1], attributes["output_height"], attributes["output_width"])
    result = np.zeros(shape, x.dtype)
    for i, roi in enumerate(rois.astype(np.float64).tolist()):
        result[i] = _align_one(attributes, x[int(batch[i])], roi)
    return result


def _roi_align(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (_aligned(attributes, inputs[0], inputs[1], inputs[2]),)


def _align_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    x, rois, batch = inputs
    if not certain(bounds[2]):
        return (np.inf,)
    reach = np.abs(rois) * abs(attributes["spatial_scale"]) + max(x.shape[2:])
    deltas = filled(bounds[1], rois) + 8 * unit * reach / abs(attributes["spatial_scale"])
    change = nudged(
        lambda *c: _aligned(attributes, x, np.stack(c, axis=1), batch),
        [rois[:, i] for i in range(4)],
        [deltas[:, i] for i in range(4)],
    )
    error = filled(bounds[0], x)
    own = 4 * gamma(64, unit)
    size = own * (np.abs(x) + error) + error
    return (change + _aligned(attributes, size, rois, batch),)


# -- MaxRoiPool ---------------------------------------------------------------------------
def _pool_types(inference: Inference) -> tuple[TensorType, ...]:
    x, rois = _checked(inference, 5)
    return (
        TensorType(x.dtype, (rois.shape[0], x.shape[1], *inference.attributes["pooled_shape"])),
    )


def _bins(start: float, end: float, count: int, size: int) -> list[slice]:
    """The pixels of each bin along one axis. Source: Fast R-CNN's RoIPooling, as in Caffe."""
    first, last = math.floor(start + 0.5), math.floor(end + 0.5)
    step = max(last - first + 1, 1) / count
    edges = [(math.floor(i * step), math.ceil((i + 1) * step)) for i in range(count)]
    return [
        slice(min(max(low + first, 0), size), min(max(high + first, 0), size))
        for low, high in edges
    ]


def _pooled(attributes: Attributes, x: Array, rois: Array) -> Array:
    rows, columns = attributes["pooled_shape"]
    scale = attributes["spatial_scale"]
    result = np.zeros((len(rois), x.shape[1], rows, columns), x.dtype)
    for i, (batch, x1, y1, x2, y2) in enumerate(rois.astype(np.float64).tolist()):
        plane = x[round(batch)]
        across = _bins(x1 * scale, x2 * scale, columns, x.shape[3])
        for r, down in enumerate(_bins(y1 * scale, y2 * scale, rows, x.shape[2])):
            for c, side in enumerate(across):
                seen = plane[:, down, side]
                if seen.size:
                    result[i, :, r, c] = seen.max(axis=(1, 2))
    return result


def _max_roi_pool(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (_pooled(attributes, inputs[0], inputs[1]),)


def _pool_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    x, rois = inputs
    error = filled(bounds[0], x)
    change: Any = _pooled(attributes, error, rois)
    e_rois = filled(bounds[1], rois)
    exact = certain(bounds[1]) and math.frexp(attributes["spatial_scale"])[0] == 0.5
    if not exact:
        deltas = e_rois + 8 * unit * np.abs(rois)
        change = change + nudged(
            lambda *c: _pooled(attributes, x, np.stack((rois[:, 0], *c), axis=1)),
            [rois[:, i] for i in range(1, 5)],
            [deltas[:, i] for i in range(1, 5)],
        )
    return (change,)


REGIONS: tuple[Operator, ...] = (
    Operator(
        name="RoiAlign",
        infer=_align_types,
        reference=_roi_align,
        bound=_align_bound,
        layer_type="ROI_ALIGN",
        family="resampling",
        attributes=MappingProxyType(
            {
                "coordinate_transformation_mode": "half_pixel",
                "mode": "avg",
                "output_height": 1,
                "output_width": 1,
                "sampling_ratio": 0,
                "spatial_scale": 1.0,
            }
        ),
    ),
    Operator(
        name="MaxRoiPool",
        infer=_pool_types,
        reference=_max_roi_pool,
        bound=_pool_bound,
        layer_type="POOLING",
        family="pooling",
        attributes=MappingProxyType({"pooled_shape": REQUIRED, "spatial_scale": 1.0}),
    ),
)
