"""Functions of one element: elementary functions and activations, each with its error bound.

The ``ulps`` and ``absolute`` errors allow for what common vector libraries document (SLEEF and
SVML: at most 4 ulps; oneDNN and CUDA: a few more for composed activations), not for fast-math.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
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
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators.arithmetic import amplified, flipped, is_number, restricted, rounded
from workbench.operators.rules import (
    broadcast_shape,
    certain,
    corners,
    floating,
    one_dtype,
    same_type,
)
from workbench.operators.special import erf

_SELU_ALPHA = 1.67326319217681884765625  # Source: ONNX Selu-22, the float32 nearest to the paper's
_SELU_GAMMA = 1.05070102214813232421875
_TANH_SCALE = math.sqrt(2 / math.pi)


# -- references ---------------------------------------------------------------------------
def _of(function: Callable[[Array], Any]) -> Reference:
    return lambda attributes, inputs: (np.asarray(function(inputs[0])),)


def _with(function: Callable[[Attributes, Array], Any]) -> Reference:
    return lambda attributes, inputs: (np.asarray(function(attributes, inputs[0])),)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def softplus(x: Array) -> Array:
    """ln(1 + exp(x)), without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _exponential(x: Array, alpha: float) -> Array:
    """alpha·(exp(x) - 1) left of zero, 0 right of it."""
    return alpha * np.expm1(np.minimum(x, 0))


def _gelu(attributes: Attributes, x: Array) -> Array:
    if attributes["approximate"] == "tanh":
        return 0.5 * x * (1 + np.tanh(_TANH_SCALE * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


def _is_infinite(attributes: Attributes, x: Array) -> Array:
    found = np.zeros(np.shape(x), np.bool_)
    if attributes["detect_negative"]:
        found |= np.isneginf(x)
    if attributes["detect_positive"]:
        found |= np.isposinf(x)
    return found


def _reciprocal(x: Array) -> Array:
    return 1 / x


def _logical_not(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (np.logical_not(inputs[0]),)


def _prelu(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, slope = inputs
    return (np.where(x < 0, slope * x, x),)


def _clip(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    low, high = (*inputs[1:], None, None)[:2]
    if low is not None:
        x = np.maximum(x, low)
    if high is not None:
        x = np.minimum(x, high)
    return (np.asarray(x),)


# -- bounds -------------------------------------------------------------------------------
def _of_size(units: float) -> Callable[[Attributes, Array], Any]:
    """An absolute error of so many units of |x|: the factor beside x has an absolute error."""
    return lambda attributes, x: units * np.abs(x)


def _of_alpha(units: float) -> Callable[[Attributes, Array], Any]:
    return lambda attributes, x: units * abs(attributes["alpha"])


_STEP = corners(_of(np.sign), ulps=0)


def _reciprocal_bound(
    attributes: Attributes, x: Any, e: Any, y: Any, unit: float
) -> tuple[Any, ...]:
    """Infinite where the operand may be zero."""
    own = rounded(y[0], unit, 4)
    if certain(e[0]):
        return (own,)
    least = np.abs(x[0]) - e[0]
    return (own + np.where(least > 0, amplified(e[0], y[0]) / least, np.inf),)


def _class_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """A finite error makes no NaN and no infinity."""
    return (np.where(np.isinf(e[0]), 1.0, 0.0),)


def _tan_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """Infinite where a pole may lie within the operand's error."""
    (bound,) = corners(_of(np.tan))(attributes, x, e, y, unit)
    pole = (np.abs(np.cos(x[0])) <= e[0]) & (np.asarray(e[0]) > 0)
    return (np.where(pole, np.inf, bound),)


def _prelu_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    steepest = np.maximum(1.0, np.abs(x[1]) + e[1])
    return (rounded(y[0], unit) + amplified(e[0], steepest) + amplified(e[1], x[0] * (x[0] < 0)),)


def _clip_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """At most the largest operand error; none of x's where x ± e is cut off anyway."""
    limits = [b for b in e[1:] if b is not None]
    if not all(certain(b) for b in limits):
        return (np.max(np.broadcast_arrays(e[0], *limits), axis=0),)
    return corners(_clip, ulps=0)(attributes, x, e, y, unit)


# -- types --------------------------------------------------------------------------------
_NUMBER = restricted(same_type, is_number, "numbers")
_BOOL = restricted(same_type, lambda t: t is DataType.BOOL, "BOOL")
_INTEGER = restricted(same_type, lambda t: t.is_integer, "an integer type")


def _tested(inference: Inference) -> tuple[TensorType, ...]:
    return (TensorType(DataType.BOOL, floating(inference)[0].shape),)


def _prelu_types(inference: Inference) -> tuple[TensorType, ...]:
    x, slope = inference.input(0), inference.input(1)
    one_dtype(x, slope)
    if broadcast_shape(x, slope) != x.shape:
        raise InferenceError(
            f"slope {slope} does not broadcast to the input {x}",
            remedy="give one slope a channel, shaped (channels, 1, 1), or a single one",
        )
    return (x,)


def _clip_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    for name, t in zip(("min", "max"), inference.inputs[1:], strict=False):
        if t is not None and (t.dtype is not x.dtype or t.shape not in ((), (1,))):
            raise InferenceError(
                f"{name} is {t}, the input is {x}", remedy=f"give a scalar {x.dtype!r}"
            )
    return _NUMBER(inference)


def _row(
    name: str,
    reference: Reference,
    bound: BoundRule | None = None,
    *,
    layer_type: str = "ACTIVATION",
    infer: InferRule = floating,
    structural: frozenset[int] = frozenset(),
    attributes: Mapping[str, Any] = MappingProxyType({}),
    symbolic: bool = False,
) -> Operator:
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=bound or corners(reference, ulps=8),
        layer_type=layer_type,
        family="pointwise",
        attributes=MappingProxyType(dict(attributes)),
        structural=structural,
        pointwise=True,
        symbolic=symbolic,
    )


def _unary(
    name: str,
    function: Callable[[Array], Any],
    bound: BoundRule | None = None,
    *,
    infer: InferRule = floating,
    symbolic: bool = False,
) -> Operator:
    reference = _of(function)
    return _row(
        name,
        reference,
        bound or corners(reference),
        layer_type="UNARY",
        infer=infer,
        symbolic=symbolic,
    )


def _activation(
    name: str,
    function: Callable[[Attributes, Array], Any],
    *,
    layer_type: str = "ACTIVATION",
    absolute: float | Callable[[Attributes, Array], Any] = 0.0,
    curvature: float | Callable[[Attributes, Array], Any] = 0.0,
    **attributes: Any,
) -> Operator:
    reference = _with(function)
    bound = corners(reference, ulps=8, absolute=absolute, curvature=curvature)
    return _row(name, reference, bound, layer_type=layer_type, attributes=attributes)


# Sizes are negated as they are; those marked symbolic besides take part in the sizes' arithmetic
# as numbers (a Resize's target is Floor(Cast(size)·scale)).
ELEMENTARY: tuple[Operator, ...] = (
    _unary("Neg", np.negative, corners(_of(np.negative), ulps=0), infer=_NUMBER, symbolic=True),
    _unary("Abs", np.abs, corners(_of(np.abs), ulps=0), infer=_NUMBER),
    _unary("Sign", np.sign, _STEP, infer=_NUMBER),
    _unary("Floor", np.floor, corners(_of(np.floor), ulps=0), symbolic=True),
    _unary("Ceil", np.ceil, corners(_of(np.ceil), ulps=0), symbolic=True),
    _unary("Round", np.rint, corners(_of(np.rint), ulps=0), symbolic=True),
    _unary("Sqrt", np.sqrt, corners(_of(np.sqrt), ulps=1, low=0.0), symbolic=True),
    _unary("Reciprocal", _reciprocal, _reciprocal_bound),
    _unary("Exp", np.exp),
    # Near 1 the logarithm vanishes: implementations that reduce x to 2**k·m err absolutely there.
    _unary("Log", np.log, corners(_of(np.log), absolute=2.0, low=0.0)),
    _unary("Erf", erf, corners(_of(erf), absolute=4.0)),
    _unary("Sin", np.sin, corners(_of(np.sin), absolute=4.0, curvature=1.0)),
    _unary("Cos", np.cos, corners(_of(np.cos), absolute=4.0, curvature=1.0)),
    _unary("Tan", np.tan, _tan_bound),
    _unary("Asin", np.arcsin, corners(_of(np.arcsin), low=-1.0, high=1.0)),
    _unary("Acos", np.arccos, corners(_of(np.arccos), absolute=4.0, low=-1.0, high=1.0)),
    _unary("Atan", np.arctan),
    _unary("Sinh", np.sinh),
    _unary("Cosh", np.cosh),
    _unary("Asinh", np.arcsinh, corners(_of(np.arcsinh), absolute=2.0)),
    _unary("Acosh", np.arccosh, corners(_of(np.arccosh), absolute=4.0, low=1.0)),
    _unary("Atanh", np.arctanh, corners(_of(np.arctanh), absolute=2.0, low=-1.0, high=1.0)),
    _row("Not", _logical_not, flipped, layer_type="UNARY", infer=_BOOL, symbolic=True),
    _unary("BitwiseNot", np.invert, corners(_of(lambda x: -1 - x), ulps=0), infer=_INTEGER),
    _row("IsNaN", _of(np.isnan), _class_bound, layer_type="UNARY", infer=_tested),
    _row(
        "IsInf",
        _with(_is_infinite),
        _class_bound,
        layer_type="UNARY",
        infer=_tested,
        attributes={"detect_negative": 1, "detect_positive": 1},
    ),
)

_RELU = _of(lambda x: np.maximum(x, 0))
_TANH = _of(np.tanh)
_SIGMOID = _of(sigmoid)
_SOFTPLUS = _of(softplus)
_SOFTSIGN = _of(lambda x: x / (1 + np.abs(x)))
_HARD_SWISH = _of(lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5))
_MISH = _of(lambda x: x * np.tanh(softplus(x)))

ACTIVATIONS: tuple[Operator, ...] = (
    _row("Relu", _RELU, corners(_RELU, ulps=0), infer=_NUMBER),
    _row("Tanh", _TANH, corners(_TANH, ulps=8, absolute=2.0)),
    _row("Sigmoid", _SIGMOID, corners(_SIGMOID, ulps=8, absolute=4.0)),
    _row("Softplus", _SOFTPLUS, corners(_SOFTPLUS, ulps=8, absolute=4.0)),
    _row("Softsign", _SOFTSIGN, corners(_SOFTSIGN)),
    # |f''| of x·clip(x/6 + 1/2, 0, 1) is 1/3 between its kinks.
    _row("HardSwish", _HARD_SWISH, corners(_HARD_SWISH, absolute=_of_size(4), curvature=1 / 3)),
    # |f''| of x·tanh(softplus(x)) is at most 0.64, at 0.
    _row("Mish", _MISH, corners(_MISH, ulps=8, absolute=_of_size(8), curvature=0.7)),
    _activation("LeakyRelu", lambda a, x: np.where(x < 0, a["alpha"] * x, x), alpha=0.01),
    _activation("ThresholdedRelu", lambda a, x: np.where(x > a["alpha"], x, 0), alpha=1.0),
    _activation(
        "Elu",
        lambda a, x: np.maximum(x, 0) + _exponential(x, a["alpha"]),
        absolute=_of_alpha(4),
        alpha=1.0,
    ),
    _activation(
        "Selu",
        lambda a, x: a["gamma"] * (np.maximum(x, 0) + _exponential(x, a["alpha"])),
        absolute=lambda a, x: 4 * abs(a["alpha"] * a["gamma"]),
        alpha=_SELU_ALPHA,
        gamma=_SELU_GAMMA,
    ),
    _activation(
        "Celu",
        lambda a, x: np.maximum(x, 0) + _exponential(x / a["alpha"], a["alpha"]),
        absolute=_of_alpha(4),
        alpha=1.0,
    ),
    _activation(
        "HardSigmoid",
        lambda a, x: _hard_sigmoid(x, a["alpha"], a["beta"]),
        absolute=lambda a, x: 4 + 4 * abs(a["beta"]),
        alpha=0.2,
        beta=0.5,
    ),
    # |f''| of the Gaussian error linear unit is at most 2·φ(0) = 0.798, at 0.
    _activation("Gelu", _gelu, absolute=_of_size(8), curvature=0.8, approximate="none"),
    # |f''| of x·sigmoid(alpha·x) is at most |alpha|/2, at 0.
    _activation(
        "Swish",
        lambda a, x: x * sigmoid(a["alpha"] * x),
        absolute=_of_size(8),
        curvature=lambda a, x: abs(a["alpha"]) / 2,
        alpha=1.0,
    ),
    _row("Clip", _clip, _clip_bound, infer=_clip_types, structural=frozenset({1, 2})),
    _row("PRelu", _prelu, _prelu_bound, layer_type="PARAMETRIC_RELU", infer=_prelu_types),
)
