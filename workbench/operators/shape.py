"""Shapes as data, and constants made from sizes."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Array, Attributes, Inference, Literal, Operator, TensorType
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators import open_shapes
from workbench.operators.products import gamma
from workbench.operators.rules import (
    at_least,
    certain,
    known,
    no_error,
    one_dtype,
    range_of,
    sizes_of,
)


# -- Shape, Size --------------------------------------------------------------------------
def _shape_types(inference: Inference) -> tuple[TensorType, ...]:
    start, end = inference.attributes["start"], inference.attributes["end"]
    return (TensorType(DataType.INT64, (len(inference.input(0).shape[start:end]),)),)


def _shape(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    sizes = np.shape(inputs[0])[attributes["start"] : attributes["end"]]
    return (np.array(sizes, np.int64),)


def _size_types(inference: Inference) -> tuple[TensorType, ...]:
    inference.input(0)
    return (TensorType(DataType.INT64, ()),)


def _size(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (np.array(np.size(inputs[0]), np.int64),)


# -- ConstantOfShape, EyeLike -------------------------------------------------------------
def _filled_types(inference: Inference) -> tuple[TensorType, ...]:
    value = inference.attributes["value"]
    if not isinstance(value, Literal) or len(value.values) != 1:
        raise InferenceError(f"value is {value!r}", remedy="give an array of one element")
    sizes = sizes_of(known(inference, 0, "shape"))
    if any(range_of(size)[1] < 0 for size in sizes):
        raise InferenceError(f"shape is {sizes}", remedy="sizes can't be negative")
    return (TensorType(value.dtype, sizes),)


def _filled(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    value = attributes["value"].array().reshape(())
    shape = tuple(index(size) for size in np.asarray(inputs[0]).reshape(-1).tolist())
    return (np.full(shape, value, value.dtype),)


def _filled_exact(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (y,) = _filled(attributes, inputs)
    return (y.astype(np.float64) if attributes["value"].dtype.is_float else y,)


def _eye_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    if len(x.shape) != 2:
        raise InferenceError(f"input is {x}, needs a matrix", remedy="reshape it to rank 2")
    return (TensorType(inference.attributes["dtype"] or x.dtype, x.shape),)


def _eye(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (x,) = inputs
    to = attributes["dtype"]
    # Ones and zeros are exact in every type: the interpreter stores them in the output's.
    kind = np.float64 if to is not None and to.is_float else x.dtype
    return (np.eye(*x.shape, k=attributes["k"], dtype=kind),)


# -- Range --------------------------------------------------------------------------------
def _range_types(inference: Inference) -> tuple[TensorType, ...]:
    dtype = one_dtype(*(inference.input(i) for i in range(3)))
    start, limit, step = (
        known(inference, i, what).reshape(()).item()
        for i, what in enumerate(("start", "limit", "delta"))
    )
    if isinstance(step, int | float) and step == 0:
        raise InferenceError("delta is 0", remedy="give a step")
    return (TensorType(dtype, (_range_size(start, limit, step),)),)


def _range_size(start: Any, limit: Any, step: Any) -> Any:
    if all(isinstance(v, int) for v in (start, limit, step)):
        return max(-((start - limit) // step), 0)
    if all(isinstance(v, int | float) for v in (start, limit, step)):
        return max(int(np.ceil((limit - start) / step)), 0)
    low, high = range_of(step)
    if low <= 0 <= high:
        raise InferenceError(
            f"delta is {step}, which may have either sign", remedy="make delta a constant"
        )
    span = limit - start if low > 0 else start - limit
    return dimensions.ceildiv(at_least(0, span), step if low > 0 else -step)


def _range(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    start, limit, step = (np.asarray(x).reshape(()) for x in inputs)
    count = _range_size(start.item(), limit.item(), step.item())
    steps = np.arange(count).astype(step.dtype)
    return ((start + steps * step).astype(start.dtype),)


def _range_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """Repeated addition rounds once a step; the largest term bounds them all."""
    if not all(certain(b) for b in e):
        return (np.inf,)
    if y[0].dtype.kind != "f" or not y[0].size:
        return (0.0,)
    return (2 * gamma(y[0].size, unit) * np.max(np.abs(y[0])),)


SHAPE: tuple[Operator, ...] = (
    Operator(
        name="Shape",
        infer=_shape_types,
        reference=_shape,
        bound=no_error,
        layer_type="SHAPE",
        family="shape",
        attributes=MappingProxyType({"start": 0, "end": None}),
    ),
    Operator(
        name="Size",
        infer=_size_types,
        reference=_size,
        bound=no_error,
        layer_type="SHAPE",
        family="shape",
    ),
    Operator(
        name="ConstantOfShape",
        infer=_filled_types,
        reference=_filled,
        bound=no_error,
        layer_type="FILL",
        family="shape",
        attributes=MappingProxyType({"value": Literal(DataType.FLOAT, (1,), (0.0,))}),
        structural=frozenset({0}),
        symbolic=True,
        exact=_filled_exact,
        open=open_shapes.filled,
    ),
    Operator(
        name="Range",
        infer=_range_types,
        reference=_range,
        bound=_range_bound,
        layer_type="FILL",
        family="shape",
        # Halves are widened before a reference sees them, which is stash_type 1 (float).
        attributes=MappingProxyType({"stash_type": 1}),
        structural=frozenset({0, 1, 2}),
        symbolic=True,
        open=open_shapes.counted,
    ),
    Operator(
        name="EyeLike",
        infer=_eye_types,
        reference=_eye,
        bound=no_error,
        layer_type="FILL",
        family="shape",
        attributes=MappingProxyType({"dtype": None, "k": 0}),
    ),
)
