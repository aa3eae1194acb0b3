"""Sums of FP8 products stay in the matrix units: no code reads one that is still under way."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))

from code_device import CodeDevice
from product_bodies import Convolution, Linear
from tactic_bodies import sample_inputs

from workbench.datatypes import DataType
from workbench.records import Refusal
from workbench.tactics.protocol import Problem
from workbench.tactics.triton import TRITON
from workbench.tactics.triton.compiler import COMPILERS, unpack_code
from workbench.tactics.triton.source import program_for

LAYERS = (Convolution(2, 4, 17, 24, 3, 1, 1, DataType.FP8), Linear(256, 256, 64, DataType.FP8))


def ptx_of(body) -> str:
    values = sample_inputs(body, seed=0)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    problem = Problem(body, constants, CodeDevice(90))
    able = [t for t in TRITON.candidates(problem) if not isinstance(t, Refusal)]
    # Hopper's asynchronous products take 64 rows at least.
    tactic = next(t for t in able if t.parameter("rows") >= 64 and t.parameter("split") == 1)
    kernel = program_for(tactic, problem).kernels[-1]
    # In a process of its own: the interpreter of other tests changes Triton in this one.
    return unpack_code(COMPILERS.submit(kernel, "compute_90").result())[1].decode()


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.title)
def test_nothing_is_added_between_a_product_and_the_wait_for_it(layer):
    text = ptx_of(layer.body())
    products = text.count("wgmma.mma_async")
    assert products and "e4m3.e4m3" in text
    for part in re.split(r"wgmma\.wait_group", text)[:-1]:
        if "wgmma.mma_async" in part:
            under_way = part[part.index("wgmma.mma_async") :]
            assert "add.f32" not in under_way and "add.rn.f32" not in under_way
