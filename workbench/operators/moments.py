"""Mean and deviation over axes, and how far correct ones may be off."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.operators.products import gamma

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Moments:
    """What a normalization divides by; arrays keep the reduced axes as size 1.

    centred: x - mean (x itself without a mean). inverse: 1 / sqrt(mean square + epsilon).
    """

    mean: Array
    centred: Array
    square: Array
    inverse: Array


def moments(x: Array, axes: Axes, epsilon: float, *, centre: bool = True) -> Moments:
    """Mean and inverse deviation over ``axes``, computed in x's type, in two passes."""
    mean = x.mean(axis=axes, keepdims=True) if centre else np.zeros((1,) * x.ndim, x.dtype)
    centred = x - mean if centre else x
    square = np.square(centred).mean(axis=axes, keepdims=True)
    inverse = (1 / np.sqrt(square + x.dtype.type(epsilon))).astype(x.dtype, copy=False)
    return Moments(mean, centred, square, inverse)


@dataclass(frozen=True)
class MomentErrors:
    """Bounds on each of the Moments."""

    mean: Any
    centred: Any
    inverse: Any


def moment_errors(
    x: Array, error: Any, m: Moments, axes: Axes, epsilon: float, unit: float, *, centre: bool
) -> MomentErrors:
    """How far correct Moments of an input with this error may be.

    Covers two-pass, Welford and one-pass (mean of squares minus squared mean) variances: the
    last rounds relative to the mean of squares, not to the variance.
    """
    length = math.prod(x.shape[a] for a in axes)
    own = 4 * gamma(length + 1, unit)
    size = np.abs(x) + error

    def mean(v: Any) -> Array:
        return np.broadcast_to(v, x.shape).mean(axis=axes, keepdims=True)

    e_mean = mean(error + own * size) if centre else 0.0
    e_centred = error + e_mean + 2 * unit * np.abs(m.centred)
    spread = np.abs(m.centred)
    e_square = mean((2 * spread + e_centred) * e_centred) + own * mean(np.square(size))
    low = 1 / np.sqrt(m.square + e_square + epsilon)
    high = 1 / np.sqrt(np.maximum(m.square - e_square, 0) + epsilon)
    e_inverse = np.maximum(m.inverse - low, high - m.inverse) + 4 * unit * high
    return MomentErrors(e_mean, e_centred, e_inverse)
