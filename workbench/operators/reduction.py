"""Reductions along axes, softmax, cumulative sums, arg-max and top-k."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import (
    Array,
    Attributes,
    BoundRule,
    Cost,
    CostRule,
    Inference,
    InferRule,
    Operator,
    Reference,
    TensorType,
)
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators.arithmetic import is_number, restricted
from workbench.operators.products import gamma, is_exact
from workbench.operators.rules import (
    absent,
    axes_of,
    axis_of,
    certain,
    difference,
    filled,
    floating,
    known,
    numbers_of,
    sizes_of,
)

Axes = tuple[int, ...]
Reduce = Callable[[Array, Axes], Array]
"""(array, axes) -> the reduced array, with sizes of 1 where it was reduced."""


# -- the functions ------------------------------------------------------------------------
def _sum(x: Array, axes: Axes) -> Array:
    return np.sum(x, axis=axes, keepdims=True, dtype=x.dtype)


def _count(x: Array, axes: Axes) -> int:
    return math.prod(x.shape[a] for a in axes)


def _mean(x: Array, axes: Axes) -> Array:
    return (_sum(x, axes) / _count(x, axes)).astype(x.dtype)


def _least(x: Array) -> Any:
    """What the maximum of nothing is."""
    return (-np.inf if x.dtype.kind == "f" else False) if x.dtype.kind in "fb" else _info(x).min


def _greatest(x: Array) -> Any:
    return (np.inf if x.dtype.kind == "f" else True) if x.dtype.kind in "fb" else _info(x).max


def _info(x: Array) -> Any:
    return np.iinfo(x.dtype)


def _max(x: Array, axes: Axes) -> Array:
    return np.max(x, axis=axes, keepdims=True, initial=_least(x))


def _min(x: Array, axes: Axes) -> Array:
    return np.min(x, axis=axes, keepdims=True, initial=_greatest(x))


def _prod(x: Array, axes: Axes) -> Array:
    return np.prod(x, axis=axes, keepdims=True, dtype=x.dtype)


def _l1(x: Array, axes: Axes) -> Array:
    return _sum(np.abs(x), axes)


def _l2(x: Array, axes: Axes) -> Array:
    return np.sqrt(_sum(np.square(x), axes)).astype(x.dtype)


def _sum_square(x: Array, axes: Axes) -> Array:
    return _sum(np.square(x), axes)


def _log_sum(x: Array, axes: Axes) -> Array:
    return np.log(_sum(x, axes)).astype(x.dtype)


def log_sum_exp(x: Array, axes: Axes) -> Array:
    """ln Σ exp(x), without overflow."""
    top = _max(x, axes)
    top = np.where(np.isfinite(top), top, 0).astype(x.dtype)
    return (top + np.log(_sum(np.exp(x - top), axes))).astype(x.dtype)


# -- own rounding of each: (x, y, axes, unit) -> absolute error ---------------------------
Rounding = Callable[[Array, Array, Axes, float], Any]


def _none(x: Array, y: Array, axes: Axes, unit: float) -> Any:
    return 0.0


def _of_sum(x: Array, y: Array, axes: Axes, unit: float) -> Any:
    return 4 * gamma(_count(x, axes), unit) * _l1(x, axes)


def _of_mean(x: Array, y: Array, axes: Axes, unit: float) -> Any:
    return _of_sum(x, y, axes, unit) / max(_count(x, axes), 1) + 2 * unit * np.abs(y)


def _relative(x: Array, y: Array, axes: Axes, unit: float) -> Any:
    """A product of all, or a sum of terms of one sign."""
    return 4 * gamma(_count(x, axes) + 2, unit) * np.abs(y)


def _of_log_sum(x: Array, y: Array, axes: Axes, unit: float) -> Any:
    """The sum's relative error, then the logarithm's."""
    inner = _of_sum(x, y, axes, unit) / np.abs(_sum(x, axes))
    return inner + unit * (8 * np.abs(y) + 4)


def _of_log_sum_exp(x: Array, y: Array, axes: Axes, unit: float) -> Any:
    """exp and ln at 8 ulps; the largest element is subtracted first and added last, or not."""
    count = _count(x, axes)
    top = np.abs(_max(x, axes))
    spread = 16 + 4 * top + 4 * np.abs(y) + 4 * math.log(max(count, 1))
    return 4 * gamma(count, unit) + unit * spread


# -- rows of Reduce* ----------------------------------------------------------------------
def _chosen_axes(attributes: Attributes, rank: int, axes: Any) -> Axes:
    given = () if axes is None else tuple(int(a) for a in np.asarray(axes).reshape(-1))
    if given or attributes["noop_with_empty_axes"]:
        return axes_of(given, rank)
    return tuple(range(rank))


def _reduced_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    axes = None
    if not absent(inference, 1):
        axes = numbers_of(known(inference, 1, "axes"), "axes")
    chosen = _chosen_axes(inference.attributes, len(x.shape), axes)
    return (TensorType(x.dtype, _reduced(x.shape, chosen, inference.attributes["keepdims"])),)


def _reduced(shape: dimensions.Shape, axes: Axes, keepdims: Any) -> dimensions.Shape:
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _axes(attributes: Attributes, inputs: Sequence[Any]) -> Axes:
    axes = inputs[1] if len(inputs) > 1 else None
    return _chosen_axes(attributes, np.ndim(inputs[0]), axes)


def _squeezed(attributes: Attributes, y: Any, axes: Axes) -> Array:
    return np.asarray(y) if attributes["keepdims"] else np.squeeze(y, axis=axes)


def _reference(reduce: Reduce) -> Reference:
    def reference(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
        axes = _axes(attributes, inputs)
        return (_squeezed(attributes, reduce(np.asarray(inputs[0]), axes), axes),)

    return reference


def _bound(reduce: Reduce, rounding: Rounding, *, even: bool) -> BoundRule:
    """Change at the corners x ± e of a monotone reduction (of |x|, if it is ``even``)."""

    def bound(
        attributes: Attributes, inputs: Any, bounds: Any, outputs: Any, unit: float
    ) -> tuple[Any, ...]:
        x, e, axes = np.asarray(inputs[0]), bounds[0], _axes(attributes, inputs)
        own = 0.0
        if x.dtype.kind == "f":
            own = rounding(x, reduce(x, axes), axes, unit)
        if is_exact(e):
            return (_squeezed(attributes, own, axes) if np.ndim(own) else own,)
        real = np.abs(x).astype(np.float64) if even else x.astype(np.float64)
        center = reduce(real, axes)
        below = np.maximum(real - e, 0) if even else real - e
        change = np.maximum(
            difference(reduce(real + e, axes), center), difference(reduce(below, axes), center)
        )
        return (_squeezed(attributes, own + change, axes),)

    return bound


def _input_cost(flops: int) -> CostRule:
    """So many operations an input element; every input and output moved once."""

    def cost(
        attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
    ) -> Cost:
        moved = sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)
        assert inputs[0] is not None
        return Cost(flops * int(dimensions.volume(inputs[0].shape)), moved)

    return cost


def _row(
    name: str,
    infer: InferRule,
    reference: Reference,
    bound: BoundRule,
    *,
    layer_type: str = "REDUCE",
    flops: int = 1,
    structural: frozenset[int] = frozenset(),
    attributes: Mapping[str, Any] = MappingProxyType({}),
) -> Operator:
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=bound,
        layer_type=layer_type,
        family="reduction",
        attributes=MappingProxyType(dict(attributes)),
        cost=_input_cost(flops),
        structural=structural,
    )


_NUMBER = restricted(_reduced_types, is_number, "numbers")


def _reduction(
    name: str,
    reduce: Reduce,
    rounding: Rounding,
    *,
    even: bool = False,
    infer: InferRule = _NUMBER,
    flops: int = 1,
) -> Operator:
    return _row(
        name,
        infer,
        _reference(reduce),
        _bound(reduce, rounding, even=even),
        flops=flops,
        structural=frozenset({1}),
        attributes={"keepdims": 1, "noop_with_empty_axes": 0},
    )


# -- ArgMax, ArgMin, TopK -----------------------------------------------------------------
def _arg_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    axis = axis_of(inference.attributes["axis"], len(x.shape))
    shape = _reduced(x.shape, (axis,), inference.attributes["keepdims"])
    return (TensorType(DataType.INT64, shape),)


def _arg(largest: bool) -> Reference:
    choose = np.argmax if largest else np.argmin

    def reference(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
        x, axis = inputs[0], attributes["axis"]
        if attributes["select_last_index"]:
            found = x.shape[axis] - 1 - choose(np.flip(x, axis), axis=axis, keepdims=True)
        else:
            found = choose(x, axis=axis, keepdims=True)
        return (_squeezed(attributes, found.astype(np.int64), (axis,)),)

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
        return (_squeezed(attributes, np.where(rivals > 1, x.shape[axis] - 1.0, 0.0), (axis,)),)

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


# -- Softmax, LogSoftmax ------------------------------------------------------------------
def _axis_types(inference: Inference) -> tuple[TensorType, ...]:
    (x,) = floating(inference)
    axis_of(inference.attributes["axis"], len(x.shape))
    return (x,)


def _softmax(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, axes = inputs[0], (attributes["axis"],)
    powers = np.exp(x - _max(x, axes))
    return (powers / _sum(powers, axes),)


def _log_softmax(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, axes = inputs[0], (attributes["axis"],)
    shifted = x - _max(x, axes)
    return (shifted - np.log(_sum(np.exp(shifted), axes)),)


def _softmax_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """Its range when each input moves by its bound; exp's error grows with its argument."""
    (real,), axes = x, (attributes["axis"],)
    count = _count(real, axes)
    depth = np.where(y[0] > 0, np.abs(real - _max(real, axes)), 0.0)
    relative = unit * (16 + 2 * depth + 2 * math.log(max(count, 1))) + 4 * gamma(count, unit)
    own = relative * y[0]
    if is_exact(e[0]):
        return (own,)
    top = _max(real + e[0], axes)
    high, low = np.exp(real + e[0] - top), np.exp(real - e[0] - top)
    # One element at its highest and the others at their lowest, and the other way round.
    most = high / (high + np.maximum(_sum(low, axes) - low, 0))
    least = low / (low + np.maximum(_sum(high, axes) - high, 0))
    change = np.maximum(np.abs(most - y[0]), np.abs(y[0] - least))
    return (own + np.where(np.isnan(change), 1.0, change),)


def _log_softmax_bound(
    attributes: Attributes, x: Any, e: Any, y: Any, unit: float
) -> tuple[Any, ...]:
    (real,), axes = x, (attributes["axis"],)
    count = _count(real, axes)
    scale = 16 + 4 * np.abs(y[0]) + 4 * np.abs(_max(real, axes)) + 4 * math.log(max(count, 1))
    own = unit * scale + 4 * gamma(count, unit)
    if is_exact(e[0]):
        return (own,)
    total = log_sum_exp(real, axes)
    sides = [difference(log_sum_exp(s, axes), total) for s in (real - e[0], real + e[0])]
    return (own + e[0] + np.maximum(*sides),)


# -- CumSum -------------------------------------------------------------------------------
def _cumulative_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    (axis,) = numbers_of(known(inference, 1, "axis"), "axis")
    axis_of(axis, len(x.shape))
    return (x,)


def _cumulative(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, axis = inputs[0], int(np.asarray(inputs[1]).reshape(()))
    if attributes["reverse"]:
        x = np.flip(x, axis)
    y = np.cumsum(x, axis=axis, dtype=x.dtype)
    if attributes["exclusive"] and x.shape[axis]:
        nothing = np.zeros_like(np.take(y, [0], axis=axis))
        y = np.concatenate((nothing, np.take(y, np.arange(x.shape[axis] - 1), axis=axis)), axis)
    return (np.flip(y, axis) if attributes["reverse"] else y,)


def _cumulative_bound(
    attributes: Attributes, x: Any, e: Any, y: Any, unit: float
) -> tuple[Any, ...]:
    axis = int(np.asarray(x[1]).reshape(()))
    own: Any = 0.0
    if x[0].dtype.kind == "f":
        (size,) = _cumulative(attributes, (np.abs(x[0]), x[1]))
        own = 4 * gamma(x[0].shape[axis], unit) * size
    if is_exact(e[0]):
        return (own,)
    return (own + _cumulative(attributes, (filled(e[0], x[0]), x[1]))[0],)


REDUCTION: tuple[Operator, ...] = (
    _reduction("ReduceSum", _sum, _of_sum),
    _reduction("ReduceMean", _mean, _of_mean),
    _reduction("ReduceMax", _max, _none, infer=_reduced_types),
    _reduction("ReduceMin", _min, _none, infer=_reduced_types),
    _reduction("ReduceProd", _prod, _relative, even=True),
    _reduction("ReduceL1", _l1, _relative, even=True),
    _reduction("ReduceL2", _l2, _relative, even=True, flops=2),
    _reduction("ReduceSumSquare", _sum_square, _relative, even=True, flops=2),
    _reduction("ReduceLogSum", _log_sum, _of_log_sum),
    _reduction("ReduceLogSumExp", log_sum_exp, _of_log_sum_exp, flops=3),
    _row(
        "ArgMax",
        restricted(_arg_types, is_number, "numbers"),
        _arg(True),
        _arg_bound(True),
        layer_type="TOPK",
        attributes={"axis": 0, "keepdims": 1, "select_last_index": 0},
    ),
    _row(
        "ArgMin",
        restricted(_arg_types, is_number, "numbers"),
        _arg(False),
        _arg_bound(False),
        layer_type="TOPK",
        attributes={"axis": 0, "keepdims": 1, "select_last_index": 0},
    ),
    _row(
        "TopK",
        restricted(_top_types, is_number, "numbers"),
        _top,
        _top_bound,
        layer_type="TOPK",
        structural=frozenset({1}),
        attributes={"axis": -1, "largest": 1, "sorted": 1},
    ),
    _row(
        "Softmax",
        _axis_types,
        _softmax,
        _softmax_bound,
        layer_type="SOFTMAX",
        flops=5,
        attributes={"axis": -1},
    ),
    _row(
        "LogSoftmax",
        _axis_types,
        _log_softmax,
        _log_softmax_bound,
        layer_type="SOFTMAX",
        flops=5,
        attributes={"axis": -1},
    ),
    _row(
        "CumSum",
        restricted(_cumulative_types, is_number, "numbers"),
        _cumulative,
        _cumulative_bound,
        layer_type="CUMULATIVE",
        structural=frozenset({1}),
        attributes={"exclusive": 0, "reverse": 0},
    ),
)
