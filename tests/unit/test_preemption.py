"""Timing on a busy CPU: samples during which others had the processor are taken again."""

from __future__ import annotations

import pytest

from workbench import devices
from workbench.devices import CpuDevice


def test_a_sample_that_was_interrupted_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([0, 0, 0, 1, 1, 1])  # before and after each launch: the second is interrupted
    monkeypatch.setattr(devices, "_preemptions", lambda: next(counts))
    runs: list[int] = []
    samples = CpuDevice(1).time_us(lambda: runs.append(1), 2)
    assert (len(samples), len(runs)) == (2, 3)


def test_a_processor_that_is_never_left_alone_is_timed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = iter(range(1000))
    monkeypatch.setattr(devices, "_preemptions", lambda: next(counts))
    runs: list[int] = []
    assert len(CpuDevice(1).time_us(lambda: runs.append(1), 4)) == 4
    assert len(runs) == 4 + devices.RETAKES * 4
