"""Times of launches on a CPU: undisturbed samples, with data as far away as they are in a run."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

RETAKES = 2
"""Samples taken again, for each one asked for, when the system gave the processor to others."""
SAMPLE_US = 60.0
"""Shortest sample worth reading off a CPU's clock."""
EVICTING_BYTES = 4 << 20
"""More than a core's second-level cache holds (2 MB on the largest). Measured on ResNet-50: with it
the layers' times add up to 79.2 ms, without it to 72.2; in their place in a run they take 79.4."""


def timer(launch: Callable[[], None]) -> Callable[[int], list[float]]:
    """Given a number of samples, microseconds of a run each: see ``Device.timer``."""
    first = samples_us(launch, 1)[0]
    inner = max(1, min(256, int(SAMPLE_US / max(first, 0.1))))

    def run() -> None:
        for _ in range(inner):
            launch()

    before = evict if inner == 1 else None
    return lambda count: [s / inner for s in samples_us(run, count, before)]


def samples_us(
    launch: Callable[[], None], count: int, before: Callable[[], None] | None = None
) -> list[float]:
    """Microseconds of ``count`` runs, each after ``before``, whose time does not count.

    A run during which the system gave the processor to others is timed again, RETAKES times a
    sample at most.
    """
    samples: list[float] = []
    retakes = RETAKES * count
    while len(samples) < count:
        if before is not None:
            before()
        preempted = _preemptions()
        start = time.perf_counter_ns()
        launch()
        elapsed = time.perf_counter_ns() - start
        if retakes and _preemptions() != preempted:
            retakes -= 1
            continue
        samples.append(elapsed / 1e3)
    return samples


def evict() -> None:
    """Fill this core's second-level cache with other data."""
    others = _others()
    np.add(others, 1, out=others)


@functools.cache
def _others() -> np.ndarray[Any, Any]:
    return np.zeros(EVICTING_BYTES // 4, np.float32)


def _preemptions() -> int:
    """How often the system took a processor from this process; 0 where it does not say."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
