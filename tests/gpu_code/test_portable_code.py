"""Plans for other GPUs carry code that these run, and loading it compiles nothing. No GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from workbench.checks import sample_inputs
from workbench.gpu_targets import HardwareCompatibilityLevel as Level
from workbench.records import Refusal
from workbench.tactics import machine_code
from workbench.tactics.nvrtc import source as nvrtc
from workbench.tactics.nvrtc.source import NVRTC
from workbench.tactics.protocol import Problem, Tactic
from workbench.tactics.triton import calls as triton_calls
from workbench.tactics.triton.compiler import unpack_code
from workbench.tactics.triton.source import TRITON

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from library_bodies import LIBRARY_BODIES
from stand_in_gpu import StandInGpu
from tactic_bodies import BODIES

SOURCES = {"NVRTC": (NVRTC, "pointwise_half"), "TRITON": (TRITON, "linear_gelu_half")}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Nothing that was compiled before is found."""
    monkeypatch.setattr(machine_code, "cache_folder", lambda name: tmp_path / name)


def problem_of(name, device, level=Level.NONE):
    body = {**LIBRARY_BODIES, **BODIES}[name](2)
    drawn = sample_inputs(body, seed=0)
    constants = {i.name: np.asarray(drawn[i.name]) for i in body.inputs if i.constant}
    return Problem(body, constants, device, compatibility=level)


def built(name, level, capability=90):
    """A tactic, its problem and its Call, as a build makes them."""
    source, body = SOURCES[name]
    problem = problem_of(body, StandInGpu(capability), level)
    tactic = next(t for t in source.candidates(problem) if isinstance(t, Tactic))
    call = source.prepare(tactic, problem)
    assert not isinstance(call, Refusal), call
    return tactic, problem, call


def kind_of(code):
    body = code if code[:4] == b"\x7fELF" or code[:2] == b"//" else unpack_code(code)[1]
    return "machine code" if body[:4] == b"\x7fELF" else "PTX"


@pytest.mark.parametrize("name", SOURCES)
def test_a_plan_for_this_gpu_alone_carries_machine_code_alone(name):
    _, _, call = built(name, Level.NONE)
    assert [kind_of(c) for c in call.code.values()] == ["machine code"]


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(
    ("capability", "loads"),
    [(90, "machine code"), (86, "machine code"), (89, "machine code"), (100, "PTX")],
)
def test_an_ampere_plus_plan_loads_on_other_gpus_without_a_compiler(
    name, capability, loads, monkeypatch
):
    tactic, problem, call = built(name, Level.AMPERE_PLUS)
    assert sorted(map(kind_of, call.code.values())) == ["PTX", "machine code", "machine code"]

    def compiled(*given):
        raise AssertionError("it compiles")

    monkeypatch.setattr(nvrtc, "compile_text", compiled)
    monkeypatch.setattr(triton_calls, "_compiled", compiled)
    monkeypatch.setattr(nvrtc, "nvrtc_version", lambda: "another")
    other = StandInGpu(capability, "another model")
    again = SOURCES[name][0].prepare(tactic, replace(problem, device=other, code=call.code))
    assert not isinstance(again, Refusal), again
    assert len(again.code) == 1
    assert [kind_of(c) for c in again.code.values()] == [loads]
    assert len(other.modules) == 1


def test_code_for_8_0_is_what_an_8_6_loads_and_that_for_9_0_is_not():
    tactic, problem, call = built("NVRTC", Level.AMPERE_PLUS)
    codes = list(call.code.values())
    small = StandInGpu(86)
    NVRTC.prepare(tactic, replace(problem, device=small, code=call.code))
    assert small.modules == [codes[1]] and codes[0] != codes[1]


def test_fp8_is_refused_for_ampere_with_the_level_named_and_offered_for_this_gpu():
    for source in (NVRTC, TRITON):
        there = source.candidates(problem_of("fp8_linear_relu", StandInGpu(90)))
        asked = problem_of("fp8_linear_relu", StandInGpu(90), Level.AMPERE_PLUS)
        portable = source.candidates(asked)
        assert any(isinstance(t, Tactic) for t in there), source.name
        assert portable and all(isinstance(t, Refusal) for t in portable), source.name
        assert any("AMPERE_PLUS" in str(t) for t in portable), portable
