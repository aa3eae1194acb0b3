"""Pointwise operators: the family's table, and those that copy, choose or convert elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench.body import REQUIRED, Array, Attributes, Inference, Operator, TensorType
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators.activations import ACTIVATIONS, ELEMENTARY
from workbench.operators.arithmetic import ARITHMETIC, COMPARISONS, LOGIC, symbolic
from workbench.operators.numerals import is_text, read, written
from workbench.operators.products import operand
from workbench.operators.rules import (
    broadcast_shape,
    certain,
    corners,
    moved,
    one_dtype,
    same_type,
)

_SATURATING = frozenset(
    {
        DataType.FP8,
        DataType.FP8E5M2,
        DataType.FP8E4M3FNUZ,
        DataType.FP8E5M2FNUZ,
        DataType.FP4,
        DataType.E8M0,
    }
)
_ROUNDS_UP: dict[str, Callable[[Array], Any]] = {
    "up": lambda fraction: fraction > 0.5,
    "down": lambda fraction: False,
    "nearest": lambda fraction: fraction >= 0.75,  # ties go up
}
"""Of a fraction in [0.5, 1): whether the exponent goes up."""


# -- Cast ---------------------------------------------------------------------------------
def _cast_types(inference: Inference) -> tuple[TensorType, ...]:
    x, to = inference.input(0), inference.attributes["to"]
    if not isinstance(to, DataType):
        raise InferenceError(f"attribute to is {to!r}", remedy="give a DataType")
    for t in (x.dtype, to):
        if t.info.kind == "complex":
            raise InferenceError(
                f"casts {x.dtype!r} to {to!r}", remedy="cast between real numbers, BOOL and STRING"
            )
    return (TensorType(to, x.shape),)


def _cast(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """Toward a float: unchanged, so that storing it rounds once. Toward an integer: truncated."""
    x, to = np.asarray(inputs[0]), attributes["to"]
    if is_text(x) or to is DataType.STRING:
        if to is DataType.STRING:
            return (x if is_text(x) else written(x),)
        x = read(x, to)
    if symbolic(x):
        if not to.is_integer:
            raise TypeError(f"a symbolic size has no {to!r}")
        return (x,)
    if to is DataType.BOOL:
        return (x != 0,)
    if to.is_float:
        return (_saturated(x, to, attributes) if to in _SATURATING else x,)
    stored = np.trunc(x) if x.dtype.kind == "f" else x
    stored = stored.astype(to.numpy)
    return (stored.astype(np.int32) if to.info.bits < 8 else stored,)


def _saturated(x: Array, to: DataType, attributes: Attributes) -> Array:
    """Clipped to the finite range where ONNX says so; powers of two (E8M0) as round_mode says."""
    x = x if x.dtype.kind == "f" else x.astype(np.float32)
    if to is DataType.E8M0:
        fraction, exponent = np.frexp(np.abs(x))
        up = _ROUNDS_UP[attributes["round_mode"]](fraction)
        power = np.ldexp(np.ones_like(x), exponent - 1 + up)
        x = np.where(np.isfinite(x) & (x != 0), power, x)
        if not attributes["saturate"]:
            return np.where((x < to.info.low) | (x > to.info.high), np.nan, x)
    if attributes["saturate"] or to is DataType.FP4:
        return np.clip(x, to.info.low, to.info.high)
    return x


def _cast_exact(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (y,) = _cast(attributes, inputs)
    return (y.astype(np.float64) if attributes["to"].is_float else y,)


def _cast_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """The operand's, kept; where it may cross an integer, the larger step. Storing comes later."""
    if attributes["to"].is_float or np.asarray(x[0]).dtype.kind != "f":
        return (e[0],)
    return corners(_cast, ulps=0)(attributes, x, e, y, unit)


# -- Identity, Dropout, Where -------------------------------------------------------------
def _identity(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (inputs[0],)


def _dropout_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    return (x, TensorType(DataType.BOOL, x.shape))[: inference.outputs]


def _dropout(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """In training, each element is zeroed by chance, and the others scaled to keep the mean.

    Source of the mask: the standard's reference, NumPy's RandomState of the seed.
    """
    x, ratio, training = inputs[0], operand(inputs, 1), operand(inputs, 2)
    share = 0.5 if ratio is None else float(np.asarray(ratio).reshape(()))
    if training is None or not np.any(training) or not share:
        return x, np.ones(np.shape(x), np.bool_)
    seed = attributes["seed"]
    drawn = np.random.RandomState(None if seed is None else seed % 2**32)
    kept = drawn.uniform(0, 1, np.shape(x)) >= share
    return kept * x * (1 / (1 - share)), kept


def _dropout_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """In training any mask may come out: an element is 0 or what is kept of it."""
    ratio, training = operand(x, 1), operand(x, 2)
    share = 0.5 if ratio is None else float(np.asarray(ratio).reshape(()))
    if training is None or not np.any(training) or not share:
        return (e[0], 0.0)
    kept = abs(1 / (1 - share)) if share != 1 else np.inf
    return ((np.abs(x[0]) + e[0]) * kept, 1.0)


def _where_types(inference: Inference) -> tuple[TensorType, ...]:
    condition, x, y = (inference.input(i) for i in range(3))
    if condition.dtype is not DataType.BOOL:
        raise InferenceError(
            f"the condition is {condition.dtype!r}, needs BOOL", remedy="insert a Cast"
        )
    return (TensorType(one_dtype(x, y), broadcast_shape(condition, x, y)),)


def _where(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    condition, x, y = inputs
    return (np.where(condition, x, y),)


def _where_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    """Where the condition may flip, the other operand may come out."""
    kept = np.where(x[0], e[1], e[2])
    if certain(e[0]):
        return (kept,)
    a, b = (np.asarray(v, np.float64) for v in x[1:])
    return (np.where(np.greater(e[0], 0), np.abs(a - b) + np.maximum(e[1], e[2]), kept),)


CHOICES: tuple[Operator, ...] = (
    Operator(
        name="Cast",
        infer=_cast_types,
        reference=_cast,
        bound=_cast_bound,
        layer_type="CAST",
        family="pointwise",
        attributes=MappingProxyType({"to": REQUIRED, "saturate": 1, "round_mode": "up"}),
        pointwise=True,
        symbolic=True,
        exact=_cast_exact,
    ),
    Operator(
        name="Identity",
        infer=same_type,
        reference=_identity,
        bound=moved(_identity),
        layer_type="IDENTITY",
        family="pointwise",
        pointwise=True,
        symbolic=True,
    ),
    Operator(
        name="Dropout",
        infer=_dropout_types,
        reference=_dropout,
        bound=_dropout_bound,
        layer_type="IDENTITY",
        family="pointwise",
        attributes=MappingProxyType({"seed": None}),
        deterministic=False,
    ),
    Operator(
        name="Where",
        infer=_where_types,
        reference=_where,
        bound=_where_bound,
        layer_type="SELECT",
        family="pointwise",
        pointwise=True,
        symbolic=True,
    ),
)

POINTWISE: tuple[Operator, ...] = (
    *ARITHMETIC,
    *ELEMENTARY,
    *ACTIVATIONS,
    *COMPARISONS,
    *LOGIC,
    *CHOICES,
)
