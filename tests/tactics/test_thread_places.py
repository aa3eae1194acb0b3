"""A long run on every processor: one for each of its threads; afterwards all is as before."""

from __future__ import annotations

import ctypes
import os
import time

import numpy as np
import pytest

from workbench.host import usable_cpus
from workbench.tactics import placing
from workbench.tactics.native import address_of, on_team
from workbench.tactics.onednn.library import Library, load
from workbench.tactics.placing import LEAST_NS, MASK_BYTES, placed

LIBRARY, CPUS = load(), usable_cpus()
pytestmark = pytest.mark.skipif(
    not isinstance(LIBRARY, Library) or CPUS < 2, reason="it takes oneDNN and two CPUs"
)


def long() -> None:
    time.sleep(1.5 * LEAST_NS / 1e9)


def run_of(*launches):
    """A run that is known to be long, or short, by now."""
    (run,) = placed(launches, CPUS)
    run()
    return run


def masks_of_the_team() -> np.ndarray:
    assert isinstance(LIBRARY, Library)
    found = np.zeros((CPUS, MASK_BYTES), np.uint8)
    get = address_of(ctypes.CDLL(None).sched_getaffinity)
    each = [(0, MASK_BYTES, row.ctypes.data) for row in found]
    on_team(get, each, "sched_getaffinity", LIBRARY.openmp)[0]()
    return found


def test_each_thread_has_a_processor_of_its_own_and_the_caller_is_free_again() -> None:
    before, seen = os.sched_getaffinity(0), []
    run_of(long, lambda: seen.append((os.sched_getaffinity(0), masks_of_the_team())))()
    own, team = seen[-1]
    assert len(own) == 1
    assert np.unpackbits(team).sum() == len(before)
    assert np.unpackbits(np.bitwise_or.reduce(team, 0)).sum() == len(before)
    assert os.sched_getaffinity(0) == before


def test_the_caller_is_free_again_after_a_failure() -> None:
    def fails() -> None:
        raise ValueError("of the launch")

    failing = []
    before = os.sched_getaffinity(0)
    run = run_of(long, lambda: failing and fails())
    failing.append(True)
    with pytest.raises(ValueError, match="of the launch"):
        run()
    assert os.sched_getaffinity(0) == before


def test_a_caller_that_is_bound_stays_where_it_is() -> None:
    before, seen = os.sched_getaffinity(0), []
    run = run_of(long, lambda: seen.append(os.sched_getaffinity(0)))
    only = {max(before)}
    os.sched_setaffinity(0, only)
    try:
        run()
        assert seen[-1] == os.sched_getaffinity(0) == only
    finally:
        os.sched_setaffinity(0, before)


def test_a_short_run_is_placed_once_it_was_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    # As long as no busy machine makes of the short run.
    monkeypatch.setattr(placing, "LEAST_NS", 50_000_000)
    slow, seen = [0.1], []
    run = run_of(
        lambda: time.sleep(slow.pop()) if slow else None, lambda: seen.append(own_processors())
    )
    run()
    run()
    assert [len(s) for s in seen] == [CPUS, 1, CPUS]


def own_processors() -> set[int]:
    return os.sched_getaffinity(0)


def test_short_runs_and_runs_of_fewer_threads_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placing, "LEAST_NS", 50_000_000)
    seen = []
    run_of(lambda: seen.append(os.sched_getaffinity(0)))()
    assert seen[-1] == os.sched_getaffinity(0)
    assert placed((long,), CPUS - 1) == placed((long,), 1) == (long,)
    assert placed((), CPUS) == ()
