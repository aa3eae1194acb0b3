"""Softmax and its logarithm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.body import (
    Array,
    Attributes,
    Inference,
    Operator,
    TensorType,
)
from workbench.operators.products import gamma, is_exact
from workbench.operators.rules import (
    axis_of,
    difference,
    floating,
    reducer,
)


def _sum(x: Array, axes: tuple[int, ...]) -> Array:
    return np.sum(x, axis=axes, keepdims=True, dtype=x.dtype)


def _max(x: Array, axes: tuple[int, ...]) -> Array:
    return np.max(x, axis=axes, keepdims=True, initial=-np.inf)


def log_sum_exp(x: Array, axes: tuple[int, ...]) -> Array:
    """ln Σ exp(x), without overflow."""
    top = _max(x, axes)
    top = np.where(np.isfinite(top), top, 0).astype(x.dtype)
    return (top + np.log(_sum(np.exp(x - top), axes))).astype(x.dtype)


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
    count = real.shape[axes[0]]
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
    count = real.shape[axes[0]]
    scale = 16 + 4 * np.abs(y[0]) + 4 * np.abs(_max(real, axes)) + 4 * math.log(max(count, 1))
    own = unit * scale + 4 * gamma(count, unit)
    if is_exact(e[0]):
        return (own,)
    total = log_sum_exp(real, axes)
    sides = [difference(log_sum_exp(s, axes), total) for s in (real - e[0], real + e[0])]
    return (own + e[0] + np.maximum(*sides),)


SOFTMAX: tuple[Operator, ...] = (
    reducer(
        "Softmax",
        _axis_types,
        _softmax,
        _softmax_bound,
        layer_type="SOFTMAX",
        flops=5,
        attributes={"axis": -1},
    ),
    reducer(
        "LogSoftmax",
        _axis_types,
        _log_softmax,
        _log_softmax_bound,
        layer_type="SOFTMAX",
        flops=5,
        attributes={"axis": -1},
    ),
)
