"""Hopper's products compile, with no register in memory, and say what they don't take."""

from __future__ import annotations

import sys
from pathlib import Path

import cupy
import numpy as np
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
from workbench.tactics.wgmma.matrices import matrices_of, ordered, packed_weights
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


def whole(shape, rng):
    """Small integers, whose products and sums float32 holds exactly."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def uneven(kernel, **given):
    d = Draft()
    rank = len(kernel)
    x = d.input(3, 16, *(9, 13)[:rank])
    return d.body(d.anchored("Conv", x, d.weight(40, 16, *kernel), **given))


GATHERED = {
    "dilated": uneven((3, 2), strides=(2, 1), dilations=(2, 3), pads=(3, 1, 0, 2)),
    "one axis": uneven((3,), strides=(2,), dilations=(2,), pads=(3, 0)),
    "rows skipped": uneven((1, 1), strides=(2, 3)),
    "rows": uneven((1, 1)),
}


@pytest.mark.parametrize("name", GATHERED)
def test_what_is_gathered_and_packed_multiplies_to_the_convolution(name, monkeypatch):
    """The copy engine's part is played by NumPy, as the tensor map describes it."""
    monkeypatch.setattr("workbench.tactics.wgmma.matrices.KINDS", (FLOAT,))
    body, rng = GATHERED[name], np.random.default_rng(0)
    values = {i.name: whole(i.type.shape, rng) for i in body.inputs}
    (x, w), (wanted,) = values.values(), body.evaluate(values).values()
    found = matrices_of(body, {body.inputs[1].name: w})
    packed = packed_weights(found, w).reshape(found.placed, found.taps, found.depth)
    pixels = np.moveaxis(x, 1, -1)
    sums = np.zeros((found.rows, len(packed)), np.float32)
    if found.windows is None:
        sums += pixels.reshape(found.rows, -1) @ packed[:, 0].T
    else:
        laid = found.windows
        pixels = pixels.reshape(laid.image)
        low, last = laid.corners
        spots = [
            np.arange(a, size + b, step)
            for a, b, size, step in zip(low, last, laid.image[1:3], laid.strides, strict=True)
        ]
        assert tuple(map(len, spots)) == laid.out
        for tap in range(found.taps):
            down, right = (
                v * d for v, d in zip(divmod(tap, laid.kernel[1]), laid.dilations, strict=True)
            )
            padded = np.pad(pixels, ((0, 0), (9, 9), (9, 9), (0, 0)))
            part = padded[:, spots[0] + down + 9][:, :, spots[1] + right + 9]
            sums += part.reshape(found.rows, -1) @ packed[:, tap].T
    places = np.argsort(ordered(np.arange(found.placed)), axis=None)
    made = sums[:, places][:, : found.columns]
    np.testing.assert_array_equal(
        made, np.moveaxis(wanted, 1, -1).reshape(found.rows, found.columns)
    )


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
