"""Times of launches on a CPU: undisturbed samples, with data as far away as they are in a run."""

from __future__ import annotations

import ctypes
import functools
import os
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


def timer(launch: Callable[[], None], threads: int = 1) -> Callable[[int], list[float]]:
    """Given a number of samples, microseconds of a run each: see ``Device.timer``."""
    team = Team(threads)
    first = samples_us(launch, 1, team.wake)[0]
    inner = max(1, min(256, int(SAMPLE_US / max(first, 0.1))))

    def run() -> None:
        for _ in range(inner):
            launch()

    before = team.evict if inner == 1 else team.wake
    return lambda count: [s / inner for s in samples_us(run, count, before)]


def samples_us(
    launch: Callable[[], object], count: int, before: Callable[[], None] | None = None
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


class Team:
    """The threads that a launch may use, their sleep and their caches: OpenMP's, if it is loaded.

    In a run the layer before has just used them. After a pause all but the caller's sleep, and to
    wake one takes as long as a small layer: some 50 µs on a virtual machine.
    """

    def __init__(self, threads: int) -> None:
        openmp = _openmp() if threads > 1 else None
        if openmp is None:
            self.wake, self.evict = _nothing, evict
            return

        def evict_own(_: object) -> None:
            evict(openmp.omp_get_thread_num())

        self._kept = harmless, evicting = _WORK(("labs", ctypes.CDLL(None))), _WORK(evict_own)

        def wake() -> None:
            openmp.GOMP_parallel(harmless, None, threads, 0)

        def evict_all() -> None:
            openmp.GOMP_parallel(evicting, None, threads, 0)
            wake()

        self.wake, self.evict = wake, evict_all


_WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _nothing() -> None: ...


def _openmp() -> ctypes.CDLL | None:
    """GCC's OpenMP, if this process has it by now: a tactic source loads it when it is asked."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return None


def evict(thread: int = 0) -> None:
    """Fill this core's second-level cache with other data, each thread with its own."""
    others = _others(thread)
    np.add(others, 1, out=others)


@functools.cache
def _others(thread: int) -> np.ndarray[Any, Any]:
    return np.zeros(EVICTING_BYTES // 4, np.float32)


def _preemptions() -> int:
    """How often the system took a processor from this process; 0 where it does not say."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
