"""Reading between pixels: GridSample, AffineGrid and DeformConv."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Array, Attributes, Cost, Inference, Operator, TensorType
from workbench.errors import InferenceError
from workbench.operators import open_shapes
from workbench.operators.products import gamma, operand
from workbench.operators.resizing import cubic_kernel
from workbench.operators.rules import certain, filled, known, numeric, one_dtype, sizes_of
from workbench.operators.tracking import nudged, tracked
from workbench.operators.windows import per_axis, window_of

Borders = list[tuple[float, float]]
"""The first and last coordinate of each axis that lie inside."""


# -- interpolation ------------------------------------------------------------------------
def _reflected(x: Array, low: float, high: float) -> Array:
    """Coordinates mirrored at the borders until they lie inside."""
    span = high - low
    if span <= 0:
        return np.full_like(x, low)
    folded = np.mod(x - low, 2 * span)
    return low + np.where(folded > span, 2 * span - folded, folded)


def _pixels(x: Array, places: Sequence[Array], padding: str, borders: Borders) -> Array:
    """x (N, C, *sizes) at whole places, one array (N, P) an axis: (N, C, P)."""
    sizes = x.shape[2:]
    flat = np.zeros(places[0].shape, np.int64)
    inside = np.ones(places[0].shape, np.bool_)
    for place, size, (low, high) in zip(places, sizes, borders, strict=True):
        there = place
        if padding == "reflection":
            outside = (there < low) | (there > high)
            there = np.where(outside, np.trunc(_reflected(there, low, high)), there)
        if padding == "zeros":
            inside &= (there >= 0) & (there < size)
        # NaN coordinates read the first pixel.
        there = np.clip(np.nan_to_num(there, posinf=size, neginf=-1), 0, size - 1)
        flat = flat * size + there.astype(np.int64)
    rows = x.reshape(*x.shape[:2], -1)
    seen = np.take_along_axis(rows, flat[:, None, :], axis=2)
    return np.where(inside[:, None, :], seen, 0)


def interpolated(
    x: Array,
    coordinates: Sequence[Array],
    mode: str,
    padding: str,
    borders: Borders,
    *,
    magnitude: bool = False,
) -> Array:
    """x (N, C, *sizes) at coordinates, one array (N, P) an axis: (N, C, P).

    magnitude: with the weights' absolute values. Source: ONNX GridSample-22.
    """
    if mode == "nearest":
        return _pixels(x, [np.rint(c) for c in coordinates], padding, borders)
    reach = 2 if mode == "cubic" else 1
    below = [np.floor(c) for c in coordinates]
    result: Any = 0
    for tap in itertools.product(range(1 - reach, reach + 1), repeat=len(coordinates)):
        places = [b + t for b, t in zip(below, tap, strict=True)]
        weight: Any = 1
        for place, c in zip(places, coordinates, strict=True):
            gap = place - c
            weight = weight * (cubic_kernel(gap, -0.75) if reach == 2 else 1 - np.abs(gap))
        weight = np.abs(weight) if magnitude else weight
        seen = _pixels(x, places, padding, borders)
        result = result + seen * weight[:, None, :].astype(x.dtype, copy=False)
    return result


# -- GridSample ---------------------------------------------------------------------------
def _grid_types(inference: Inference) -> tuple[TensorType, ...]:
    x, grid = numeric(inference), inference.input(1)
    attributes, rank = inference.attributes, len(x.shape) - 2
    for name, choices in (
        ("mode", ("linear", "nearest", "cubic")),
        ("padding_mode", ("zeros", "border", "reflection")),
    ):
        if attributes[name] not in choices:
            raise InferenceError(f"{name} is {attributes[name]!r}", remedy=f"use {choices}")
    if rank < 1 or len(grid.shape) != rank + 2 or grid.shape[-1] != rank:
        raise InferenceError(
            f"input is {x.shape}, grid {grid.shape}", remedy="give [N, *output sizes, axes]"
        )
    return (TensorType(x.dtype, (*x.shape[:2], *grid.shape[1:-1])),)


def _grid_coordinates(attributes: Attributes, x: Array, grid: Array) -> list[Array]:
    """Pixel coordinates, one array (N, P) an axis of x; the grid names the last axis first."""
    found: list[Array] = []
    for i, size in enumerate(x.shape[2:]):
        n = grid[..., grid.shape[-1] - 1 - i].reshape(grid.shape[0], -1)
        if attributes["align_corners"]:
            found.append((n + 1) / 2 * (size - 1))
        else:
            found.append(((n + 1) * size - 1) / 2)
    return found


def _folded(attributes: Attributes, sizes: Sequence[int], coordinates: list[Array]) -> list[Array]:
    """The coordinates brought inside, as padding asks."""
    padding = attributes["padding_mode"]
    found: list[Array] = []
    for c, size, (low, high) in zip(coordinates, sizes, _borders(attributes, sizes), strict=True):
        place = np.rint(c) if attributes["mode"] == "nearest" else c
        outside = (place < low) | (place > high)
        if padding == "border" and attributes["mode"] != "cubic":
            # Cubic clamps the pixels that it reads instead: as PyTorch and ONNX Runtime do; the
            # standard's text leaves it open.
            place = np.where(outside, np.clip(place, 0, size - 1), place)
        elif padding == "reflection":
            place = np.where(outside, _reflected(place, low, high), place)
        found.append(np.trunc(place) if attributes["mode"] == "nearest" else place)
    return found


def _borders(attributes: Attributes, sizes: Sequence[int]) -> Borders:
    if attributes["align_corners"]:
        return [(0.0, n - 1.0) for n in sizes]
    return [(-0.5, n - 0.5) for n in sizes]


def _sampled(
    attributes: Attributes, x: Array, coordinates: list[Array], *, magnitude: bool = False
) -> Array:
    sizes = x.shape[2:]
    return interpolated(
        x,
        _folded(attributes, sizes, coordinates),
        attributes["mode"],
        attributes["padding_mode"],
        _borders(attributes, sizes),
        magnitude=magnitude,
    )


def _grid_sample(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, grid = inputs
    real = x if x.dtype.kind == "f" or attributes["mode"] == "nearest" else x.astype(np.float64)
    y = _sampled(attributes, real, _grid_coordinates(attributes, x, grid))
    if real is not x:
        limits = np.iinfo(x.dtype)
        y = np.clip(np.rint(y), limits.min, limits.max)
    return (y.reshape(*x.shape[:2], *grid.shape[1:-1]).astype(x.dtype, copy=False),)


def _grid_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    x, grid = np.asarray(inputs[0], np.float64), np.asarray(inputs[1], np.float64)
    coordinates = _grid_coordinates(attributes, x, grid)
    offs = filled(bounds[1], grid)
    shifts = _grid_coordinates({"align_corners": 0}, x, offs)
    deltas = [
        np.abs(s - (n - 1) / 2) + 8 * unit * (np.abs(c) + n)
        for s, c, n in zip(shifts, coordinates, x.shape[2:], strict=True)
    ]
    change = nudged(lambda *c: _sampled(attributes, x, list(c)), coordinates, deltas)
    error = filled(bounds[0], x)
    taps = {"nearest": 0, "linear": 2, "cubic": 4}[attributes["mode"]] ** len(coordinates)
    own = 4 * gamma(2 * taps + 8, unit) if taps else 0.0
    size = own * (np.abs(x) + error) + error
    spread = _sampled(attributes, size, coordinates, magnitude=True)
    total = (change + spread).reshape(np.shape(outputs[0]))
    if np.asarray(inputs[0]).dtype.kind == "f" or not taps:
        return (total,)
    return (np.ceil(total),)


# -- AffineGrid ---------------------------------------------------------------------------
def _affine_types(inference: Inference) -> tuple[TensorType, ...]:
    theta = inference.input(0)
    _, _, *sizes = sizes_of(known(inference, 1, "size"))
    if len(sizes) not in (2, 3) or theta.shape[1:] != (len(sizes), len(sizes) + 1):
        raise InferenceError(
            f"theta is {theta.shape}, the grid {tuple(sizes)}", remedy="give [N, d, d + 1]"
        )
    return (TensorType(theta.dtype, (theta.shape[0], *sizes, len(sizes))),)


def _affine_grid(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Any, ...]:
    theta, size = inputs
    sizes = [int(n) for n in np.asarray(size)[2:]]
    lines: list[Array] = []
    for n in sizes:
        if attributes["align_corners"]:
            lines.append(np.linspace(-1, 1, n) if n > 1 else np.zeros(n))
        else:
            lines.append((2 * np.arange(n) + 1) / n - 1)
    grids = np.meshgrid(*lines, indexing="ij")
    # The last axis comes first.
    points = np.stack([*(g.reshape(-1) for g in reversed(grids)), np.ones(math.prod(sizes))])
    if isinstance(theta, np.ndarray):
        points = points.astype(theta.dtype)
    moved = (theta @ points).swapaxes(1, 2)
    return (moved.reshape(theta.shape[0], *sizes, len(sizes)),)


def _affine_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    (own,) = _AFFINE(attributes, inputs, bounds, outputs, unit)
    # The grid's own coordinates round too.
    theta = np.abs(inputs[0])
    rows = 8 * unit * theta.sum(axis=2)
    return (own + rows.reshape(theta.shape[0], *(1,) * theta.shape[1], theta.shape[1]),)


_AFFINE = tracked(_affine_grid, indices=frozenset({1}))


# -- DeformConv ---------------------------------------------------------------------------
def _deform_types(inference: Inference) -> tuple[TensorType, ...]:
    x, w, offset = (inference.input(i) for i in range(3))
    one_dtype(x, w, offset)
    attributes = inference.attributes
    if not x.dtype.is_float or len(x.shape) != 4 or not dimensions.is_static(w.shape):
        raise InferenceError(f"input is {x}, kernel {w}", remedy="give floats of two spatial axes")
    window = window_of(attributes, x.shape[2:], w.shape[2:])
    wanted = 2 * attributes["offset_group"] * math.prod(w.shape[2:])
    expected = (x.shape[0], wanted, *window.output)
    if not dimensions.may_equal(offset.shape, expected):
        raise InferenceError(
            f"offset is {offset.shape}, expected {expected}", remedy="give one a kernel element"
        )
    return (TensorType(x.dtype, (x.shape[0], w.shape[0], *window.output)),)


def _deform_coordinates(attributes: Attributes, inputs: Sequence[Any]) -> list[Array]:
    """Where each kernel element reads: two arrays (N, groups, *kernel, *output)."""
    x, w, offset = inputs[:3]
    kernel = w.shape[2:]
    strides, dilations = (per_axis(attributes, n, 2, 1) for n in ("strides", "dilations"))
    pads = per_axis(attributes, "pads", 4, 0)
    shifts = offset.reshape(x.shape[0], attributes["offset_group"], *kernel, 2, *offset.shape[2:])
    found: list[Array] = []
    for i in range(2):
        taps = np.arange(kernel[i]) * dilations[i]
        starts = np.arange(offset.shape[2 + i]) * strides[i] - pads[i]
        where = [1, 1, 1, 1]
        where[i] = kernel[i]
        taps = taps.reshape(where)
        where = [1, 1, 1, 1]
        where[2 + i] = -1
        found.append(shifts[:, :, :, :, i] + taps + starts.reshape(where))
    return found


def _columns(attributes: Attributes, x: Array, inputs: Sequence[Any], places: Any) -> Array:
    """What the kernel sees, masked: (N, C, *kernel, *output)."""
    mask, groups = operand(inputs, 4), attributes["offset_group"]
    batch, channels = x.shape[:2]
    shape = places[0].shape[2:]
    grouped = x.reshape(batch * groups, channels // groups, *x.shape[2:])
    lines = [p.reshape(batch * groups, -1) for p in places]
    borders = [(0.0, n - 1.0) for n in x.shape[2:]]
    seen = interpolated(grouped, lines, "linear", "zeros", borders)
    seen = seen.reshape(batch, groups, channels // groups, *shape)
    if mask is not None:
        seen = seen * mask.reshape(batch, groups, 1, *shape)
    return seen.reshape(batch, channels, *shape)


def _mixed(attributes: Attributes, columns: Array, w: Array) -> Array:
    group, filters = attributes["group"], w.shape[0]
    batch, output = columns.shape[0], columns.shape[4:]
    lines = columns.reshape(batch, group, -1, math.prod(output))
    return (w.reshape(group, filters // group, -1) @ lines).reshape(batch, filters, *output)


def _deform(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, w, bias = inputs[0], inputs[1], operand(inputs, 3)
    columns = _columns(attributes, x, inputs, _deform_coordinates(attributes, inputs))
    y = _mixed(attributes, columns, w)
    return ((y if bias is None else y + bias.reshape(-1, 1, 1)).astype(x.dtype, copy=False),)


def _deform_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    """Errors of x, offset, kernel, mask and bias, each through what multiplies it."""
    x, w, bias, mask = inputs[0], inputs[1], operand(inputs, 3), operand(inputs, 4)
    places = _deform_coordinates(attributes, inputs)
    zeros = [np.zeros_like(inputs[2]), filled(bounds[2], inputs[2])]
    base, moved = (_deform_coordinates(attributes, (x, w, o)) for o in zeros)
    deltas = [
        m - b + 8 * unit * (np.abs(p) + n)
        for m, b, p, n in zip(moved, base, places, x.shape[2:], strict=True)
    ]
    change = nudged(lambda *p: _columns(attributes, x, inputs, p), places, deltas)
    size_inputs = [*inputs[:4], None if mask is None else np.abs(mask)]
    e_x, e_w = filled(bounds[0], x), filled(bounds[1], w)
    change = change + _columns(attributes, e_x, size_inputs, places)
    size = _columns(attributes, np.abs(x) + e_x, size_inputs, places)
    if mask is not None and not certain(bounds[4]):
        spread = [*inputs[:4], filled(bounds[4], mask)]
        change = change + _columns(attributes, np.abs(x) + e_x, spread, places)
    own = 4 * gamma(math.prod(w.shape[1:]) + 12, unit)
    large = np.abs(w) + e_w
    total = _mixed(attributes, change + own * (size + change), large)
    total = total + _mixed(attributes, size, e_w)
    if bias is not None:
        e_bias = filled(bounds[3], bias)
        total = total + (own * (np.abs(bias) + e_bias) + e_bias).reshape(-1, 1, 1)
    return (total,)


def _deform_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    w = inputs[1]
    assert w is not None
    moved = sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)
    terms = int(dimensions.volume(w.shape[1:]))
    return Cost(2 * terms * int(dimensions.volume(outputs[0].shape)), moved)


SAMPLING: tuple[Operator, ...] = (
    Operator(
        name="GridSample",
        infer=_grid_types,
        reference=_grid_sample,
        bound=_grid_bound,
        layer_type="GRID_SAMPLE",
        family="resampling",
        attributes=MappingProxyType(
            {"align_corners": 0, "mode": "linear", "padding_mode": "zeros"}
        ),
    ),
    Operator(
        name="AffineGrid",
        infer=_affine_types,
        reference=_affine_grid,
        bound=_affine_bound,
        layer_type="GRID_SAMPLE",
        family="resampling",
        structural=frozenset({1}),
        attributes=MappingProxyType({"align_corners": 0}),
        open=open_shapes.grid,
    ),
    Operator(
        name="DeformConv",
        infer=_deform_types,
        reference=_deform,
        bound=_deform_bound,
        layer_type="CONVOLUTION",
        family="convolution",
        cost=_deform_cost,
        attributes=MappingProxyType(
            {
                "dilations": None,
                "group": 1,
                "kernel_shape": None,
                "offset_group": 1,
                "pads": None,
                "strides": None,
            }
        ),
    ),
)
