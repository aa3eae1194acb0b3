"""Generated CUDA C++ of loops, tables and several steps gives what the reference gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from host_cuda import run_on_host
from operator_bodies import OPERATORS
from tactic_bodies import HALF, Draft

from workbench.body import Body
from workbench.checks import expect
from workbench.datatypes import DataType
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.sampling import sample_inputs
from workbench.tactics.nvrtc.frame import KernelText
from workbench.tactics.nvrtc.kernels import Variant, kernel, variants
from workbench.tactics.nvrtc.pointwise import followed_layouts
from workbench.tactics.nvrtc.recurrence import recurrent_kernel
from workbench.tactics.nvrtc.weight_only import packed, weight_only_kernel


def alone(body: Body) -> KernelText:
    """A kernel whose threads do not talk to each other."""
    offered = variants(body)
    assert not isinstance(offered, Refusal), offered
    for v in offered:
        text = one_lane(body, v)
        if not isinstance(text, Refusal):
            return text
    raise AssertionError("no kernel can be run on the host")


def one_lane(body: Body, v: Variant) -> KernelText | Refusal:
    given = dict(v.parameters)
    if "threads" in given:
        return recurrent_kernel(body, 1, 1)
    if "columns" in given:
        return weight_only_kernel(body, given["columns"], 1)
    if given.get("lanes", 1) != 1 or v.layout != LINEAR:
        return Refusal("lanes talk to each other")
    return kernel(body, v)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_kernel_gives_what_the_reference_gives(name):
    body = OPERATORS[name]()
    values = sample_inputs(body, seed=0)
    text = alone(body)
    outputs = run_on_host(body, text, values, followed_layouts(body, LINEAR), LINEAR)
    result = expect(body, values).check(outputs)
    assert result.passed, result.message


def test_the_last_update_of_a_place_wins():
    body = OPERATORS["scatter_elements"]()
    data, places, updates = (i.name for i in body.inputs)
    values = {
        data: np.zeros((6, 3), np.float32),
        places: np.array([[1, 1, -1], [1, 0, 5], [2, 0, 5], [1, 3, 0]], np.int64),
        updates: np.arange(1, 13, dtype=np.float32).reshape(4, 3),
    }
    (y,) = run_on_host(body, alone(body), values, followed_layouts(body, LINEAR), LINEAR).values()
    assert y.tolist() == body.evaluate(values)[body.outputs[0]].tolist()


def test_top_k_puts_nan_above_all_and_equal_elements_in_order():
    body = OPERATORS["top_k"]()
    x = np.array([[1, np.nan, 3, 3, -1, np.inf, 3, 0, 2]] * 3, np.float32)
    values = {body.inputs[0].name: x}
    outputs = run_on_host(body, alone(body), values, followed_layouts(body, LINEAR), LINEAR)
    assert outputs[body.outputs[1]][0].tolist() == [1, 5, 2, 3]


def test_a_pointwise_kernel_is_as_wide_as_a_size_allows():
    """A plan's tactic was chosen at one size; another may divide into no such vectors."""

    def body(size: int) -> Body:
        d = Draft()
        return d.body(d("Relu", d.input(size)))

    chosen = variants(body(64))
    assert not isinstance(chosen, Refusal)
    assert dict(chosen[0].parameters)["vector"] == 4
    other = body(10)
    text = kernel(other, chosen[0])
    assert isinstance(text, KernelText)
    values = sample_inputs(other, seed=0)
    outputs = run_on_host(other, text, values, followed_layouts(other, LINEAR), LINEAR)
    assert expect(other, values).check(outputs).passed


SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 448.0, 464.0, 465.0, 57344.0, 61440.0, 1e30, 0.26)


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("kind", ["FP8", "FP8E5M2", "FP8E4M3FNUZ", "FP8E5M2FNUZ", "FP4", "E8M0"])
def test_casts_to_small_floats_round_clip_and_overflow_as_the_standard_says(kind, saturate):
    x = np.concatenate([SPECIAL, 10.0 ** np.linspace(-9, 9, 84)]).astype(np.float32)
    d = Draft()
    body = d.body(d("Cast", d.input(len(x)), to=DataType(kind), saturate=saturate))
    values = {body.inputs[0].name: x}
    (made,) = run_on_host(
        body, alone(body), values, followed_layouts(body, LINEAR), LINEAR
    ).values()
    wanted = body.evaluate(values)[body.outputs[0]]
    assert np.array_equal(made.astype(np.float32), wanted.astype(np.float32), equal_nan=True)


def test_two_weights_share_a_byte_the_earlier_one_below():
    matrix = np.array([[1, -1], [-8, 7]]).astype(DataType.INT4.numpy)
    assert packed("nibbles of rows", matrix).tolist() == [[9 | 7 << 4], [0 | 15 << 4]]
    assert packed("nibbles of columns", matrix).tolist() == [[9 | 0 << 4], [7 | 15 << 4]]


def test_what_has_no_kernel_for_4_bit_weights_says_why():
    d = Draft()
    x, w = d.input(2, 20, dtype=HALF), d.weight(20, 3, dtype=DataType.INT4)
    scale = d.weight(3, dtype=HALF)
    body = d.body(d.anchored("MatMul", x, d("DequantizeLinear", w, scale, axis=1)))
    refusal = weight_only_kernel(body, 4)
    assert isinstance(refusal, Refusal) and "words of 8" in refusal.reason


ABOVE_INT64 = np.array([0, 1, 2**63 - 1, 2**63, 2**63 + 5, 2**64 - 1, 7, 10], np.uint64)
ALSO_ABOVE = np.array([2**63, 3, 5, 2**64 - 2, 2**63 + 7, 2, 9, 3], np.uint64)
UNSIGNED: dict[str, dict[str, Any]] = {
    **{op: {} for op in ("Max", "Min", "Greater", "LessOrEqual", "Add", "Mul")},
    **{op: {} for op in ("Abs", "Sign", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1")},
    **{op: {"axis": 0} for op in ("ArgMax", "ArgMin")},
    "Cast": {"to": DataType.DOUBLE},
}


@pytest.mark.parametrize("op", UNSIGNED)
def test_unsigned_numbers_of_64_bits_are_no_signed_ones(op):
    d = Draft()
    pair = op in ("Max", "Min", "Greater", "LessOrEqual", "Add", "Mul")
    xs = [d.input(8, dtype=DataType.UINT64) for _ in range(1 + pair)]
    rows = op.startswith(("Reduce", "Arg"))
    body = d.body((d.anchored if rows else d)(op, *xs, **UNSIGNED[op]))
    values = dict(zip(xs, (ABOVE_INT64, ALSO_ABOVE), strict=False))
    outputs = run_on_host(body, alone(body), values, followed_layouts(body, LINEAR), LINEAR)
    wanted = body.evaluate(values)[body.outputs[0]]
    assert np.array_equal(outputs[body.outputs[0]], wanted)


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_of_unsigned_numbers_of_64_bits_is_of_unsigned_ones(largest):
    d = Draft()
    x, k = d.input(8, dtype=DataType.UINT64), d.literal([3], "int64")
    d.anchor = len(d.nodes)
    body = d.body(*d.many("TopK", x, k, outputs=2, largest=largest))
    values = {x: ABOVE_INT64}
    outputs = run_on_host(body, alone(body), values, followed_layouts(body, LINEAR), LINEAR)
    wanted = body.evaluate(values)
    assert all(np.array_equal(outputs[o], wanted[o]) for o in body.outputs)


def test_a_number_beyond_int64_becomes_an_unsigned_one():
    x = np.array([0.0, 3.7, 2.0**63, 1.5 * 2.0**63], np.float32)
    d = Draft()
    body = d.body(d("Cast", d.input(4), to=DataType.UINT64))
    values = {body.inputs[0].name: x}
    (y,) = run_on_host(body, alone(body), values, followed_layouts(body, LINEAR), LINEAR).values()
    assert y.tolist() == [0, 3, 2**63, 3 * 2**62]
