"""Hopper's products compile, with no register in memory, and say what they don't take."""

from __future__ import annotations

import sys
from pathlib import Path

import cupy
import pytest

from workbench.body import Body
from workbench.datatypes import DataType
from workbench.gpu_targets import HardwareCompatibilityLevel
from workbench.records import Refusal
from workbench.sampling import sample_inputs
from workbench.tactics.nvrtc.source import compile_text
from workbench.tactics.protocol import Problem
from workbench.tactics.wgmma import WGMMA
from workbench.tactics.wgmma.code import product_text
from workbench.tactics.wgmma.matrices import matrices_of
from workbench.tactics.wgmma.source import TARGET
from workbench.tactics.wgmma.tiles import SHARED, tile_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from code_device import CodeDevice
from product_bodies import Convolution, Linear
from tactic_bodies import BF16, FLOAT, HALF, INT8, Draft

FP8 = DataType.FP8
LAYERS = {
    "gelu": Linear(6304, 768, 3072, HALF, activation="Gelu"),
    "residual": Linear(200, 3072, 768, BF16, True),
    "int8": Linear(130, 768, 1000, INT8, True, "Gelu"),
    "fp8": Linear(130, 768, 96, FP8, True, "Tanh"),
    "convolution": Convolution(4, 64, 9, 256, kind=HALF, residual=True),
    "convolution int8": Convolution(4, 64, 9, 40, kind=INT8, residual=True, activation="Clip"),
    "residual of much": Linear(6304, 3072, 768, HALF, True),
    "window": Convolution(8, 128, 28, 128, 3, 1, 1, residual=True),
    "window int8": Convolution(32, 64, 28, 96, 3, 2, 1, INT8),
    "convolution fp8": Convolution(4, 128, 9, 72, kind=FP8),
}


def problem_of(body, capability=90, level=HardwareCompatibilityLevel.NONE):
    values = sample_inputs(body, seed=0)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    return Problem(body, constants, CodeDevice(capability), compatibility=level)


@pytest.mark.parametrize("name", LAYERS)
def test_every_tile_that_is_offered_compiles(name):
    problem = problem_of(LAYERS[name].body())
    matrices = matrices_of(problem.body, problem.constants)
    offered = WGMMA.candidates(problem)
    assert offered
    for tactic in offered:
        assert not isinstance(tactic, Refusal), tactic
        tile = tile_of(tactic.parameters)
        assert tile.shared_bytes + 1024 <= SHARED
        code = compile_text(cupy, product_text(matrices, tile).code, TARGET)
        assert code[:4] == b"\x7fELF"


def computed() -> Body:
    d = Draft()
    x = d("Transpose", d.input(64, 32, dtype=HALF), perm=(1, 0))
    return d.body(d.anchored("MatMul", x, d.weight(64, 64, dtype=HALF)))


REFUSED = {
    "float32": (Linear(64, 64, 64, FLOAT).body(), "not FP32"),
    "narrow": (Linear(64, 64, 36, HALF).body(), "36 columns"),
    "short": (Linear(64, 36, 64, HALF).body(), "sums of 36 terms"),
    "groups": (Convolution(1, 64, 9, 64, 3, 1, 1, group=2).body(), "in groups"),
    "few channels": (Convolution(1, 3, 9, 64, 3, 1, 1).body(), "sums of 3 terms"),
    "far apart": (Convolution(1, 64, 99, 64, 3, 9, 1).body(), "larger strides"),
    "computed": (computed(), "is computed before"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_taken_is_refused_with_the_reason(name):
    body, reason = REFUSED[name]
    (refusal,) = WGMMA.candidates(problem_of(body))
    assert isinstance(refusal, Refusal) and reason in refusal.reason


def test_other_gpus_are_refused():
    body = LAYERS["gelu"].body()
    (older,) = WGMMA.candidates(problem_of(body, 80))
    assert "needs compute capability 9.0 itself, this is 8.0" in older.reason
    (newer,) = WGMMA.candidates(problem_of(body, 100))
    assert "this is 10.0" in newer.reason
    (portable,) = WGMMA.candidates(problem_of(body, level=HardwareCompatibilityLevel.AMPERE_PLUS))
    assert portable.code == "hardware_compatibility"
