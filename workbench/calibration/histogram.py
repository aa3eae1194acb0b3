"""Streaming statistics: a histogram whose range grows by doubling, and extremes per channel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from workbench.body import Array

BINS = 2048


class Histogram:
    """Counts of |x| in equal bins over [0, limit]. Bounded memory; one pass.

    When a larger value arrives the limit doubles and neighbouring bins merge, so counts stay
    exact. amax: largest |x| seen. low, high: smallest and largest x.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.amax = 0.0
        self.low = math.inf
        self.high = -math.inf
        self.total = 0

    def add(self, values: Array) -> None:
        """Count finite values of any shape."""
        flat = np.asarray(values, np.float32).reshape(-1)
        if not flat.size:
            return
        self.low = min(self.low, float(flat.min()))
        self.high = max(self.high, float(flat.max()))
        self.amax = max(-self.low, self.high, 0.0)
        self.total += flat.size
        if self.amax > self.limit:
            self._grow(self.amax)
        if self.limit == 0.0:
            self.counts[0] += flat.size
            return
        index = (np.abs(flat, dtype=np.float64) * (BINS / self.limit)).astype(np.int64)
        self.counts += np.bincount(np.minimum(index, BINS - 1), minlength=BINS)

    def _grow(self, amax: float) -> None:
        if self.limit == 0.0:
            self.limit = amax  # everything so far was zero and lies in bin 0
            return
        while self.limit < amax:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS // 2, np.int64)])
            self.limit *= 2

    @property
    def edges(self) -> np.ndarray[Any, Any]:
        """Bin edges, BINS + 1 of them."""
        return np.linspace(0.0, self.limit, BINS + 1)

    def clipped_share(self, threshold: float) -> float:
        """Share of values whose magnitude exceeds ``threshold``, to bin resolution."""
        if not self.total or threshold >= self.amax:
            return 0.0
        centres = (self.edges[:-1] + self.edges[1:]) / 2
        return float(self.counts[centres > threshold].sum() / self.total)


class ChannelExtremes:
    """Smallest and largest value of each channel of a tensor; one pass, two numbers a channel.

    axis: the channel axis. low, high: shape (channels,); None before the first values.
    """

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.low: Array | None = None
        self.high: Array | None = None

    def add(self, values: Array) -> None:
        """Take finite values in. Raises ValueError where the number of channels has changed."""
        if not values.size:
            return
        others = tuple(a for a in range(values.ndim) if a != self.axis)
        low, high = values.min(axis=others), values.max(axis=others)
        if self.low is None or self.high is None:
            self.low, self.high = low.astype(np.float32), high.astype(np.float32)
            return
        if low.shape != self.low.shape:
            raise ValueError(f"it has {low.size} channels, {self.low.size} before")
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    @property
    def amax(self) -> Array:
        """Largest magnitude of each channel, float32."""
        if self.low is None or self.high is None:
            return np.zeros(0, np.float32)
        return np.maximum(np.abs(self.low), np.abs(self.high))
