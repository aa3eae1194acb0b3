"""Asynchronous products of Hopper see what asynchronous copies brought: each wait has a fence."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))

from code_device import CodeDevice
from product_bodies import Attention, Convolution, Linear
from tactic_bodies import sample_inputs

from workbench.datatypes import DataType
from workbench.records import Refusal
from workbench.tactics.protocol import Problem
from workbench.tactics.triton import TRITON
from workbench.tactics.triton.compiler import COMPILERS, unpack_code
from workbench.tactics.triton.source import program_for

LAYERS = (
    Convolution(2, 4, 17, 24, 3, 1, 1, DataType.FP8),
    Convolution(2, 4, 17, 24, 3, 1, 1, DataType.INT8),
    Convolution(1, 64, 9, 64, 3, 1, 1, DataType.HALF),
    Linear(256, 256, 64, DataType.FP8),
    Attention(1, 2, 256, 64),
)


def kernels_of(body):
    values = sample_inputs(body, seed=0)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    problem = Problem(body, constants, CodeDevice(90))
    tactics = [t for t in TRITON.candidates(problem) if not isinstance(t, Refusal)][:5]
    return [program_for(t, problem).kernels[-1] for t in tactics]


def ptx_of(kernels) -> list[str]:
    codes = [COMPILERS.submit(k, "compute_90") for k in kernels]
    return [unpack_code(c.result())[1].decode() for c in codes]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.title} {layer.kind.value}")
def test_a_fence_stands_between_copies_that_arrived_and_products_that_read_them(layer):
    asynchronous = 0
    for text in ptx_of(kernels_of(layer.body())):
        waits = re.findall(r"cp\.async\.wait_group\s+\d+;(.*?)(?:bar\.sync|wgmma)", text, re.S)
        if "wgmma.mma_async" in text:
            asynchronous += bool(waits)
            assert all("fence.proxy.async.shared::cta" in after for after in waits)
        else:
            assert "fence.proxy.async" not in text
    assert asynchronous


def test_machine_code_is_made_of_the_fenced_text():
    kernels = kernels_of(LAYERS[0].body())
    texts = ptx_of(kernels)
    kernel, text = next((k, t) for k, t in zip(kernels, texts, strict=True) if "wgmma" in t)
    code = COMPILERS.submit(kernel, "sm_90").result()
    from triton.tools.disasm import get_sass

    sass = get_sass(unpack_code(code)[1])
    assert "FENCE.VIEW.ASYNC" in sass and text.count("fence.proxy.async")
