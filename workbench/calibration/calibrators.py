"""Calibrators: from a histogram to the threshold at which values are clipped."""

from __future__ import annotations

import numpy as np

from workbench.body import Array
from workbench.calibration.histogram import BINS, Histogram
from workbench.config import Calibrator

LEVELS = 128
"""Magnitudes of symmetric INT8, zero included."""


def scale_threshold(histogram: Histogram, calibrator: Calibrator) -> float:
    """Largest magnitude kept, > 0; scale is this over 127."""
    if calibrator is Calibrator.MINMAX:
        return histogram.amax
    return entropy_threshold(histogram)


def entropy_threshold(histogram: Histogram) -> float:
    """The threshold whose quantized distribution diverges least from the clipped one.

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017: for each candidate i in
    128..2048 bins, P is the first i bins with the outliers added to the last, Q is P's bins
    (before that addition) merged into 128 levels and spread evenly over the bins that were not
    empty; choose i with the least KL(P || Q).
    """
    counts = histogram.counts.astype(np.float64)
    total = counts.sum()
    last = max(LEVELS, int(np.flatnonzero(counts)[-1]) + 1)
    best, best_divergence = last, np.inf
    for size in range(LEVELS, last + 1):
        divergence = _divergence(counts, size, total)
        if divergence < best_divergence:
            best, best_divergence = size, divergence
    width = histogram.limit / BINS
    return min((best + 0.5) * width, histogram.amax)


def _divergence(counts: Array, size: int, total: float) -> float:
    kept = counts[:size]
    reference = kept.copy()
    reference[-1] += total - kept.sum()
    level = (np.arange(size) * LEVELS) // size
    filled = kept > 0
    mass = np.bincount(level, weights=kept, minlength=LEVELS)
    share = np.bincount(level, weights=filled, minlength=LEVELS)
    spread = np.where(filled, mass[level] / np.maximum(share[level], 1), 0.0)
    if spread.sum() == 0:
        return np.inf
    p = reference / reference.sum()
    q = spread / spread.sum()
    both = (p > 0) & (q > 0)
    if np.any((p > 0) & (q == 0)):
        # Mass where Q has none: the 2017 description leaves it out by smoothing; eps here.
        q = np.where((p > 0) & (q == 0), 1e-9, q)
        both = p > 0
    return float(np.sum(p[both] * np.log(p[both] / q[both])))
