"""Tactics that contend are timed once more, in turns: a busy moment decides nothing."""

from __future__ import annotations

import pytest
from engines import build, config

from workbench.devices import CpuDevice
from workbench.selection.candidate import Candidate
from workbench.selection.trial import MOST_RIVALS, contenders
from workbench.timing import Timing


def timed(title: str, least: float) -> Candidate:
    return Candidate("ONEDNN", title, None, Timing(least, least, 0.0, 8, "2026-11-21"))


@pytest.fixture
def eligible(monkeypatch):
    monkeypatch.setattr(Candidate, "eligible", property(lambda c: c.refusal is None))


def test_only_the_nearest_contend(eligible):
    near, nearer, far = timed("near", 15.0), timed("nearer", 10.0), timed("far", 17.0)
    assert contenders([near, far, nearer]) == (nearer, near)
    many = [timed(str(k), 10.0 + 0.1 * k) for k in range(9)]
    assert contenders(many) == tuple(many[:MOST_RIVALS])
    assert contenders([]) == ()


def test_the_nearest_timings_of_a_build_were_taken_in_turns(monkeypatch):
    counts: list[int] = []
    every = CpuDevice.timer

    def timer(self, launch, stream):
        take = every(self, launch, stream)
        return lambda count: counts.append(count) or take(count)

    monkeypatch.setattr(CpuDevice, "timer", timer)
    made = config(level=2)
    made.avg_timing_iterations = 3
    state = build(made)
    assert state.tuned is not None
    # Each tactic is run once before it is timed; those that contend, once more in each turn.
    turns = counts.count(1) - state.tuned.timed
    assert turns > 0
    assert turns % made.avg_timing_iterations == 0


def test_known_timings_are_not_taken_again():
    first = build(config(level=2))
    made = config(level=2)
    made.timing_cache = first.cache
    before = {k: e.timing for k, e in first.cache.entries.items()}
    again = build(made)
    assert again.tuned is not None
    assert again.tuned.timed == 0
    assert {k: e.timing for k, e in again.cache.entries.items()} == before
