"""The waterfall: what a run's time is made of; the parts sum to the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from widgets.figures import profile_figure, waterfall_figure
from workbench.datatypes import DataType
from workbench.reports import profile_rows, waterfall_rows
from workbench.runtime import Profile, profiler
from workbench.runtime.profiler import LayerProfile, Profiled, profiled


def layer(name: str, us: float, kind: str = "CONVOLUTION") -> LayerProfile:
    f32 = DataType.FLOAT
    return LayerProfile(name, kind, "k", "T k", (), f32, f32, False, us, us, us, 0.0)


LAYERS = (layer("a", 10.0), layer("b", 5.0), layer("reformat", 2.0, "REFORMAT"))


def parts(profile: Profile) -> dict[str, float]:
    rows = waterfall_rows(profile)
    return dict(zip(rows["Part"], rows["Median (µs)"], strict=True))


def test_a_graph_saves_the_gaps_that_single_launches_have():
    profile = Profile(
        LAYERS, 18.0, 17.0, 5, graph=True, one_by_one_us=40.0, copies_us=12.0, caller_us=35.0
    )
    assert parts(profile) == {
        "kernels": 15.0,
        "reformats": 2.0,
        "launch gaps": 23.0,  # 40 in a row, 17 each alone
        "CUDA graph": -22.0,  # 18 instead of 40
        "copies": 12.0,
        "residual": 5.0,  # 35 for the caller, of which 18 + 12 are known
    }
    assert sum(parts(profile).values()) == pytest.approx(35.0)


def test_a_cpu_saves_what_calling_neighbours_together_saves():
    profile = Profile(LAYERS, 16.0, 15.0, 5, one_by_one_us=19.0, copies_us=1.0, caller_us=25.0)
    assert "CUDA graph" not in parts(profile)
    assert parts(profile)["launch gaps"] == 2.0
    assert parts(profile)["joined calls"] == -3.0
    assert parts(profile)["residual"] == 8.0
    assert sum(parts(profile).values()) == pytest.approx(25.0)


def test_a_figure_of_times_that_others_disturbed_says_so():
    quiet = Profile(LAYERS, 21.0, 20.0, 5)
    noisy = replace(quiet, noisy=True)
    assert "noisy: other programs ran meanwhile" in str(noisy)
    for rows, draw in ((waterfall_rows, waterfall_figure), (profile_rows, profile_figure)):
        said = draw(rows(noisy), "CPU: a").layout.title.text
        assert said.endswith(" · noisy: other programs ran meanwhile · CPU: a</span>")
        assert "noisy" not in draw(rows(quiet), "CPU: a").layout.title.text


class Interrupted:
    """A device on which another program disturbs the first runs, two of three."""

    def __init__(self, disturbed: int) -> None:
        self.runs, self.disturbed = 0, disturbed

    def time_us(self, launch: object, repeats: int, stream: object = None) -> list[float]:
        self.runs += 1
        slow = self.runs < self.disturbed and self.runs % 3
        return [3400.0 if slow else 20.0] * repeats

    def steps_us(self, launches: object, stream: object = None) -> list[float]:
        return []


def profile_on(device: Any, monkeypatch: pytest.MonkeyPatch, patience_s: float) -> Profile:
    monkeypatch.setattr(profiler, "PATIENCE_S", patience_s)
    monkeypatch.setattr(profiler, "samples_us", lambda work, count: [1.0])
    nothing = dict.fromkeys(("whole", "run", "copies"), lambda: None)
    return profiled(Profiled(steps=(), graph=False, **nothing), device, None, 10)


def test_a_profile_that_others_disturb_is_taken_again_until_they_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = profile_on(Interrupted(30), monkeypatch, 60.0)
    assert (found.end_to_end_us, found.noisy) == (20.0, False)


def test_a_profile_that_others_disturb_for_long_is_noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    found = profile_on(Interrupted(1 << 30), monkeypatch, 0.3)
    assert (found.end_to_end_us, found.noisy) == (3400.0, True)


def test_a_plan_that_runs_step_by_step_has_kernels_and_a_residual():
    assert parts(Profile(LAYERS, 21.0, 20.0, 5)) == {
        "kernels": 15.0,
        "reformats": 2.0,
        "residual": 4.0,
    }
