"""Ranges of one loop, run by several threads; compiled kernels hold no interpreter lock."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from workbench.tactics.protocol import Launch


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="kernel")


def pieces(count: int, threads: int) -> list[tuple[int, int]]:
    """range(count) cut into at most ``threads`` ranges of about equal length."""
    parts = max(1, min(threads, count))
    edges = [count * k // parts for k in range(parts + 1)]
    return list(itertools.pairwise(edges))


def together(launches: Sequence[Launch]) -> Launch:
    """Runs all of them at once: one in the calling thread, the others in a pool."""
    if len(launches) == 1:
        return launches[0]
    first, *rest = launches

    def launch() -> None:
        pool = _pool(len(rest))
        started = [pool.submit(run) for run in rest]
        first()
        wait(started)
        for f in started:
            f.result()

    return launch
