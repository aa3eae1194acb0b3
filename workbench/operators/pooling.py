"""Pooling: MaxPool, AveragePool, and the global forms."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import REQUIRED, Array, Attributes, Cost, Inference, Operator, TensorType
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators.products import gamma, is_exact
from workbench.operators.windows import Window, kernel_axes, patches, window_of


# -- types --------------------------------------------------------------------------------
def _image(inference: Inference) -> TensorType:
    x = inference.input(0)
    if len(x.shape) < 3:
        raise InferenceError(f"input is {x.shape}; need batch, channels and spatial axes")
    if not x.dtype.is_float and x.dtype not in (DataType.INT8, DataType.UINT8):
        raise InferenceError(f"input is {x.dtype}; need a float, INT8 or UINT8")
    return x


def _pool_types(inference: Inference) -> tuple[TensorType, ...]:
    x = _image(inference)
    window = window_of(inference.attributes, x.shape[2:], inference.attributes["kernel_shape"])
    shape = (*x.shape[:2], *window.output)
    types = (TensorType(x.dtype, shape), TensorType(DataType.INT64, shape))
    return types[: inference.outputs]


def _average_types(inference: Inference) -> tuple[TensorType, ...]:
    if not _image(inference).dtype.is_float:
        raise InferenceError(f"input is {inference.input(0).dtype}; need a float")
    return _pool_types(inference)[:1]


def _global_types(inference: Inference) -> tuple[TensorType, ...]:
    x = _image(inference)
    if not x.dtype.is_float:
        raise InferenceError(f"input is {x.dtype}; need a float")
    return (TensorType(x.dtype, (*x.shape[:2], *(1,) * (len(x.shape) - 2))),)


# -- windows ------------------------------------------------------------------------------
def _window(attributes: Attributes, x: Array) -> Window:
    return window_of(attributes, x.shape[2:], attributes["kernel_shape"])


def _lowest(dtype: np.dtype[Any]) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _taps(attributes: Attributes, x: Array, fill: Any) -> Generator[Array]:
    """What each kernel tap sees, one after the other: views of shape (N, C, *output)."""
    window = _window(attributes, x)
    seen = patches(x, window, fill)
    for tap in np.ndindex(*window.kernel):
        yield seen[(..., *tap)]


def _window_max(attributes: Attributes, x: Array) -> Array:
    """The largest element of each window."""
    taps = _taps(attributes, x, _lowest(x.dtype))
    result = np.array(next(taps))
    for seen in taps:
        np.maximum(result, seen, out=result)
    return result


def _window_sum(attributes: Attributes, x: Array) -> Array:
    taps = _taps(attributes, x, 0)
    result = np.array(next(taps))
    for seen in taps:
        result += seen
    return result


def window_counts(attributes: Attributes, sizes: Sequence[int]) -> Array:
    """Elements that each window of an AveragePool divides by: shape (*output).

    Padding counts with count_include_pad; what ceil_mode adds beyond the padding never does.
    """
    window = window_of(attributes, sizes, attributes["kernel_shape"])
    include = attributes["count_include_pad"]
    counts: Array = np.ones((), np.int64)
    for axis, size in enumerate(sizes):
        start = np.arange(window.output[axis]) * window.strides[axis] - window.begin[axis]
        taps = np.arange(window.kernel[axis]) * window.dilations[axis]
        place = start[:, None] + taps
        low = -window.begin[axis] if include else 0
        high = size + window.end[axis] if include else size
        inside = ((place >= low) & (place < high)).sum(axis=1)
        counts = counts[..., None] * inside
    return counts


# -- max ----------------------------------------------------------------------------------
def _max_pool(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """The largest element of each window, and the flat index of the first such in the input."""
    x = inputs[0]
    places = _places(x.shape, column_major=bool(attributes["storage_order"]))
    pairs = zip(_taps(attributes, x, _lowest(x.dtype)), _taps(attributes, places, -1), strict=True)
    seen, place = next(pairs)
    value, index = np.array(seen), np.array(np.broadcast_to(place, seen.shape))
    for seen, place in pairs:
        # Padding (place -1) never wins, and loses to a lowest number.
        better = (seen > value) | ((index < 0) & (place >= 0))
        np.maximum(value, seen, out=value)
        np.copyto(index, place, where=better)
    return value, index + _planes(x.shape)


def _places(shape: Sequence[int], *, column_major: bool) -> Array:
    """Index of each element within its plane: shape (1, 1, *spatial)."""
    order = "F" if column_major else "C"
    return np.arange(math.prod(shape[2:])).reshape((1, 1, *shape[2:]), order=order)


def _planes(shape: Sequence[int]) -> Array:
    """Index of each plane's first element: shape (N, C, 1...)."""
    count = math.prod(shape[:2])
    starts = np.arange(count) * math.prod(shape[2:])
    return starts.reshape(*shape[:2], *(1,) * (len(shape) - 2))


def _max_pool_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    # |max x' - max x| <= max |x' - x|: no rounding. Which element wins is then open.
    if is_exact(bounds[0]):
        return 0.0, 0.0
    return _window_max(attributes, np.broadcast_to(bounds[0], inputs[0].shape)), np.inf


# -- average ------------------------------------------------------------------------------
def _average_pool(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    counts = window_counts(attributes, x.shape[2:])
    return ((_window_sum(attributes, x) / counts).astype(x.dtype, copy=False),)


def _average_pool_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    # A sum of K terms and one division by the count.
    x, error = inputs[0], bounds[0]
    own = 4 * gamma(math.prod(attributes["kernel_shape"]) + 1, unit)
    total = _window_sum(attributes, own * (np.abs(x) + error) + error)
    return (total / window_counts(attributes, x.shape[2:]),)


# -- global -------------------------------------------------------------------------------
def _spatial(x: Array) -> tuple[int, ...]:
    return kernel_axes(x.ndim - 2)


def _global_average(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (inputs[0].mean(axis=_spatial(inputs[0]), keepdims=True),)


def _global_average_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    x, error = inputs[0], bounds[0]
    own = 4 * gamma(math.prod(x.shape[2:]) + 1, unit)
    return ((own * (np.abs(x) + error) + error).mean(axis=_spatial(x), keepdims=True),)


def _global_max(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (inputs[0].max(axis=_spatial(inputs[0]), keepdims=True),)


def _global_max_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    if is_exact(bounds[0]):
        return (0.0,)
    error = np.broadcast_to(bounds[0], inputs[0].shape)
    return (error.max(axis=_spatial(inputs[0]), keepdims=True),)


# -- cost ---------------------------------------------------------------------------------
def _moved(inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> int:
    return sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)


def _window_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    taps = math.prod(attributes["kernel_shape"])
    return Cost(taps * int(dimensions.volume(outputs[0].shape)), _moved(inputs, outputs))


def _global_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    assert inputs[0] is not None
    return Cost(int(dimensions.volume(inputs[0].shape)), _moved(inputs, outputs))


_GEOMETRY = {
    "auto_pad": "NOTSET",
    "ceil_mode": 0,
    "dilations": None,
    "kernel_shape": REQUIRED,
    "pads": None,
    "strides": None,
}

POOLING: tuple[Operator, ...] = (
    Operator(
        name="MaxPool",
        infer=_pool_types,
        reference=_max_pool,
        bound=_max_pool_bound,
        layer_type="POOLING",
        family="pooling",
        attributes=MappingProxyType({**_GEOMETRY, "storage_order": 0}),
        cost=_window_cost,
    ),
    Operator(
        name="AveragePool",
        infer=_average_types,
        reference=_average_pool,
        bound=_average_pool_bound,
        layer_type="POOLING",
        family="pooling",
        attributes=MappingProxyType({**_GEOMETRY, "count_include_pad": 0}),
        cost=_window_cost,
    ),
    Operator(
        name="GlobalAveragePool",
        infer=_global_types,
        reference=_global_average,
        bound=_global_average_bound,
        layer_type="POOLING",
        family="pooling",
        cost=_global_cost,
    ),
    Operator(
        name="GlobalMaxPool",
        infer=_global_types,
        reference=_global_max,
        bound=_global_max_bound,
        layer_type="POOLING",
        family="pooling",
        cost=_global_cost,
    ),
)
