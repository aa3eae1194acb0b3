"""Triton kernels on an NVIDIA GPU through the selection's own check: bounds, two equal runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.tactics.triton import TRITON

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from attention_bodies import ATTENTIONS, quantized
from gpu_checks import candidates_of, compile_ahead, shop_of
from product_bodies import Attention, Convolution, Linear
from tactic_bodies import BODIES

pytestmark = pytest.mark.gpu
HALF, BF16, FLOAT, INT8, FP8 = (
    DataType.HALF,
    DataType.BF16,
    DataType.FLOAT,
    DataType.INT8,
    DataType.FP8,
)
PRODUCTS = ("conv", "gemm", "linear", "attention_scores")
TRIED = 6
"""Tactics of each Body that are prepared and checked."""
NOT_TRIED = ("max_num_tactics", "not_compiled")
"""Codes of what was left alone; every other refusal of a tactic fails."""


def _layers():
    for kind in (HALF, BF16, FLOAT, INT8, FP8):
        yield Convolution(1, 3, 33, 64, 7, 2, 3, kind)
        yield Convolution(2, 4, 17, 24, 3, 1, 1, kind)
        yield Convolution(3, 64, 15, 128, 3, 2, 1, kind, True)
        yield Convolution(64, 128, 4, 96, kind=kind, residual=True, activation="Sigmoid")
        yield Convolution(1, 512, 7, 512, 3, 1, 1, kind)
        yield Convolution(1, 96, 14, 96, 3, 1, 1, kind, activation="Clip", group=96)
        yield Convolution(2, 64, 9, 64, 3, 1, 1, kind, activation="HardSwish", group=4, width=11)
        yield Linear(200, 768, 768, kind, True)
        yield Linear(130, 768, 1000, kind, activation="Gelu")
        yield Linear(1, 2048, 1000, kind)
        yield Linear(77, 3072, 768, kind, activation="Tanh")
    for kind in (HALF, BF16, FLOAT):
        yield Attention(2, 3, 128, 64, kind)
        yield Attention(1, 2, 197, 64, kind, False)
        yield Attention(2, 2, 77, 40, kind)


MATRIX = {
    **{f"{x.title} {x.kind.value}": x.body() for x in _layers()},
    **{n: make(3) for n, make in BODIES.items() if n.startswith(PRODUCTS)},
    **{n: make(3) for n, make in ATTENTIONS.items()},
    "attention_quantized_fp8": quantized(HALF, FP8)(3),
}


@pytest.fixture(scope="module")
def shop():
    config = BuilderConfig()
    config.max_num_tactics = TRIED
    made = shop_of(TRITON, open_device("gpu"), config)
    compile_ahead(made, MATRIX.values(), TRIED)
    return made


@pytest.mark.parametrize("name", MATRIX)
def test_tactics_are_within_the_bound_and_repeat_to_the_bit(shop, name):
    tried = [
        c
        for c in candidates_of(shop, name, MATRIX[name])
        if c.tactic is not None and not (c.refusal and c.refusal.code in NOT_TRIED)
    ]
    assert tried
    for c in tried:
        assert c.eligible and c.worst is not None and c.worst <= 1, f"{c.title}: {c.refusal}"
