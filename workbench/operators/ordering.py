"""Arg-max, arg-min and top-k: where the extremes stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.body import (
    Array,
    Attributes,
    BoundRule,
    Inference,
    Operator,
    Reference,
    TensorType,
)
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators import open_shapes
from workbench.operators.arithmetic import is_number, restricted
from workbench.operators.rules import (
    axis_of,
    certain,
    difference,
    filled,
    known,
    reduced_shape,
    reducer,
    sizes_of,
    squeezed,
)


def _arg_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    axis = axis_of(inference.attributes["axis"], len(x.shape))
    shape = reduced_shape(x.shape, (axis,), inference.attributes["keepdims"])
    return (TensorType(DataType.INT64, shape),)


def _arg(largest: bool) -> Reference:
    choose = np.argmax if largest else np.argmin

    def reference(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
        x, axis = inputs[0], attributes["axis"]
        if attributes["select_last_index"]:
            found = x.shape[axis] - 1 - choose(np.flip(x, axis), axis=axis, keepdims=True)
        else:
            found = choose(x, axis=axis, keepdims=True)
        return (squeezed(attributes, found.astype(np.int64), (axis,)),)

    return reference


def _arg_bound(largest: bool) -> BoundRule:
    """Any index may come out where another element reaches the extreme within the bounds."""

    def bound(
        attributes: Attributes, inputs: Any, bounds: Any, outputs: Any, unit: float
    ) -> tuple[Any, ...]:
        x, e, axis = np.asarray(inputs[0]), bounds[0], attributes["axis"]
        if certain(e):
            return (0.0,)
        real = x.astype(np.float64) if largest else -x.astype(np.float64)
        e = filled(e, x)
        reached = np.max(real - e, axis=axis, keepdims=True)
        rivals = np.sum(real + e >= reached, axis=axis, keepdims=True)
        return (squeezed(attributes, np.where(rivals > 1, x.shape[axis] - 1.0, 0.0), (axis,)),)

    return bound


def _top_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    axis = axis_of(inference.attributes["axis"], len(x.shape))
    (count,) = sizes_of(known(inference, 1, "K"))
    size = x.shape[axis]
    if isinstance(count, int) and isinstance(size, int) and not 0 <= count <= size:
        raise InferenceError(f"K is {count}, axis {axis} has {size}", remedy="ask for fewer")
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return TensorType(x.dtype, shape), TensorType(DataType.INT64, shape)


def _descending(x: Array, axis: int, largest: bool) -> Array:
    """Indices of a stable sort: equal elements stay in their order."""
    if not largest:
        return np.argsort(x, axis=axis, kind="stable")
    backwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(backwards, axis)


def _top(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """Sorted, whether or not the attribute asks for it."""
    x, axis = inputs[0], attributes["axis"]
    order = _descending(x, axis, bool(attributes["largest"]))
    order = np.take(order, np.arange(int(np.asarray(inputs[1]).reshape(()))), axis=axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)


def _top_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """Order statistics are monotone; an index is open where the next value is as near as 2e."""
    if certain(e[0]):
        return 0.0, 0.0
    axis, real, error = attributes["axis"], x[0].astype(np.float64), filled(e[0], x[0])
    center = y[0].astype(np.float64)
    sides = [_top(attributes, (side, x[1]))[0] for side in (real + error, real - error)]
    change = np.maximum(*(difference(s, center) for s in sides))
    near = 2 * np.max(error, axis=axis, keepdims=True)
    ordered = np.sort(real, axis=axis)
    if attributes["largest"]:
        ordered = np.flip(ordered, axis)
    close = np.abs(np.diff(ordered, axis=axis)) <= near
    none = np.zeros_like(np.take(ordered, [0], axis=axis), np.bool_)
    rival = np.concatenate((close, none), axis) | np.concatenate((none, close), axis)
    kept = np.take(rival, np.arange(y[0].shape[axis]), axis=axis)
    return change, np.where(kept, x[0].shape[axis] - 1.0, 0.0)


ORDERING: tuple[Operator, ...] = (
    reducer(
        "ArgMax",
        restricted(_arg_types, is_number, "numbers"),
        _arg(True),
        _arg_bound(True),
        layer_type="TOPK",
        attributes={"axis": 0, "keepdims": 1, "select_last_index": 0},
    ),
    reducer(
        "ArgMin",
        restricted(_arg_types, is_number, "numbers"),
        _arg(False),
        _arg_bound(False),
        layer_type="TOPK",
        attributes={"axis": 0, "keepdims": 1, "select_last_index": 0},
    ),
    reducer(
        "TopK",
        restricted(_top_types, is_number, "numbers"),
        _top,
        _top_bound,
        layer_type="TOPK",
        structural=frozenset({1}),
        attributes={"axis": -1, "largest": 1, "sorted": 1},
        open=open_shapes.top,
    ),
)
