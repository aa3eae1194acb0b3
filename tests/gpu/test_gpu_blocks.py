"""INT8 images in blocks of channels (CHW32): convolutions, pointwise kernels, reformats."""

from __future__ import annotations

import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from workbench.body import TensorType
from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.formats import CHW32, HWC, LINEAR
from workbench.sampling import sample_inputs
from workbench.tactics.launch import reformat_body, run_once
from workbench.tactics.nvrtc import NVRTC
from workbench.tactics.protocol import Call, Tactic
from workbench.tactics.triton import TRITON

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from gpu_checks import candidates_of, shop_of
from product_bodies import Convolution
from tactic_bodies import INT8, quantized_sum

pytestmark = pytest.mark.gpu

BODIES = {
    "1x1 residual": (TRITON, Convolution(3, 64, 15, 96, kind=INT8, residual=True).body()),
    "3x3": (TRITON, Convolution(2, 128, 14, 128, 3, 1, 1, INT8).body()),
    "3x3 strided": (TRITON, Convolution(2, 32, 17, 64, 3, 2, 1, INT8).body()),
    "sum": (NVRTC, quantized_sum(64)),
}


@pytest.mark.parametrize("name", BODIES)
def test_tactics_in_blocks_are_within_the_bound_and_repeat_to_the_bit(name):
    source, body = BODIES[name]
    config = BuilderConfig()
    config.builder_optimization_level = 4
    shop = shop_of(source, open_device("gpu"), config)
    found = candidates_of(shop, name, body)
    tried = [c for c in found if c.tactic is not None and CHW32 in c.tactic.outputs]
    assert tried
    for c in tried:
        assert c.eligible and c.worst is not None and c.worst <= 1, f"{c.title}: {c.refusal}"


@pytest.mark.parametrize(("source", "target"), list(permutations((LINEAR, HWC, CHW32), 2)))
def test_a_tensor_is_rewritten_from_each_layout_to_each_other(source, target):
    type_ = TensorType(DataType.INT8, (3, 96, 13, 7))
    body = reformat_body(type_)
    shop = shop_of(NVRTC, open_device("gpu"), BuilderConfig())
    tactic, problem = NVRTC.reformat(type_, source, target), shop.problem(body, {})
    assert isinstance(tactic, Tactic), tactic
    call = NVRTC.prepare(tactic, problem)
    assert isinstance(call, Call), call
    values = sample_inputs(body, seed=0)
    found = run_once(call, tactic, problem, values)
    assert np.array_equal(found["output"], values["input"])
