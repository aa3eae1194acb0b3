"""Calibrators: from a histogram to the threshold at which values are clipped."""

from __future__ import annotations

import numpy as np

from workbench.body import Array
from workbench.calibration.histogram import BINS, Histogram
from workbench.config import Calibrator

LEVELS = 128
"""Magnitudes of symmetric INT8, zero included."""
EMPTY = 1e-9
"""Probability of a bin where Q has no mass and P has (the description leaves the smoothing open)."""


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
    last = max(LEVELS, int(np.flatnonzero(counts)[-1]) + 1)
    sizes = np.arange(LEVELS, last + 1)
    best = int(sizes[np.argmin(_divergences(counts, sizes))])
    return min((best + 0.5) * histogram.limit / BINS, histogram.amax)


def _divergences(counts: Array, sizes: Array) -> Array:
    """KL(P || Q) for each candidate size, from running sums over bins.

    With c the counts, T their sum, K the sum of those kept, out = T - K, and, for each level, m
    the mass and s the number of its bins that are not empty: q = m / (s·K) on those bins.
    """
    total = counts.sum()
    filled = counts > 0
    mass_to = np.concatenate([[0.0], np.cumsum(counts)])
    filled_to = np.concatenate([[0.0], np.cumsum(filled)])
    entropy_to = np.concatenate([[0.0], np.cumsum(_x_log_x(counts))])
    # Bin i of a candidate of n bins belongs to level i·LEVELS // n.
    bounds = -(-np.arange(LEVELS + 1)[None, :] * sizes[:, None] // LEVELS)
    mass = np.diff(mass_to[bounds], axis=1)
    share = np.diff(filled_to[bounds], axis=1)
    kept, end = mass_to[sizes], counts[sizes - 1]
    out = total - kept
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.where(mass > 0, np.log(mass / share), 0.0)
    # sum of r·log r, where r is c with the outliers added to the last bin
    own = entropy_to[sizes] - _x_log_x(end) + _x_log_x(end + out)
    cross = (mass * level).sum(axis=1) - (total - out) * np.log(np.maximum(kept, 1e-300))
    last_q = np.where(end > 0, level[:, -1] - np.log(np.maximum(kept, 1e-300)), np.log(EMPTY))
    divergence = (own - cross - out * last_q) / total - np.log(total)
    return np.where(kept > 0, divergence, np.inf)


def _x_log_x(x: Array) -> Array:
    return np.where(x > 0, x * np.log(np.maximum(x, 1e-300)), 0.0)
