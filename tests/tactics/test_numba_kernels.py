"""NUMBA's kernel families on generated shapes: every scalar rule, windows, copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tactic_bodies import BOOL, FLOAT, INT8, INT32, INT64, Draft, problem_of

from workbench.checks import check_outputs
from workbench.datatypes import DataType
from workbench.formats import FORMATS
from workbench.records import Refusal
from workbench.tactics.launch import run_once
from workbench.tactics.numba import NUMBA
from workbench.tactics.numba.scalars import RULES

UNARY = (
    "Abs Neg Sign Floor Ceil Round Exp Erf Tanh Sigmoid Softplus Sin Cos Atan Sinh Cosh Asinh "
    "Relu LeakyRelu ThresholdedRelu Elu Selu Celu Softsign HardSigmoid HardSwish Mish Swish Gelu "
    "Identity"
).split()
POSITIVE = "Sqrt Log Reciprocal".split()
TESTED = "IsNaN IsInf".split()
BINARY = "Add Sub Mul Max Min Sum Mean PRelu".split()
COMPARED = "Equal Less LessOrEqual Greater GreaterOrEqual".split()
LOGIC = "And Or Xor".split()
BITS = "BitwiseAnd BitwiseOr BitwiseXor".split()
BOUNDED = "Asin Acos Atanh Tan".split()


def assert_every_tactic_is_correct(body, **problem_options):
    problem, dynamic, values = problem_of(body, **problem_options)
    offers = NUMBA.candidates(problem)
    tactics = [t for t in offers if not isinstance(t, Refusal)]
    assert tactics, offers
    for t in tactics:
        call = NUMBA.prepare(t, problem)
        result = check_outputs(body, values, run_once(call, t, problem, dynamic))
        assert result.passed, f"{t.title}: {result.message}"


def many(ops, *inputs, d):
    return d.body(*(d(op, *inputs) for op in ops))


def test_every_unary_rule_is_within_the_bound():
    d = Draft()
    assert_every_tactic_is_correct(many([*UNARY, *TESTED], d.input(3, 97), d=d))


def test_rules_of_positive_and_of_bounded_arguments_are_within_the_bound():
    d = Draft()
    x = d("Add", d("Abs", d.input(3, 97)), d.literal(0.5))
    assert_every_tactic_is_correct(many(POSITIVE, x, d=d))
    d = Draft()
    y = d("Mul", d("Tanh", d.input(3, 97)), d.literal(0.9))
    assert_every_tactic_is_correct(many(BOUNDED, y, d=d))
    d = Draft()
    assert_every_tactic_is_correct(
        d.body(d("Acosh", d("Add", d("Abs", d.input(50)), d.literal(1.5))))
    )


def test_every_binary_rule_is_within_the_bound():
    d = Draft()
    x, y = d.input(3, 41), d.input(3, 41)
    assert_every_tactic_is_correct(many([*BINARY, *COMPARED], x, y, d=d))
    d = Draft()
    x, y = d.input(3, 41), d("Add", d("Abs", d.input(3, 41)), d.literal(0.5))
    assert_every_tactic_is_correct(d.body(d("Div", x, y), d("Mod", x, y, fmod=1)))


@pytest.mark.parametrize("dtype", [INT8, INT32, INT64], ids=str)
def test_integer_rules_are_exact(dtype):
    d = Draft()
    x, y = d.input(60, dtype=dtype), d.input(60, dtype=dtype)
    one = d.literal(7, dtype.numpy.name)
    outputs = [d(op, x, y) for op in ("Max", "Min", *COMPARED, *BITS)]
    outputs += [d("BitwiseNot", x), d("Sign", x), d("Div", x, one), d("Mod", x, one)]
    assert_every_tactic_is_correct(d.body(*outputs))


def test_logic_and_choices_are_exact():
    d = Draft()
    a, b, x, y = (d.input(60, dtype=t) for t in (BOOL, BOOL, FLOAT, FLOAT))
    outputs = [*(d(op, a, b) for op in LOGIC), d("Not", a), d("Where", a, x, y)]
    assert_every_tactic_is_correct(d.body(*outputs))


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.5, 1.0, 1.7])
def test_powers_by_a_literal_are_within_the_bound(exponent):
    d = Draft()
    x = d("Add", d("Abs", d.input(50)), d.literal(0.25))
    assert_every_tactic_is_correct(d.body(d("Pow", x, d.literal(exponent))))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_both_forms_of_gelu_are_within_the_bound(approximate):
    d = Draft()
    assert_every_tactic_is_correct(d.body(d("Gelu", d.input(300), approximate=approximate)))


def test_no_rule_is_left_untested():
    elsewhere = {"Cast", "Clip", "Div", "Mod", "Pow", "Not", "Where", "BitwiseNot", "Acosh"}
    tested = {*UNARY, *POSITIVE, *TESTED, *BINARY, *COMPARED, *LOGIC, *BITS, *BOUNDED}
    assert tested | elsewhere == set(RULES)


def test_nan_passes_through_as_in_the_reference():
    d = Draft()
    x = d.input(64)
    body = many(["Relu", "Tanh", "Sigmoid", "Exp", "Gelu", "Max"], x, d=d)
    problem, dynamic, values = problem_of(body)
    (name,) = dynamic
    values[name][::3] = np.nan
    tactic = NUMBA.candidates(problem)[0]
    out = run_once(NUMBA.prepare(tactic, problem), tactic, problem, {name: values[name]})
    for y in out.values():
        np.testing.assert_array_equal(np.isnan(y), np.isnan(values[name]))


sizes = st.integers(5, 12)
pads = st.integers(0, 1)


@settings(max_examples=15, deadline=None)
@given(sizes, sizes, pads, pads, st.integers(2, 35), st.booleans())
def test_pools_of_any_image_are_within_the_bound(height, width, top, left, channels, average):
    d = Draft()
    op = "AveragePool" if average else "MaxPool"
    x = d.input(2, channels, height, width)
    y = d.anchored(op, x, kernel_shape=(3, 2), strides=(2, 1), pads=(top, left, 1, 0))
    assert_every_tactic_is_correct(d.body(y))


@settings(max_examples=15, deadline=None)
@given(sizes, sizes, pads, pads, st.integers(2, 35))
def test_depthwise_convolutions_of_any_image_are_within_the_bound(
    height, width, top, left, channels
):
    d = Draft()
    x, w = d.input(2, channels, height, width), d.weight(channels, 1, 3, 2)
    y = d.anchored(
        "Conv", x, w, d.weight(channels), pads=(top, left, 1, 0), strides=(1, 2), group=channels
    )
    assert_every_tactic_is_correct(d.body(d("Relu", y)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.randoms(), st.sampled_from("124"))
def test_any_transposition_moves_every_element(shape, random, width):
    dtype = {"1": INT8, "2": DataType.BF16, "4": FLOAT}[width]
    perm = random.sample(range(len(shape)), len(shape))
    d = Draft()
    body = d.body(d("Transpose", d.input(*shape, dtype=dtype), perm=tuple(perm)))
    problem, dynamic, values = problem_of(body)
    for t in NUMBA.candidates(problem):
        if isinstance(t, Refusal):
            assert t.code in ("plain_copy", "loops")
            continue
        (out,) = run_once(NUMBA.prepare(t, problem), t, problem, dynamic).values()
        assert out.tobytes() == values["x0"].transpose(perm).tobytes()


def test_large_transpositions_use_whole_blocks_and_their_rests():
    d = Draft()
    assert_every_tactic_is_correct(d.body(d("Transpose", d.input(3, 77, 150), perm=(0, 2, 1))))


def test_concat_runs_in_every_layout_where_groups_are_whole():
    d = Draft()
    parts = [d.input(2, c, 3, 3) for c in (16, 32, 5)]
    problem, _, _ = problem_of(d.body(d("Concat", *parts, axis=1)))
    assert {t.outputs[0] for t in NUMBA.candidates(problem)} == set(FORMATS)
