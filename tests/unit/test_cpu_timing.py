"""Timing on a CPU: without samples that others interrupted, with data as far as in a run."""

from __future__ import annotations

import time

import pytest

from workbench import cpu_clock
from workbench.devices import CpuDevice
from workbench.tactics.onednn.library import Library, load


def test_a_sample_that_was_interrupted_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([0, 0, 0, 1, 1, 1])  # before and after each launch: the second is interrupted
    monkeypatch.setattr(cpu_clock, "_preemptions", lambda: next(counts))
    runs: list[int] = []
    samples = CpuDevice(1).time_us(lambda: runs.append(1), 2)
    assert (len(samples), len(runs)) == (2, 3)


def test_a_processor_that_is_never_left_alone_is_timed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = iter(range(1000))
    monkeypatch.setattr(cpu_clock, "_preemptions", lambda: next(counts))
    runs: list[int] = []
    assert len(CpuDevice(1).time_us(lambda: runs.append(1), 4)) == 4
    assert len(runs) == 4 + cpu_clock.RETAKES * 4


def test_a_long_launch_finds_other_data_in_the_nearest_caches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evicted: list[int] = []
    monkeypatch.setattr(cpu_clock, "evict", lambda: evicted.append(1))
    device = CpuDevice(1)
    device.timer(lambda: time.sleep(0.001), None)(3)
    assert len(evicted) >= 3
    evicted.clear()
    device.timer(lambda: None, None)(3)
    assert not evicted


def test_every_thread_that_a_launch_may_use_gets_other_data_and_is_awake_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(load(), Library), "its OpenMP is the one whose threads are meant"
    evicted: list[int] = []
    monkeypatch.setattr(cpu_clock, "evict", lambda thread=0: evicted.append(thread))
    seen: list[list[int]] = []
    take = CpuDevice(2).timer(lambda: (seen.append(sorted(evicted)), time.sleep(0.001)), None, 2)
    seen.clear()
    evicted.clear()
    take(2)
    assert seen == [[0, 1], [0, 0, 1, 1]]
