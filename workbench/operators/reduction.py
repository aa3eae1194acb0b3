"""Reductions along axes and sums so far; the family's table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from workbench.body import (
    Array,
    Attributes,
    BoundRule,
    Inference,
    InferRule,
    Operator,
    Reference,
    TensorType,
)
from workbench.operators import open_shapes
from workbench.operators.arithmetic import is_number, restricted
from workbench.operators.cumulative import CUMULATIVE
from workbench.operators.ordering import ORDERING
from workbench.operators.products import gamma, is_exact
from workbench.operators.rules import (
    absent,
    axes_of,
    difference,
    known,
    numbers_of,
    reduced_shape,
    reducer,
    squeezed,
)
from workbench.operators.softmax import SOFTMAX, log_sum_exp

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


def _neutral(x: Array, sign: int) -> Any:
    """What the maximum (sign -1) or minimum (sign 1) of nothing is."""
    if x.dtype.kind == "f":
        return sign * np.inf
    if x.dtype.kind == "b":
        return sign > 0
    limits = np.iinfo(x.dtype)
    return limits.max if sign > 0 else limits.min


def _max(x: Array, axes: Axes) -> Array:
    return np.max(x, axis=axes, keepdims=True, initial=_neutral(x, -1))


def _min(x: Array, axes: Axes) -> Array:
    return np.min(x, axis=axes, keepdims=True, initial=_neutral(x, 1))


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
    return (TensorType(x.dtype, reduced_shape(x.shape, chosen, inference.attributes["keepdims"])),)


def _axes(attributes: Attributes, inputs: Sequence[Any]) -> Axes:
    axes = inputs[1] if len(inputs) > 1 else None
    return _chosen_axes(attributes, np.ndim(inputs[0]), axes)


def _reference(reduce: Reduce) -> Reference:
    def reference(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
        axes = _axes(attributes, inputs)
        return (squeezed(attributes, reduce(np.asarray(inputs[0]), axes), axes),)

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
            return (squeezed(attributes, own, axes) if np.ndim(own) else own,)
        real = np.abs(x).astype(np.float64) if even else x.astype(np.float64)
        center = reduce(real, axes)
        below = np.maximum(real - e, 0) if even else real - e
        change = np.maximum(
            difference(reduce(real + e, axes), center), difference(reduce(below, axes), center)
        )
        return (squeezed(attributes, own + change, axes),)

    return bound


_NUMBER = restricted(_reduced_types, is_number, "numbers")


def _reduction(
    name: str,
    reduce: Reduce,
    rounding: Rounding,
    *,
    even: bool = False,
    infer: InferRule = _NUMBER,
    flops: int = 1,
    symbolic: bool = False,
) -> Operator:
    return reducer(
        name,
        infer,
        _reference(reduce),
        _bound(reduce, rounding, even=even),
        flops=flops,
        structural=frozenset({1}),
        attributes={"keepdims": 1, "noop_with_empty_axes": 0},
        symbolic=symbolic,
        open=open_shapes.reduced,
    )


REDUCTION: tuple[Operator, ...] = (
    _reduction("ReduceSum", _sum, _of_sum, symbolic=True),
    _reduction("ReduceMean", _mean, _of_mean),
    _reduction("ReduceMax", _max, _none, infer=_reduced_types),
    _reduction("ReduceMin", _min, _none, infer=_reduced_types),
    _reduction("ReduceProd", _prod, _relative, even=True, symbolic=True),
    _reduction("ReduceL1", _l1, _relative, even=True),
    _reduction("ReduceL2", _l2, _relative, even=True, flops=2),
    _reduction("ReduceSumSquare", _sum_square, _relative, even=True, flops=2),
    _reduction("ReduceLogSum", _log_sum, _of_log_sum),
    _reduction("ReduceLogSumExp", log_sum_exp, _of_log_sum_exp, flops=3),
    *ORDERING,
    *SOFTMAX,
    *CUMULATIVE,
)
