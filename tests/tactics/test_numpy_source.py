"""NUMPY: exact integers, honest precision, prepared buffers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tactic_bodies import BF16, BODIES, FLOAT, HALF, INT8, Draft, conv, pointwise, problem_of

from workbench.body import Body, BodyInput, TensorType
from workbench.checks import bit_equal
from workbench.datatypes import DataType
from workbench.formats import CHW16, LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.launch import run_once
from workbench.tactics.numpy_source import NUMPY


def tactic(problem, name="prepared"):
    return next(t for t in NUMPY.candidates(problem) if t.name == name)


def run(problem, dynamic, name="prepared"):
    chosen = tactic(problem, name)
    return run_once(NUMPY.prepare(chosen, problem), chosen, problem, dynamic)


@pytest.mark.parametrize("terms", [64, 1200], ids=["float32 sums", "float64 sums"])
def test_int8_products_are_summed_exactly(terms):
    d = Draft()
    x = d.quantized(3, terms)
    w = d.quantized(5, terms, axis=0, constant=True)
    body = d.body(d.anchored("Gemm", x, w, transB=1))
    problem, _, values = problem_of(body)
    # All products of one sign and of the largest size: the sum passes 2**24.
    values["x0"][:] = -128
    weights = np.full((5, terms), -127, np.int8)
    weights[:, ::7] = -126
    problem = replace(problem, constants={**problem.constants, "w2": weights})
    (out,) = run(problem, {"x0": values["x0"]}).values()
    scale_x, scale_w = problem.constants["w1"], problem.constants["w3"]
    total = values["x0"].astype(np.int64) @ weights.astype(np.int64).T
    expected = total * (np.float64(scale_x) * scale_w.astype(np.float64))
    np.testing.assert_allclose(out, expected, rtol=2**-22)
    assert (terms > 1024) == (np.abs(total).max() >= 2**24)


@pytest.mark.parametrize("dtype", [BF16, HALF])
def test_half_types_are_marked_emulated_and_stay_in_their_precision(dtype):
    problem, _, _ = problem_of(conv(dtype)(1))
    for t in NUMPY.candidates(problem):
        assert t.emulated
        assert t.precision is dtype


def test_float_and_pure_copies_are_not_emulated():
    for make in (conv(FLOAT), BODIES["transpose_bf16"], BODIES["cast_float_to_bf16"]):
        problem, _, _ = problem_of(make(1))
        assert not any(t.emulated for t in NUMPY.candidates(problem))


def test_int8_layers_with_products_are_marked_emulated_because_float_units_multiply():
    problem, _, _ = problem_of(BODIES["conv_int8"](1))
    assert all(t.emulated and t.precision is INT8 for t in NUMPY.candidates(problem))


def test_prepared_and_reference_agree_bit_for_bit_on_a_plain_convolution():
    problem, dynamic, _ = problem_of(conv(FLOAT)(2))
    assert bit_equal(run(problem, dynamic), run(problem, dynamic, "reference"))


def test_a_call_that_needs_more_workspace_than_allowed_is_refused_with_both_numbers():
    problem, _, _ = problem_of(conv(FLOAT)(2))
    small = replace(problem, workspace_limit=100)
    refusal = NUMPY.prepare(tactic(problem), small)
    assert isinstance(refusal, Refusal)
    assert "KiB of workspace > limit 100 B" in refusal.reason


def test_elementwise_chains_reuse_one_buffer():
    problem, _, _ = problem_of(pointwise(FLOAT)(2))
    call = NUMPY.prepare(tactic(problem), problem)
    tensor = 2 * 20 * 5 * 5 * 4
    assert call.workspace_bytes <= 2 * tensor + 128


def test_strings_are_refused():
    inputs = (BodyInput("x", TensorType(DataType.STRING, (2,))),)
    body = Body(inputs, BODIES["pointwise"](1).nodes[:0], ("x",))
    problem, _, _ = problem_of(pointwise(FLOAT)(1))
    (refusal,) = NUMPY.candidates(replace(problem, body=body))
    assert refusal.code == "strings"


def test_reformats_of_other_owners_and_low_ranks_are_refused():
    opaque = Format("blocked", owner="ONEDNN", digest="abc")
    matrix = TensorType(FLOAT, (3, 4))
    assert NUMPY.reformat(matrix, LINEAR, opaque).code == "opaque_format"
    assert NUMPY.reformat(matrix, LINEAR, CHW16).code == "format_rank"
