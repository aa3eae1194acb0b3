"""Calibrators: from a histogram to the threshold at which values are clipped."""

from __future__ import annotations

import numpy as np

from workbench.body import Array
from workbench.calibration.histogram import BINS, Histogram
from workbench.calibration.noise import mean_squared_errors
from workbench.config import PERCENTILE, Calibrator

LEVELS = 128
"""Magnitudes of symmetric INT8, zero included."""
EMPTY = 1e-9
"""Probability of a bin where Q has no mass and P has; the description leaves this open."""


def scale_threshold(
    histogram: Histogram, calibrator: Calibrator, *, percentile: float = PERCENTILE
) -> float:
    """Largest magnitude kept, > 0; scale is this over 127.

    percentile: share of the magnitudes that PERCENTILE keeps, in percent.
    """
    match calibrator:
        case Calibrator.MINMAX:
            return histogram.amax
        case Calibrator.ENTROPY:
            return entropy_threshold(histogram)
        case Calibrator.PERCENTILE:
            return percentile_threshold(histogram, percentile)
        case Calibrator.MSE:
            return mse_threshold(histogram)


def percentile_threshold(histogram: Histogram, percentile: float) -> float:
    """The magnitude below which ``percentile`` % of the values lie, linear within a bin.

    Where those are all zeros (or all lie in the first bin), the end of the first bin.
    """
    kept = np.concatenate([[0.0], np.cumsum(histogram.counts)])
    at = float(np.interp(percentile / 100.0 * kept[-1], kept, histogram.edges))
    return min(max(at, histogram.limit / BINS), histogram.amax)


def mse_threshold(histogram: Histogram) -> float:
    """The threshold with the least mean squared error of quantizing to 255 levels and back.

    Candidates are the bins' ends from the 128th on, as for entropy; of equals the smallest wins.
    """
    filled = np.flatnonzero(histogram.counts)
    if not filled.size:
        return histogram.amax
    last = max(LEVELS, int(filled[-1]) + 1)
    ends = histogram.edges[LEVELS : last + 1]
    errors = mean_squared_errors(histogram, ends)
    return min(float(ends[np.argmin(errors)]), histogram.amax)


def entropy_threshold(histogram: Histogram) -> float:
    """The threshold whose quantized distribution diverges least from the clipped one.

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017: for each candidate of 128..2048
    bins, P is those bins with the outliers added to the last, Q is the bins merged into 128 levels,
    each level's mass spread evenly over its bins that are not empty; the least KL(P || Q) wins.
    Two refinements. Exact zeros, which every scale represents, are left out, as NVIDIA's
    pytorch-quantization does (bin 0 takes bin 1's count). Q keeps its share of the whole mass
    instead of being normalised, and the divergence is the generalised one (sum Q - sum P added):
    otherwise clipping all but one value of discrete data looks perfect.
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]
    if not counts.any():
        return histogram.amax
    last = max(LEVELS, int(np.flatnonzero(counts)[-1]) + 1)
    sizes = np.arange(LEVELS, last + 1)
    best = int(sizes[np.argmin(_divergences(counts, sizes))])
    return min((best + 0.5) * histogram.limit / BINS, histogram.amax)


def _divergences(counts: Array, sizes: Array) -> Array:
    """The generalised KL(P || Q) for each candidate size, from running sums over bins.

    With c the counts, T their sum, out the mass beyond the candidate, and, for each level, m the
    mass and s the number of its bins that are not empty: q = m / (s·T) on those bins.
    """
    total = counts.sum()
    mass_to = np.concatenate([[0.0], np.cumsum(counts)])
    filled_to = np.concatenate([[0.0], np.cumsum(counts > 0)])
    entropy_to = np.concatenate([[0.0], np.cumsum(_x_log_x(counts))])
    # Bin i of a candidate of n bins belongs to level i·LEVELS // n.
    bounds = -(-np.arange(LEVELS + 1)[None, :] * sizes[:, None] // LEVELS)
    mass = np.diff(mass_to[bounds], axis=1)
    share = np.diff(filled_to[bounds], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.where(mass > 0, np.log(mass / share), 0.0)
    end = counts[sizes - 1]
    out = total - mass_to[sizes]
    # sum of r·log r, where r is c with the outliers added to the last bin
    own = entropy_to[sizes] - _x_log_x(end) + _x_log_x(end + out)
    last = np.where(end > 0, level[:, -1], np.log(EMPTY * total))
    return (own - (mass * level).sum(axis=1) - out * last - out) / total


def _x_log_x(x: Array) -> Array:
    return np.where(x > 0, x * np.log(np.maximum(x, 1e-300)), 0.0)
