"""Each thread of a run on a processor of its own, where a run has a thread for each of them.

Beside another busy program Linux may leave two threads of a team on one processor: at the end of
every layer one of them spins until it sleeps, and only then the other computes. SqueezeNet on 2
processors, beside one busy program: 17.9 ms a run on average; placed, 6.6 (ONNX Runtime 6.2). In
peace it is the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Generator, Sequence

import numpy as np

from workbench.host import usable_cpus
from workbench.tactics.native import InOrder, OpenMp, address_of, on_team, procedure
from workbench.tactics.onednn.library import loaded
from workbench.tactics.protocol import Launch

LEAST_NS = 300_000
"""Placing costs some 4 µs: a run is left alone where the one before took less. A small model's run
takes longer only where two of its threads are on one processor, or another program runs there."""
MASK_BYTES = 128
"""Of a set of processors: cpu_set_t of glibc."""


class Places:
    """A processor for each thread of the calling thread's team.

    Threads that call differ in which processor they start from. A thread that someone has bound to
    fewer processors is left alone.
    """

    def __init__(self, cpus: Sequence[int], openmp: OpenMp) -> None:
        self._owner = 0
        self._masks = np.zeros((len(cpus), MASK_BYTES), np.uint8)
        for mask, cpu in zip(self._masks, cpus, strict=True):
            mask[cpu // 8] = 1 << cpu % 8
        self._whole = np.bitwise_or.reduce(self._masks, 0).tobytes()
        self._before = np.zeros(MASK_BYTES, np.uint8)
        library = ctypes.CDLL(None)
        get, put = (address_of(f) for f in (library.sched_getaffinity, library.sched_setaffinity))
        own = (0, MASK_BYTES, self._before.ctypes.data)
        self._look, _ = procedure(get, own, "sched_getaffinity")
        self._back, _ = procedure(put, own, "sched_setaffinity")
        each = [(0, MASK_BYTES, m.ctypes.data) for m in self._masks]
        self._place, self._words = on_team(put, each, "sched_setaffinity", openmp)

    def take(self) -> bool:
        """Put the team in its places; whether the caller must ``leave``."""
        caller = threading.get_native_id()
        if caller != self._owner:
            self._owner = caller
            order = (np.arange(len(self._masks)) + caller) % len(self._masks)
            self._words[:, 2] = self._masks.ctypes.data + MASK_BYTES * order
        self._look()
        if self._before.tobytes() != self._whole:
            return False
        self._place()
        return True

    def leave(self) -> None:
        """The calling thread may run where it might before."""
        self._back()


def places(threads: int) -> Places | None:
    """Places for so many threads, where that can be: Linux, oneDNN's team, one a processor."""
    library = loaded() if threads > 1 and sys.platform.startswith("linux") else None
    if library is None or threads != usable_cpus():
        return None
    cpus = sorted(os.sched_getaffinity(0))
    return Places(cpus, library.openmp) if cpus[-1] < 8 * MASK_BYTES else None


@contextlib.contextmanager
def in_places(threads: int) -> Generator[None]:
    """The team in its places within the block, where that can be; starts no process meanwhile."""
    found = places(threads)
    taken = found is not None and found.take()
    try:
        yield
    finally:
        if found is not None and taken:
            found.leave()


class Placed(InOrder):
    """Launches in order; in places where the run before took LEAST_NS or more. A Launch."""

    def __init__(self, launches: Sequence[Launch], found: Places) -> None:
        super().__init__(launches)
        self._places, self._long = found, False

    def __call__(self) -> None:
        start = time.perf_counter_ns()
        if self._long and self._places.take():
            try:
                super().__call__()
            finally:
                self._places.leave()
        else:
            super().__call__()
        self._long = time.perf_counter_ns() - start >= LEAST_NS


def placed(launches: Sequence[Launch], threads: int) -> tuple[Launch, ...]:
    """The launches, as one in places where that can be; else as they are."""
    found = places(threads) if launches else None
    return tuple(launches) if found is None else (Placed(launches, found),)
