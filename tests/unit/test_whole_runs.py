"""What only whole runs tell: which selection is fastest, and which kernels start early."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
from engines import config, small_network

from workbench.builder import run_stages, start, whole_runs
from workbench.builder.whole_runs import by_whole_runs, early_starts_of
from workbench.config import BuilderFlag
from workbench.devices import CpuDevice
from workbench.errors import TimingCacheError
from workbench.gpu_launch import KernelLaunch, LoadedKernel
from workbench.records import Stage
from workbench.runtime import early_starts as module
from workbench.tactics.native import in_order
from workbench.timing import Timing


class Recording(CpuDevice):
    """A CPU with graphs, one a plan, whose times are written down in the order of the plans."""

    def __init__(self, *us):
        super().__init__(1)
        self.us, self.ran, self.last = list(us), 0, 0.0

    def capture(self, launches, stream):
        us = self.us.pop(0)

        def launch(stream):
            self.last = us
            for one in launches:
                one()

        return SimpleNamespace(launch=launch)

    def time_us(self, launch, repeats, stream=None):
        found = []
        for _ in range(repeats):
            launch()
            found.append(self.last)
        self.ran += repeats
        return found


def with_another_tactic(tuned, layer):
    """The selection, but for one layer that runs another tactic of the same layouts."""
    choice = tuned.layers[layer]
    chosen = choice.winner.tactic
    other = next(
        k
        for k, c in enumerate(choice.candidates)
        if k != choice.chosen
        and c.eligible
        and (c.tactic.inputs, c.tactic.outputs) == (chosen.inputs, chosen.outputs)
    )
    layers = list(tuned.layers)
    layers[layer] = replace(choice, chosen=other)
    return replace(tuned, layers=tuple(layers))


def tuned_on(*us, flag=None):
    made = config(level=1)
    if flag is not None:
        made.set_flag(flag)
    state = start(small_network(), made, device=Recording(*us))
    cleared = replace(state, config=config(level=1).frozen())
    tuned = run_stages(cleared, until=Stage.TUNE).tuned
    state = replace(run_stages(cleared, until=Stage.FUSE), config=state.config)
    others = (with_another_tactic(tuned, 0), with_another_tactic(tuned, 1))
    return state, replace(tuned, alternatives=others)


@pytest.mark.parametrize(
    ("us", "taken"),
    [((50, 40, 39), 2), ((50, 39, 40), 1), ((39, 50, 50), 0), ((50.0, 49.9, 60), 0)],
)
def test_the_selection_of_the_fastest_run_is_taken_and_remembered(us, taken):
    state, given = tuned_on(*us)
    wanted = (given, *given.alternatives)[taken].layers
    found = by_whole_runs(state, given)
    assert found.layers == wanted and found.alternatives == ()
    times = ", ".join(f"{t:.0f}" for t in us)
    assert found.remarks[-1] == f"whole runs took {times} µs: selection {taken + 1} of 3 is taken"
    ran = state.device.ran
    again = by_whole_runs(state, given)
    assert again.layers == wanted and state.device.ran == ran
    assert "decided before" in again.remarks[-1]


def test_where_no_graph_records_a_selection_the_first_is_taken_and_each_build_says_why(monkeypatch):
    state, given = tuned_on()
    monkeypatch.setattr(whole_runs, "graph_refusal", lambda engine: "the host runs one")
    for _ in range(2):
        found = by_whole_runs(state, given)
        assert found.layers == given.layers
        assert found.remarks[-1].startswith("no CUDA graph records all of them")


def test_a_refusal_of_early_starts_is_told_by_the_next_build_too(monkeypatch):
    state = run_stages(start(small_network(), config(level=1), device=CpuDevice(1)))
    refused = module.EarlyStarts((), Timing.of([5.0]), 5.0, "results were others to the bit")
    monkeypatch.setattr(whole_runs, "early_starts", lambda engine: refused)
    engine = state.engine()
    first, again = early_starts_of(state, engine), early_starts_of(state, engine)
    assert first is refused and again is not refused
    assert str(again) == str(first) and again.timing == first.timing


def test_one_selection_is_taken_as_it_is():
    state, given = tuned_on()
    alone = replace(given, alternatives=())
    assert by_whole_runs(state, alone) is alone and state.device.ran == 0


def test_a_build_that_may_measure_nothing_says_that_whole_runs_are_unknown():
    state, given = tuned_on(flag=BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
    with pytest.raises(TimingCacheError, match="whole runs"):
        by_whole_runs(state, given)


def test_without_a_timing_cache_every_build_measures():
    state, given = tuned_on(50, 40, 45, 50, 40, 45, flag=BuilderFlag.DISABLE_TIMING_CACHE)
    before = len(state.cache.entries)
    for _ in range(2):
        assert by_whole_runs(state, given).layers == given.alternatives[0].layers
    assert len(state.cache.entries) == before and not state.device.us


class Gpu:
    """Kernels of a chain; how long a run takes follows from those that let the next one start."""

    def __init__(self, saves):
        self.saves = saves
        self.kernels = [self._kernel() for _ in saves]

    def _kernel(self):
        library = SimpleNamespace(cuLaunchKernelEx=None)
        device = SimpleNamespace(library=library, current=contextlib.nullcontext())
        loaded = LoadedKernel(device, SimpleNamespace(ptr=1), (32, 1, 1), 0, True)
        return KernelLaunch(loaded, (1, 1, 1), (0,), SimpleNamespace(ptr=0))

    def capture(self, launches, stream):
        lets = [bool(k._lets.value) for k in self.kernels]
        us = 100.0 - sum(s for s, let in zip(self.saves, lets, strict=True) if let)
        return SimpleNamespace(us=us, launch=lambda stream: self.timed.append(us))

    def time_us(self, launch, repeats, stream=None):
        self.timed = []
        for _ in range(repeats):
            launch()
        return self.timed

    def synchronize(self, stream=None):
        pass


def decided(saves, kinds, outputs=None):
    device = Gpu(saves)
    trials = object.__new__(module._Trials)
    trials.engine = SimpleNamespace(io_tensors=())
    trials.device, trials.launcher = device, SimpleNamespace(own=None)
    trials.bound = SimpleNamespace(launches=tuple(in_order([k]) for k in device.kernels))
    trials.kinds = kinds
    device.timed = []
    if outputs is not None:
        trials.outputs = lambda graph: outputs.pop(0)
    return trials.decide()


def test_neighbours_that_gain_start_early_and_those_that_lose_do_not():
    kinds = {0: ("a", "b"), 1: ("b", "c"), 2: ("a", "b"), 3: ("c", "d")}
    found = decided([2.0, -3.0, 2.0, 1.0, 0.0], kinds)
    assert found.steps == (0, 2, 3)
    assert found.timing.median_us == 95.0 and found.before_us == 100.0
    assert str(found) == "3 steps let the next one start early: 100 → 95 µs"


def test_none_starts_early_where_nothing_is_gained():
    found = decided([-1.0, 0.0], {0: ("a", "b")})
    assert found.steps == () and found.timing.median_us == 100.0 and str(found) == ""


def test_what_would_change_a_result_is_not_taken_and_says_so():
    found = decided([2.0, 0.0], {0: ("a", "b")}, outputs=[[b"a"], [b"b"]])
    assert found.steps == () and found.timing.median_us == 100.0
    assert str(found).endswith("start early: results were others to the bit")


def test_a_level_that_times_nothing_lets_nothing_start_early():
    state = run_stages(start(small_network(), config(level=0), device=Recording(1.0)))
    assert early_starts_of(state, state.engine()).timing is None
