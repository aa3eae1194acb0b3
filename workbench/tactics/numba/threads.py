"""Ranges of one loop, run by several threads; compiled kernels hold no interpreter lock."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from workbench.tactics.native import Native, OpenMp, at_once
from workbench.tactics.onednn.library import Library, load
from workbench.tactics.protocol import Launch


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="kernel")


def pieces(count: int, threads: int) -> list[tuple[int, int]]:
    """range(count) cut into at most ``threads`` ranges of about equal length."""
    parts = max(1, min(threads, count))
    edges = [count * k // parts for k in range(parts + 1)]
    return list(itertools.pairwise(edges))


@functools.cache
def _openmp() -> OpenMp | None:
    """oneDNN's OpenMP, so that both share one team of threads; None where there is no oneDNN."""
    library = load()
    return library.openmp if isinstance(library, Library) else None


def together(launches: Sequence[Launch]) -> Launch:
    """Runs all of them at once: pieces of a kernel by OpenMP's threads.

    Where there is no OpenMP: one in the calling thread, the others in a pool.
    """
    if len(launches) == 1:
        return launches[0]
    natives = [n for n in launches if isinstance(n, Native)]
    openmp = _openmp()
    if openmp is not None and len(natives) == len(launches):
        team = at_once(natives, openmp)
        if team is not None:
            return team
    first, *rest = launches

    def launch() -> None:
        pool = _pool(len(rest))
        started = [pool.submit(run) for run in rest]
        first()
        wait(started)
        for f in started:
            f.result()

    return launch
