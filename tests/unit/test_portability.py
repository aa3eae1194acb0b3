"""Tactics that a plan for other GPUs cannot hold are refused by name; the cost is told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from engines import build, config

from workbench.datatypes import DataType
from workbench.devices import Fingerprint
from workbench.errors import PlanError
from workbench.gpu_targets import HardwareCompatibilityLevel as Level
from workbench.records import Refusal
from workbench.runtime import Engine
from workbench.selection import Candidate
from workbench.selection.portability import compiled_for, cost_us, portable
from workbench.tactics.protocol import Tactic
from workbench.timing import Timing

H200 = Fingerprint("gpu", "NVIDIA H200", ("sm_90",))


def candidate(source, us):
    tactic = Tactic(source, "a kernel", (), (), DataType.HALF)
    return Candidate(source, tactic.title, tactic, Timing(us, us, 0.0, 8, "2026-11-21"))


@pytest.mark.parametrize("source", ["TRITON", "NVRTC", "COMPOSED"])
@pytest.mark.parametrize("level", Level)
def test_our_own_kernels_go_everywhere(source, level):
    assert portable(candidate(source, 5.0), level).eligible


@pytest.mark.parametrize(
    ("source", "level", "goes"),
    [
        ("CUDNN", Level.NONE, True),
        ("CUDNN", Level.SAME_COMPUTE_CAPABILITY, False),
        ("CUDNN", Level.AMPERE_PLUS, False),
        ("CUBLAS_LT", Level.SAME_COMPUTE_CAPABILITY, True),
        ("CUBLAS_LT", Level.AMPERE_PLUS, False),
    ],
)
def test_a_librarys_tactic_goes_as_far_as_the_library_does(source, level, goes):
    found = portable(candidate(source, 5.0), level)
    assert found.eligible is goes
    assert found.timing is not None, "what it would have taken stays in the table"
    if not goes:
        assert str(found.refusal).startswith(f"{level.name}: ")
        assert "NONE" in found.refusal.remedy


def test_timings_are_shared_with_other_builds_where_the_level_changes_no_kernel():
    assert compiled_for("TRITON", Level.AMPERE_PLUS) == "AMPERE_PLUS"
    assert compiled_for("CUDNN", Level.AMPERE_PLUS) == ""
    for level in (Level.NONE, Level.SAME_COMPUTE_CAPABILITY):
        assert compiled_for("TRITON", level) == compiled_for("NVRTC", level) == ""


def test_what_was_refused_before_keeps_its_reason():
    wrong = replace(candidate("CUDNN", 5.0), refusal=Refusal("wrong result"))
    assert portable(wrong, Level.AMPERE_PLUS) is wrong


def test_the_cost_is_what_the_refused_tactics_would_have_saved():
    refused = portable(candidate("CUDNN", 5.0), Level.AMPERE_PLUS)
    slower = portable(candidate("CUBLAS_LT", 30.0), Level.AMPERE_PLUS)
    own = candidate("TRITON", 12.0)
    choices = [
        SimpleNamespace(winner=own, candidates=(refused, slower, own)),
        SimpleNamespace(winner=own, candidates=(slower, own)),
        SimpleNamespace(winner=own, candidates=(own,)),
    ]
    assert cost_us(choices) == 7.0


@pytest.mark.parametrize(
    ("level", "here"),
    [
        (Level.NONE, Fingerprint("gpu", "NVIDIA H100", ("sm_90",))),
        (Level.SAME_COMPUTE_CAPABILITY, Fingerprint("gpu", "NVIDIA A10", ("sm_86",))),
        (Level.AMPERE_PLUS, Fingerprint("gpu", "Tesla T4", ("sm_75",))),
    ],
)
def test_an_engine_is_refused_on_a_gpu_outside_its_level_with_both_named(level, here):
    made = config()
    made.hardware_compatibility_level = level
    plan = replace(build(made).plan, device=H200)
    with pytest.raises(PlanError) as refused:
        Engine(plan, SimpleNamespace(kind="gpu", fingerprint=here))
    assert here.name in str(refused.value)
    assert "build it on this GPU" in str(refused.value)
