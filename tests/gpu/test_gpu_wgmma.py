"""Hopper's products on an NVIDIA GPU through the selection's own check: bounds, two equal runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.tactics.wgmma import WGMMA
from workbench.tactics.wgmma.source import CAPABILITY

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from gpu_checks import candidates_of, compile_ahead, shop_of
from product_bodies import Convolution, Linear
from tactic_bodies import Draft

pytestmark = pytest.mark.gpu
KINDS = (DataType.HALF, DataType.BF16, DataType.INT8, DataType.FP8)


def _layers():
    for kind in KINDS:
        yield Linear(200, 768, 768, kind, True)
        yield Linear(6304, 768, 3072, kind, activation="Gelu")
        yield Linear(130, 768, 1000, kind, activation="Gelu")
        yield Linear(1, 2048, 1000, kind)
        yield Linear(77, 3072, 768, kind, activation="Tanh")
        yield Linear(1030, 80, 40, kind, True)
        yield Convolution(64, 128, 4, 96, kind=kind, residual=True, activation="Sigmoid")
        yield Convolution(16, 64, 28, 256, kind=kind, residual=True)
        yield Convolution(8, 32, 15, 192, kind=kind, activation="Clip")
        yield Convolution(8, 64, 14, 96, 3, 1, 1, kind, residual=True)
        yield Convolution(3, 80, 15, 128, 3, 2, 1, kind, width=18)
        yield Convolution(5, 32, 9, 64, 5, 1, 2, kind)
        yield Convolution(16, 256, 14, 256, 3, 1, 1, kind)
        yield Convolution(16, 128, 28, 256, 1, 2, kind=kind, activation="")


def uneven(kind, *, rank):
    """Dilated taps, strides and padding that differ by axis and side; in one or two dimensions."""
    d = Draft()
    x = d.input(3, 64, *(17, 23)[:rank], dtype=kind)
    w = d.weight(96, 64, *(3, 2)[:rank], dtype=kind)
    given = {
        "strides": (2, 1)[:rank],
        "dilations": (2, 3)[:rank],
        "pads": (3, 1, 0, 2) if rank == 2 else (3, 0),
    }
    return d.body(d("Relu", d.anchored("Conv", x, w, **given)))


MATRIX = {
    **{f"{x.title} {x.kind.value}": x.body() for x in _layers()},
    **{f"uneven {r}D": uneven(DataType.HALF, rank=r) for r in (1, 2)},
}


@pytest.fixture(scope="module")
def shop():
    config = BuilderConfig()
    config.builder_optimization_level = 5
    device = open_device("gpu")
    if device.compute_capability != CAPABILITY:
        pytest.skip(f"these are for compute capability 9.0, this is {device.compute_capability}")
    made = shop_of(WGMMA, device, config)
    compile_ahead(made, MATRIX.values())
    return made


@pytest.mark.parametrize("name", MATRIX)
def test_every_tile_is_within_the_bound_and_repeats_to_the_bit(shop, name):
    tried = candidates_of(shop, name, MATRIX[name])
    assert tried
    for c in tried:
        assert c.eligible and c.worst is not None and c.worst <= 1, f"{c.title}: {c.refusal}"
