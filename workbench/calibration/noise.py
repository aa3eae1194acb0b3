"""What rounding to symmetric INT8 costs, read from a histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from workbench.body import Array
from workbench.calibration.histogram import BINS, Histogram

STEPS = 127
"""Positive steps of symmetric INT8: -127..127 are used, as TensorRT does."""


def mean_squared_errors(histogram: Histogram, thresholds: Sequence[float] | Array) -> Array:
    """Mean of (x - quantized(x))² for each threshold, every value taken at its bin's centre.

    With s = threshold / 127, level k is what lies within s/2 of k·s, and level 127 everything
    above. From running sums of 1, c and c² over the bins, a level costs one subtraction:
    sum (c - k·s)² = M2 - 2·k·s·M1 + (k·s)²·M0.
    """
    counts = histogram.counts.astype(np.float64)
    centres = (np.arange(BINS) + 0.5) * (histogram.limit / BINS)
    moments = [np.concatenate([[0.0], np.cumsum(counts * centres**p)]) for p in range(3)]
    steps = np.asarray(thresholds, np.float64)[:, None] / STEPS
    levels = np.arange(STEPS + 1)
    ends = np.searchsorted(centres, (levels[:-1] + 0.5) * steps, side="right")
    bounds = np.concatenate(
        [np.zeros_like(ends[:, :1]), ends, np.full_like(ends[:, :1], BINS)], axis=1
    )
    m0, m1, m2 = (np.diff(m[bounds], axis=1) for m in moments)
    values = levels * steps
    errors = (m2 - 2 * values * m1 + values**2 * m0).sum(axis=1)
    return np.maximum(errors, 0.0) / max(counts.sum(), 1.0)


def mean_square(histogram: Histogram) -> float:
    """Mean of x², every value taken at its bin's centre."""
    centres = (np.arange(BINS) + 0.5) * (histogram.limit / BINS)
    counts = histogram.counts
    return float((counts * centres**2).sum() / max(counts.sum(), 1))


def sqnr_db(histogram: Histogram, threshold: float) -> float:
    """Signal to quantization noise in decibels, 10·log10(mean x² / mean error²); NaN if empty."""
    if not histogram.total:
        return math.nan
    noise = float(mean_squared_errors(histogram, [threshold])[0])
    signal = mean_square(histogram)
    if signal == 0.0 or noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise)
