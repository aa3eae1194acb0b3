"""TF32: offered where the builder's flag allows it, named, and checked within its own bound."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from code_device import CodeDevice
from library_bodies import LIBRARY_BODIES, convolution, linear
from product_bodies import Attention, Convolution, Linear
from tactic_bodies import FLOAT, HALF, sample_inputs

from workbench.checks import expect
from workbench.config import BuilderConfig, BuilderFlag
from workbench.devices import CpuDevice
from workbench.lab.number_types import to_tf32
from workbench.records import Refusal
from workbench.selection.candidates import Workshop
from workbench.tactics.cublas_lt.descriptors import COMPUTE_32F, COMPUTE_TF32, compute_types
from workbench.tactics.cublas_lt.source import stored_product
from workbench.tactics.cudnn.described import graphs_of
from workbench.tactics.cudnn.frontend import PlanChoice
from workbench.tactics.cudnn.source import arithmetics
from workbench.tactics.protocol import Problem, Tactic, tactic_from_json, tactic_to_json
from workbench.tactics.triton import TRITON
from workbench.tactics.triton.source import program_for
from workbench.timing import TimingCache


def problem_of(body, *, tf32):
    values = sample_inputs(body, seed=0)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    return Problem(body, constants, CodeDevice(), tf32=tf32)


def test_tf32_is_allowed_unless_the_flag_is_cleared_as_in_tensorrt():
    config, device = BuilderConfig(), CpuDevice()
    body = Linear(4, 8, 8, FLOAT).body()
    assert BuilderConfig.from_json(config.to_json()).get_flag(BuilderFlag.TF32)
    assert Workshop(device, config, TimingCache(device.fingerprint)).problem(body, {}).tf32
    config.clear_flag(BuilderFlag.TF32)
    assert not Workshop(device, config, TimingCache(device.fingerprint)).problem(body, {}).tf32


@pytest.mark.parametrize(
    "layer",
    [Linear(256, 256, 256, FLOAT), Convolution(2, 64, 14, 64, 3), Attention(2, 2, 64, 32)],
    ids=lambda layer: layer.title,
)
def test_triton_rounds_floats_only_where_it_may_and_says_so(layer):
    layer = dataclasses.replace(layer, kind=FLOAT)
    strict = TRITON.candidates(problem_of(layer.body(), tf32=False))
    free = TRITON.candidates(problem_of(layer.body(), tf32=True))
    assert strict and not any(t.tf32 for t in strict)
    rounded = [t for t in free if t.tf32]
    assert rounded == list(free[: len(rounded)]) and set(strict) <= set(free)
    for t in rounded:
        assert t.precision is FLOAT and t.arithmetic == "TF32" and t.name.endswith("tf32")
        problem = problem_of(layer.body(), tf32=False)  # a plan says how it multiplies, no flag
        texts = [k.text for k in program_for(t, problem).kernels]
        assert any('input_precision="tf32"' in text for text in texts)


def test_halves_know_no_tf32():
    found = TRITON.candidates(problem_of(Linear(256, 256, 256, HALF).body(), tf32=True))
    assert found and not any(t.tf32 for t in found)


def test_cublas_is_asked_for_tf32_first_where_it_may():
    product = stored_product(problem_of(LIBRARY_BODIES["linear_relu_float"](2), tf32=True))
    assert not isinstance(product, Refusal)
    assert compute_types(product, tf32=True) == (COMPUTE_TF32, COMPUTE_32F)
    assert compute_types(product, tf32=False) == (COMPUTE_32F,)


def test_cudnn_multiplies_float_matrices_as_tf32_or_not_at_all():
    choices = (PlanChoice(3), PlanChoice(7))
    (conv,) = graphs_of(problem_of(convolution(FLOAT)(2), tf32=True))
    (matrix,) = graphs_of(problem_of(linear(FLOAT)(2), tf32=True))
    (half,) = graphs_of(problem_of(linear(HALF)(2), tf32=True))
    rounded = [dataclasses.replace(c, tf32=True) for c in choices]
    assert arithmetics(conv, choices, tf32=True) == (rounded, choices)
    assert arithmetics(conv, choices, tf32=False) == (choices,)
    assert arithmetics(matrix, choices, tf32=True) == (rounded,)
    assert arithmetics(matrix, choices, tf32=False) == ()
    assert arithmetics(half, choices, tf32=True) == (choices,)
    assert rounded[0].title == "TF32 engine 3"


def test_a_tactic_keeps_its_arithmetic_in_json():
    tactic = Tactic("X", "x", (), (), FLOAT, (("math", "TF32"), ("engine", 3)))
    assert tactic_from_json(tactic_to_json(tactic)) == tactic and tactic.tf32


@pytest.mark.parametrize("name", ["linear_relu_float", "resnet_float"])
def test_products_of_tf32_pass_tf32s_bound_and_no_other(name):
    body = LIBRARY_BODIES[name](1)
    values = sample_inputs(body, seed=3)
    anchor = body.anchor_node
    assert anchor is not None
    read = {v: to_tf32(values[v]) for v in anchor.inputs[:2]}
    made = body.evaluate({**values, **read})
    assert expect(body, values, tf32=True).check(made)
    assert not expect(body, values).check(made)


def test_an_error_of_four_tf32_bounds_fails():
    body = LIBRARY_BODIES["linear_relu_float"](1)
    values = sample_inputs(body, seed=3)
    expected = expect(body, values, tf32=True)
    ((name, (exact, bound)),) = expected.values.items()
    assert not expected.check({name: (exact + 4 * bound).astype(np.float32)})
