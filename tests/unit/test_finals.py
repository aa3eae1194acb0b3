"""What may win is timed again, in turns, and the quieter timing is kept."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

from engines import build, config

from workbench.datatypes import DataType
from workbench.formats import LINEAR
from workbench.selection import Candidate, finals
from workbench.tactics.protocol import Tactic
from workbench.timing import Steadiness, Timing


class Clock:
    """A device whose launches take what was written down, in turn."""

    def __init__(self, kind="cpu"):
        self.kind = kind
        self.asked = []

    def timer(self, launch, stream, threads):
        def take(count):
            self.asked.append(launch.name)
            return [launch.times.pop(0) if launch.times[1:] else launch.times[0]] * count

        return take


class Kernel:
    def __init__(self, name, *times):
        self.name, self.times = name, list(times)

    def __call__(self):
        pass


def timing(us):
    return Timing(us, us, 0.0, 8, "2026-11-22")


class Played:
    """A Trial of kernels: what each took at first, then in each round."""

    def __init__(self, device, **kernels):
        self.shop = SimpleNamespace(
            device=device,
            threads=1,
            config=config(),
            steadiness=Steadiness(50.0, 0.0, 20),
            in_places=nullcontext,
        )
        self.kept = {}
        self.launches, self.candidates = {}, []
        for name, (first, *rest) in kernels.items():
            tactic = Tactic("ONEDNN", name, (LINEAR,), (LINEAR,), DataType.FLOAT)
            self.launches[tactic] = Kernel(name, *rest)
            self.candidates.append(Candidate("ONEDNN", name, tactic, timing(first)))

    def retimed(self, tactic, found):
        self.kept[tactic.name] = found.median_us


def times(candidates):
    return {c.title: c.timing.median_us for c in candidates}


def test_a_tactic_that_was_disturbed_gets_its_true_time():
    trial = Played(Clock(), disturbed=(18.0, 4.0, 4.0), steady=(8.0, 8.0, 8.0))
    assert times(finals.finals(trial, trial.candidates)) == {"disturbed": 4.0, "steady": 8.0}
    assert trial.kept == {"disturbed": 4.0}


def test_what_is_far_behind_or_alone_or_was_not_timed_now_is_not_timed_again():
    clock = Clock()
    trial = Played(clock, best=(8.0, 8.0, 8.0), behind=(80.0,), cached=(8.0,))
    trial.launches = {t: k for t, k in trial.launches.items() if t.name != "cached"}
    finals.finals(trial, trial.candidates)
    assert set(clock.asked) == {"best"}
    alone = Played(Clock(), alone=(8.0,))
    assert times(finals.finals(alone, alone.candidates)) == {"alone": 8.0}


def test_rivals_beside_it_set_the_limit_and_are_left_alone():
    trial = Played(Clock(), rival=(8.0, 1.0), made=(80.0, 1.0))
    rival, made = trial.candidates
    assert times(finals.finals(trial, [made], beside=[rival])) == {"made": 80.0}
    near = replace(made, timing=timing(9.0))
    assert times(finals.finals(trial, [near], beside=[rival])) == {"made": 1.0}


def test_a_gpu_is_not_asked_again():
    trial = Played(Clock("gpu"), a=(18.0, 4.0), b=(8.0, 8.0))
    assert times(finals.finals(trial, trial.candidates)) == {"a": 18.0, "b": 8.0}


def test_what_a_build_keeps_is_the_quieter_timing(monkeypatch):
    def quieter(launch, device, before, **how):
        return replace(before, median_us=before.median_us / 2)

    monkeypatch.setattr(finals, "measure_again", quieter)
    state = build(config(level=3))
    again = [c for x in state.tuned.layers for c in x.candidates if c.timing and c.eligible]
    halved = [c for c in again if c.timing.median_us < c.timing.min_us]
    assert halved, "a time below the least that was measured shows that it was kept"
    kept = [e.timing for e in state.cache.entries.values() if e.timing]
    assert any(t.median_us < t.min_us for t in kept)
