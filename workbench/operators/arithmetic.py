"""Arithmetic, comparisons and logic: operators on broadcast operands. Sizes may be symbolic."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import (
    REQUIRED,
    Array,
    Attributes,
    BoundRule,
    Inference,
    InferRule,
    MisfitRule,
    Operator,
    Reference,
    TensorType,
)
from workbench.datatypes import DataType
from workbench.errors import InferenceError, NetworkError
from workbench.operators import misfits
from workbench.operators.numerals import is_text
from workbench.operators.rules import (
    broadcast_shape,
    certain,
    comparison,
    difference,
    elementwise,
    range_of,
)


# -- symbolic sizes -----------------------------------------------------------------------
def symbolic(*arrays: Any) -> bool:
    """Whether an operand holds symbolic sizes; strings are objects too."""
    return any(a.dtype == object and not is_text(a) for a in map(np.asarray, arrays))


def _per_element(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Array]:
    ufunc = np.frompyfunc(function, 2, 1)
    return lambda a, b: np.asarray(ufunc(np.asarray(a, object), np.asarray(b, object)), object)


def _quotient(a: Any, b: Any) -> Any:
    if isinstance(b, int) and b == 0:
        raise NetworkError("a size is divided by zero")
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return dimensions.floordiv(a, b)


def _compare(decide: Callable[[int, int], bool | None]) -> Callable[[Any, Any], Array]:
    """Comparison of sizes through the interval of a - b; TypeError where the sizes decide."""

    def answer(a: Any, b: Any) -> bool:
        decided = decide(*range_of(a - b))
        if decided is None:
            raise TypeError(f"whether {a} and {b} compare so depends on the sizes")
        return decided

    pairs = _per_element(answer)
    return lambda a, b: pairs(a, b).astype(np.bool_)


# -- references ---------------------------------------------------------------------------
def _binary(
    function: Callable[[Any, Any], Any], sizes: Callable[[Any, Any], Any] | None = None
) -> Reference:
    def reference(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
        x, y = inputs
        if sizes is not None and symbolic(x, y):
            return (sizes(x, y),)
        return (function(x, y),)

    return reference


def _variadic(
    function: Callable[[Any, Any], Any], sizes: Callable[[Any, Any], Any] | None = None
) -> Reference:
    def reference(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
        given = [x for x in inputs if x is not None]
        chosen = sizes if sizes is not None and symbolic(*given) else function
        return (functools.reduce(chosen, given),)

    return reference


def _divide(x: Array, y: Array) -> Array:
    """Floats divide; integers divide toward zero, as C does."""
    if x.dtype.kind == "f":
        return x / y
    floor = np.floor_divide(x, y)
    inexact = floor * y != x
    return (floor + (inexact & ((x < 0) != (y < 0)))).astype(x.dtype)


def _mod(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, y = inputs
    if symbolic(x, y):
        return (_per_element(lambda a, b: a - dimensions.floordiv(a, b) * b)(x, y),)
    return ((np.fmod if attributes["fmod"] else np.mod)(x, y),)


def _power(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, y = np.asarray(inputs[0]), np.asarray(inputs[1])
    if x.dtype.kind == "f":
        return (np.power(x, y.astype(x.dtype)),)
    if y.dtype.kind == "f":
        return (np.power(x.astype(np.float64), y).astype(x.dtype),)
    whole = np.power(x, np.maximum(y, 0).astype(x.dtype))
    return (np.where(y < 0, np.power(x.astype(np.float64), y).astype(x.dtype), whole),)


def _mean(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (functools.reduce(np.add, inputs) / len(inputs),)


def _shift(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    left = attributes["direction"] == "LEFT"
    return ((np.left_shift if left else np.right_shift)(*inputs),)


# -- bounds -------------------------------------------------------------------------------
def rounded(y: Any, unit: float, operations: float = 1.0) -> Any:
    """Own rounding of correctly rounded ``operations`` with this result; integers: none."""
    if np.asarray(y).dtype.kind != "f":
        return 0.0
    return operations * unit * np.where(np.isfinite(y), np.abs(y), 0.0)


def amplified(error: Any, factor: Any) -> Any:
    """error·factor, and 0 where the error is 0, however large the factor."""
    return 0.0 if certain(error) else np.where(np.equal(error, 0), 0.0, error * np.abs(factor))


def _sum_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    total = sum(e)
    if np.asarray(y[0]).dtype.kind == "f" and len(x) > 1:
        size = sum(np.where(np.isfinite(v), np.abs(v), 0.0) for v in x)
        operations = len(x) - 1 if len(x) > 2 else 0
        total = total + rounded(y[0], unit) + operations * unit * size
    return (total,)


def _mean_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    (total,) = _sum_bound(attributes, x, e, y, unit)
    return (total / len(x) + 2 * rounded(y[0], unit),)


def _product_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    crossed = amplified(e[0], x[1]) + amplified(e[1], x[0]) + amplified(e[0], e[1])
    return (crossed + rounded(y[0], unit),)


def _quotient_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """(e_x + |x/y|·e_y) / (|y| - e_y); infinite where the divisor may be zero."""
    own = rounded(y[0], unit)
    if certain(e[0]) and certain(e[1]):
        return (own,)
    least = np.abs(x[1]).astype(np.float64) - e[1]
    moved = (e[0] + amplified(e[1], np.true_divide(x[0], x[1]))) / least
    whole = 0.0 if np.asarray(y[0]).dtype.kind == "f" else 1.0
    return (own + np.where(least > 0, moved + whole, np.inf),)


def _mod_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """A remainder may jump by up to twice the divisor once an operand is off."""
    jump = 0.0 if certain(e[0]) and certain(e[1]) else 2 * (np.abs(x[1]) + e[1])
    return (rounded(y[0], unit) + jump,)


def _power_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """The largest change over the corners (the base's interval has one sign, or it is infinite).

    Rounding: 8 ulps, and |y·ln x| units more, as from exp(y·ln x).
    """
    base, exponent = (np.asarray(v, np.float64) for v in x)
    out = np.asarray(y[0], np.float64)
    logarithm = np.where(base == 0, 0.0, np.log(np.abs(base)))
    growth = np.where(np.isfinite(out), np.abs(exponent * logarithm), 0.0)
    own = rounded(y[0], unit) * (16 + 2 * growth)
    if certain(e[0]) and certain(e[1]):
        return (own,)
    sides = [
        difference(np.power(base + s * e[0], exponent + t * e[1]), out)
        for s in (-1, 1)
        for t in (-1, 1)
    ]
    pole = (exponent - e[1] < 0) & (np.abs(base) <= e[0])
    return (own + np.where(pole, np.inf, functools.reduce(np.maximum, sides)),)


def largest(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """Of a choice among the inputs: the largest of their bounds."""
    return (functools.reduce(np.maximum, [b for b in e if b is not None]),)


def _compared(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """A comparison may flip (an error of 1) where the operands are as near as their bounds."""
    if certain(e[0]) and certain(e[1]):
        return (0.0,)
    a, b = (np.asarray(v, np.float64) for v in x)
    near = np.abs(a - b) <= e[0] + e[1]
    return (np.where(near & ((e[0] + e[1]) > 0), 1.0, 0.0),)


def flipped(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """Of logic: 1 where an operand may be wrong."""
    uncertain = functools.reduce(np.maximum, e)
    return (np.where(np.greater(uncertain, 0), 1.0, 0.0),)


def _bits(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """Of bitwise operators: exact, or anything."""
    return (0.0 if all(certain(b) for b in e) else np.inf,)


# -- types --------------------------------------------------------------------------------
def restricted(rule: InferRule, accepts: Callable[[DataType], bool], what: str) -> InferRule:
    """``rule``, for inputs of some types only."""

    def infer(inference: Inference) -> tuple[TensorType, ...]:
        for i, t in enumerate(inference.inputs):
            if t is not None and not accepts(t.dtype):
                raise InferenceError(
                    f"input {i} is {t.dtype!r}, needs {what}", remedy="insert a Cast"
                )
        return rule(inference)

    return infer


def is_number(dtype: DataType) -> bool:
    """Whether arithmetic is defined on it."""
    return dtype.is_float or dtype.is_integer


def _power_types(inference: Inference) -> tuple[TensorType, ...]:
    """The base's type: the exponent may have another."""
    x, y = inference.input(0), inference.input(1)
    return (TensorType(x.dtype, broadcast_shape(x, y)),)


def _mod_types(inference: Inference) -> tuple[TensorType, ...]:
    if inference.attributes["fmod"] not in (0, 1):
        raise InferenceError(f"fmod is {inference.attributes['fmod']}", remedy="use 0 or 1")
    return elementwise(inference)


def _row(
    name: str,
    reference: Reference,
    bound: BoundRule,
    infer: InferRule,
    *,
    attributes: Mapping[str, Any] = MappingProxyType({}),
    sizes: bool = False,
    misfit: MisfitRule | None = None,
) -> Operator:
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=bound,
        layer_type="ELEMENTWISE",
        family="pointwise",
        attributes=MappingProxyType(dict(attributes)),
        pointwise=True,
        symbolic=sizes,
        misfit=misfit,
    )


_NUMBERS = restricted(elementwise, is_number, "numbers")
_FLOATS = restricted(elementwise, lambda t: t.is_float, "a float type")
_BOOLS = restricted(elementwise, lambda t: t is DataType.BOOL, "BOOL")
_INTEGERS = restricted(elementwise, lambda t: t.is_integer, "an integer type")
_ORDERED = restricted(comparison, is_number, "numbers")

_EQUAL = _compare(
    lambda low, high: False if low > 0 or high < 0 else (True if low == high else None)
)
_LESS = _compare(lambda low, high: True if high < 0 else (False if low >= 0 else None))
_AT_MOST = _compare(lambda low, high: True if high <= 0 else (False if low > 0 else None))

ARITHMETIC: tuple[Operator, ...] = (
    _row("Add", _binary(np.add), _sum_bound, _NUMBERS, sizes=True),
    _row("Sub", _binary(np.subtract), _sum_bound, _NUMBERS, sizes=True),
    _row("Mul", _binary(np.multiply), _product_bound, _NUMBERS, sizes=True),
    _row(
        "Div",
        _binary(_divide, _per_element(_quotient)),
        _quotient_bound,
        _NUMBERS,
        sizes=True,
        misfit=misfits.divisor,
    ),
    _row("Pow", _power, _power_bound, _power_types),
    _row(
        "Mod",
        _mod,
        _mod_bound,
        _mod_types,
        attributes={"fmod": 0},
        sizes=True,
        misfit=misfits.divisor,
    ),
    _row(
        "Min",
        _variadic(np.minimum, _per_element(dimensions.minimum)),
        largest,
        _NUMBERS,
        sizes=True,
    ),
    _row(
        "Max",
        _variadic(np.maximum, _per_element(dimensions.maximum)),
        largest,
        _NUMBERS,
        sizes=True,
    ),
    _row("Sum", _variadic(np.add), _sum_bound, _FLOATS),
    _row("Mean", _mean, _mean_bound, _FLOATS),
)

COMPARISONS: tuple[Operator, ...] = (
    _row("Equal", _binary(np.equal, _EQUAL), _compared, comparison, sizes=True),
    _row("Less", _binary(np.less, _LESS), _compared, _ORDERED, sizes=True),
    _row("LessOrEqual", _binary(np.less_equal, _AT_MOST), _compared, _ORDERED, sizes=True),
    _row(
        "Greater",
        _binary(np.greater, lambda a, b: _LESS(b, a)),
        _compared,
        _ORDERED,
        sizes=True,
    ),
    _row(
        "GreaterOrEqual",
        _binary(np.greater_equal, lambda a, b: _AT_MOST(b, a)),
        _compared,
        _ORDERED,
        sizes=True,
    ),
)

LOGIC: tuple[Operator, ...] = (
    _row("And", _binary(np.logical_and), flipped, _BOOLS, sizes=True),
    _row("Or", _binary(np.logical_or), flipped, _BOOLS, sizes=True),
    _row("Xor", _binary(np.logical_xor), flipped, _BOOLS, sizes=True),
    _row("BitwiseAnd", _binary(np.bitwise_and), _bits, _INTEGERS),
    _row("BitwiseOr", _binary(np.bitwise_or), _bits, _INTEGERS),
    _row("BitwiseXor", _binary(np.bitwise_xor), _bits, _INTEGERS),
    _row("BitShift", _shift, _bits, _INTEGERS, attributes={"direction": REQUIRED}),
)
