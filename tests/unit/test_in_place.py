"""What is close when timed alone is decided in its place, by whole runs of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engines import one_thread

from workbench.builder import in_place as module
from workbench.builder import run_stages, start
from workbench.builder.in_place import in_place
from workbench.config import BuilderFlag
from workbench.devices import CpuDevice
from workbench.errors import TimingCacheError
from workbench.network import NetworkDefinition
from workbench.records import Stage
from workbench.timing import Timing

CHAIN = ("first", "second", "third")


class Stopwatch(CpuDevice):
    """A CPU whose steps take what is written down: of the selection, then of its rivals."""

    def __init__(self, *us):
        super().__init__(1)
        self.us, self.ran = us, 0

    def steps_us(self, launches, stream=None):
        for launch in launches:
            launch()
        self.ran += 1
        return list(self.us[(self.ran - 1) % len(self.us)])


def chain() -> NetworkDefinition:
    """Three products, of which the first and the second are alike."""
    net, random = NetworkDefinition("chain"), np.random.default_rng(0)
    y = net.add_input("x", "FLOAT", (4, 8))
    for name, columns in zip(CHAIN, (8, 8, 5), strict=True):
        w = net.constant(random.standard_normal((8, columns)).astype(np.float32), f"{name}.w")
        y = net.add_layer("MatMul", [y, w], name=name).outputs[0]
    net.mark_output(y)
    return net


def timed(c, us):
    """A candidate that took so long when timed alone; its error has no part in it."""
    return replace(c, timing=Timing(us, us, 0.1, 8, "2026-11-22"), error=None)


def tuned_on(device, *, level=3, flag=None, alone=(200.0, 205.0)):
    """A state before Tune, and a selection whose layers have one rival of another source each."""
    made = one_thread(level)
    made.tactic_sources = ("ONEDNN", "NUMPY")
    if flag is not None:
        made.set_flag(flag)
    quiet = one_thread()
    quiet.tactic_sources = made.tactic_sources
    found = run_stages(start(chain(), quiet), until=Stage.TUNE).tuned
    assert found is not None
    layers = []
    for choice in found.layers:
        able = [c for c in choice.candidates if c.eligible and not c.tactic.overwrites]
        own = next(c for c in able if c.source == "ONEDNN")
        rival = next(c for c in able if c.source == "NUMPY")
        pair = (timed(own, alone[0]), timed(rival, alone[1]))
        layers.append(replace(choice, candidates=pair, chosen=0, runner_up=1, composed=None))
    state = run_stages(start(chain(), made, device=device), until=Stage.FUSE)
    return state, replace(found, layers=tuple(layers))


def sources(tuned):
    return [c.winner.source for c in tuned.layers]


def test_rivals_that_are_faster_in_their_places_are_taken_kind_by_kind_and_remembered():
    device = Stopwatch((100.0, 100.0, 100.0), (90.0, 99.0, 120.0))
    state, given = tuned_on(device)
    found = in_place(state, given)
    assert sources(found) == ["NUMPY", "NUMPY", "ONEDNN"]
    assert "2 layers are faster in their places" in found.remarks[-1]
    assert [c.runner_up for c in found.layers] == [0, 0, 1]
    ran = device.ran
    assert sources(in_place(state, given)) == sources(found) and device.ran == ran


def test_a_gain_within_the_noise_changes_nothing():
    state, given = tuned_on(Stopwatch((100.0,) * 3, (99.0,) * 3))
    assert in_place(state, given) is given


@pytest.mark.parametrize(
    ("level", "alone"),
    [(2, (200.0, 205.0)), (3, (200.0, 250.0)), (3, (20.0, 20.5))],
    ids=["below the level", "far behind", "short layers"],
)
def test_what_is_not_worth_whole_runs_is_not_run(level, alone):
    device = Stopwatch((100.0,) * 3, (1.0,) * 3)
    state, given = tuned_on(device, level=level, alone=alone)
    assert in_place(state, given) is given and device.ran == 0


def test_a_rivals_error_has_its_price_in_its_place_too():
    state, given = tuned_on(Stopwatch((100.0,) * 3, (90.0,) * 3))
    layers = []
    for choice in given.layers:
        own, rival = choice.candidates
        pair = replace(own, error=1e-7), replace(rival, error=1.3e-7)
        layers.append(replace(choice, candidates=pair))
    kept = replace(given, layers=tuple(layers))
    assert in_place(state, kept) is kept


def test_a_build_that_may_measure_nothing_says_what_is_unknown():
    state, given = tuned_on(Stopwatch(), flag=BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
    with pytest.raises(TimingCacheError, match="IN_PLACE"):
        in_place(state, given)


def test_a_plan_with_rivals_computes_the_same(monkeypatch):
    monkeypatch.setattr(module, "WORTH_US", 0.0)
    monkeypatch.setattr(module, "NEAR", float("inf"))
    monkeypatch.setattr(module, "GAIN", -100.0)
    made = one_thread(3)
    made.tactic_sources = ("ONEDNN", "NUMPY")
    found = run_stages(start(chain(), made))
    assert set(sources(found.tuned)) == {"NUMPY"}
    x = np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32)
    expected = (
        run_stages(start(chain(), one_thread(1))).engine().create_execution_context().run({"x": x})
    )
    (name,) = expected
    np.testing.assert_allclose(
        found.engine().create_execution_context().run({"x": x})[name], expected[name], rtol=1e-4
    )
