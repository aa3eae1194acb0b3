"""Pointwise operators: ONNX's semantics, and bounds that catch a wrong result."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx_peer import against_peer, four_bounds_off, normal, one_node, peer

from workbench import dimensions
from workbench.body import Body, BodyInput, Node, TensorType, infer_node
from workbench.checks import check_outputs
from workbench.datatypes import DataType
from workbench.errors import InferenceError, NetworkError
from workbench.operators import operator_named
from workbench.operators.special import erf

FEW = settings(max_examples=25, deadline=None)
FLOAT, INT64 = DataType.FLOAT, DataType.INT64
SIGNED = (np.int8, np.int32, np.int64)
ONNX_TYPES = {
    np.float32: TensorProto.FLOAT,
    np.float64: TensorProto.DOUBLE,
    np.float16: TensorProto.FLOAT16,
    ml_dtypes.bfloat16: TensorProto.BFLOAT16,
    np.int8: TensorProto.INT8,
    np.uint8: TensorProto.UINT8,
    np.int32: TensorProto.INT32,
    np.int64: TensorProto.INT64,
    np.bool_: TensorProto.BOOL,
}


@st.composite
def broadcasting(draw, count=2):
    """Shapes that broadcast against each other."""
    full = draw(st.lists(st.integers(1, 4), max_size=4))
    shapes = []
    for _ in range(count):
        shape = [d if draw(st.booleans()) else 1 for d in full]
        shapes.append(tuple(shape[draw(st.integers(0, len(shape))) :]))
    return shapes


def whole(seed, *shape, dtype=np.int32, low=-9, high=9):
    """Random integers of this shape."""
    return np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(dtype)


def result_of(op, inputs, attributes=None):
    body, values = one_node(op, inputs, attributes)
    return body.evaluate(values)["o0"]


# -- arithmetic ---------------------------------------------------------------------------
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"])
@FEW
@given(broadcasting(), st.integers(0, 99))
def test_float_arithmetic_broadcasts_as_onnx_runtime_does(op, shapes, seed):
    x, y = (np.asarray(normal(seed + i, *s)) for i, s in enumerate(shapes))
    if op == "Pow":
        x = np.asarray(np.abs(x) + np.float32(0.1))
    result = against_peer(op, [x, y])
    assert result.passed, result.message


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Mod", "Min", "Max"])
@FEW
@given(broadcasting(), st.integers(0, 99), st.sampled_from((np.int32, np.int64)))
def test_integer_arithmetic_agrees_with_onnx_runtime(op, shapes, seed, dtype):
    x, y = (np.asarray(whole(seed + i, *s, dtype=dtype)) for i, s in enumerate(shapes))
    if op in ("Div", "Mod"):
        y = np.asarray(np.where(y == 0, 3, y)).astype(dtype)
    (theirs,) = peer(op, [x, y])
    np.testing.assert_array_equal(result_of(op, [x, y]), theirs)


def test_integer_division_truncates_toward_zero():
    x, y = np.array([7, -7, 7, -7, 6]), np.array([2, 2, -2, -2, -3])
    assert result_of("Div", [x, y]).tolist() == [3, -3, -3, 3, -2]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_fmod_takes_the_sign_of_the_dividend(dtype):
    x, y = np.array([7, -7, 7, -7], dtype), np.array([3, 3, -3, -3], dtype)
    (theirs,) = peer("Mod", [x, y], {"fmod": 1})
    np.testing.assert_array_equal(result_of("Mod", [x, y], {"fmod": 1}), theirs)
    assert theirs.tolist() == [1, -1, 1, -1]


def test_mod_of_floats_has_the_sign_of_the_divisor_without_fmod():
    x = np.array([-4.5, 4.5, 7.0, -3.0], np.float32)
    y = np.array([2.0, -2.0, np.inf, np.inf], np.float32)
    body, values = one_node("Mod", (x, y), {"fmod": 0})
    assert body.evaluate(values)["o0"].tolist() == [1.5, -1.5, 7.0, np.inf]


@pytest.mark.parametrize("exponent", [np.float32(3), np.int64(2), np.int32(3)])
def test_powers_of_another_exponent_type_keep_the_base_type(exponent):
    x = normal(0, 3, 4)
    result = against_peer("Pow", [x, np.asarray(exponent)])
    assert result.passed, result.message
    assert result_of("Pow", [x, np.asarray(exponent)]).dtype == np.float32


@pytest.mark.parametrize("op", ["Sum", "Mean", "Min", "Max"])
@FEW
@given(broadcasting(3), st.integers(1, 3))
def test_variadic_operators_take_any_number_of_inputs(op, shapes, count):
    inputs = [np.asarray(normal(i, *s)) for i, s in enumerate(shapes[:count])]
    result = against_peer(op, inputs)
    assert result.passed, result.message


def test_shapes_that_do_not_broadcast_are_refused_with_both():
    x, y = TensorType(FLOAT, (2, 3)), TensorType(FLOAT, (2, 4))
    with pytest.raises(InferenceError, match=r"Add 'z': .*\(2, 3\) and \(2, 4\).*3 against 4"):
        infer_node(operator_named("Add"), {}, (x, y), (None, None), place="Add 'z'")


def test_two_types_are_refused_with_both():
    x, y = TensorType(FLOAT, (2,)), TensorType(DataType.HALF, (2,))
    with pytest.raises(InferenceError, match="input 0 is FLOAT, input 1 is HALF; cast"):
        infer_node(operator_named("Mul"), {}, (x, y), (None, None))


# -- elementary functions and activations -------------------------------------------------
PLAIN = (
    *("Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Exp", "Erf", "Sin", "Cos", "Tan", "Atan"),
    *("Sinh", "Cosh", "Asinh", "Relu", "Tanh", "Sigmoid", "Softplus", "Softsign", "HardSwish"),
    *("Mish", "Gelu", "Elu", "Selu", "Celu", "LeakyRelu", "ThresholdedRelu", "HardSigmoid"),
    *("Identity", "Reciprocal"),
)
POSITIVE = ("Sqrt", "Log")
INSIDE = ("Asin", "Acos", "Atanh")


@pytest.mark.parametrize("op", [*PLAIN, *POSITIVE, *INSIDE, "Acosh"])
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.01, 1.0, 8.0]))
def test_functions_of_one_element_agree_with_onnx_runtime(op, seed, scale):
    x = normal(seed, 3, 17) * np.float32(scale)
    if op in POSITIVE:
        x = np.abs(x)
    if op in INSIDE:
        x = np.float32(0.99) * np.tanh(x)
    if op == "Acosh":
        x = 1 + np.abs(x)
    result = against_peer(op, [x])
    assert result.passed, result.message


@pytest.mark.parametrize("op", ["Neg", "Abs", "Sign", "Relu"])
def test_functions_of_integers_stay_integers(op):
    x = whole(0, 20)
    np.testing.assert_array_equal(result_of(op, [x]), peer(op, [x])[0])


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("LeakyRelu", {"alpha": 0.3}),
        ("Elu", {"alpha": 2.0}),
        ("Celu", {"alpha": 0.5}),
        ("Selu", {"alpha": 1.5, "gamma": 0.7}),
        ("HardSigmoid", {"alpha": 0.5, "beta": 0.1}),
        ("ThresholdedRelu", {"alpha": 0.25}),
        ("Gelu", {"approximate": "tanh"}),
    ],
)
def test_attributes_of_activations_are_honoured(op, attributes):
    result = against_peer(op, [3 * normal(0, 40)], attributes)
    assert result.passed, result.message


def test_swish_multiplies_by_the_sigmoid():
    x = 4 * normal(0, 50)
    expected = x / (1 + np.exp(-2.0 * x.astype(np.float64)))
    np.testing.assert_allclose(result_of("Swish", [x], {"alpha": 2.0}), expected, rtol=1e-6)


def test_round_goes_to_even():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    assert result_of("Round", [x]).tolist() == [0, 2, 2, 0, -2]


def test_activations_do_not_overflow_far_from_zero():
    x = np.array([-1e4, 1e4, -np.inf, np.inf], np.float32)
    assert result_of("Sigmoid", [x]).tolist() == [0, 1, 0, 1]
    assert result_of("Softplus", [x]).tolist() == [0, 1e4, 0, np.inf]
    assert result_of("Elu", [x]).tolist() == [-1, 1e4, -1, np.inf]


def test_the_error_function_is_correct_to_the_last_bits():
    x = np.concatenate([np.linspace(-7, 7, 4001), [1e-300, -0.0, np.inf, -np.inf]])
    expected = np.array([math.erf(v) for v in x])
    np.testing.assert_allclose(erf(x), expected, rtol=1e-15, atol=0)
    assert np.isnan(erf(np.array([np.nan]))).all()


@FEW
@given(st.booleans(), st.booleans(), st.sampled_from((np.float32, np.int32, np.int64)))
def test_clip_agrees_with_onnx_runtime(lower, upper, dtype):
    x = np.asarray(3 * normal(0, 4, 5)).astype(dtype)
    low = np.asarray(-1, dtype) if lower else None
    high = np.asarray(2, dtype) if upper else None
    if lower or upper:
        (theirs,) = peer("Clip", [x, low, high])
    else:
        theirs = x
    np.testing.assert_array_equal(result_of("Clip", [x, low, high]), theirs)


def test_clip_with_crossed_limits_gives_the_upper_one():
    x = np.array([-5, 0, 5], np.float32)
    assert result_of("Clip", [x, np.float32(3), np.float32(1)]).tolist() == [1, 1, 1]


@pytest.mark.parametrize("shape", [(1,), (3, 1, 1), (4,)])
def test_prelu_broadcasts_its_slope(shape):
    result = against_peer("PRelu", [normal(0, 2, 3, 4, 4), normal(1, *shape)])
    assert result.passed, result.message


def test_prelu_refuses_a_slope_that_would_widen_the_input():
    x, slope = TensorType(FLOAT, (2, 1)), TensorType(FLOAT, (2, 4))
    with pytest.raises(InferenceError, match="does not broadcast to the input"):
        infer_node(operator_named("PRelu"), {}, (x, slope), (None, None))


# -- comparisons, logic, choices ----------------------------------------------------------
@pytest.mark.parametrize("op", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
@FEW
@given(broadcasting(), st.sampled_from((np.float32, np.int32, np.int64)))
def test_comparisons_agree_with_onnx_runtime(op, shapes, dtype):
    x, y = (np.asarray(whole(i, *s, dtype=dtype, low=0, high=2)) for i, s in enumerate(shapes))
    np.testing.assert_array_equal(result_of(op, [x, y]), peer(op, [x, y])[0])


@pytest.mark.parametrize("op", ["And", "Or", "Xor", "Equal"])
@FEW
@given(broadcasting())
def test_logic_agrees_with_onnx_runtime(op, shapes):
    x, y = (np.asarray(whole(i, *s, low=0, high=1)).astype(np.bool_) for i, s in enumerate(shapes))
    np.testing.assert_array_equal(result_of(op, [x, y]), peer(op, [x, y])[0])


@pytest.mark.parametrize("op", ["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
def test_bitwise_operators_agree_with_onnx_runtime(op):
    x, y = whole(0, 30), whole(1, 30)
    np.testing.assert_array_equal(result_of(op, [x, y]), peer(op, [x, y])[0])


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_bit_shift_agrees_with_onnx_runtime(direction):
    x, y = (
        whole(0, 20, dtype=np.uint8, low=0, high=255),
        whole(1, 20, dtype=np.uint8, low=0, high=7),
    )
    attributes = {"direction": direction}
    (theirs,) = peer("BitShift", [x, y], attributes)
    np.testing.assert_array_equal(result_of("BitShift", [x, y], attributes), theirs)


def test_special_values_are_recognised():
    x = np.array([0, np.nan, np.inf, -np.inf, 3], np.float32)
    assert result_of("IsNaN", [x]).tolist() == [False, True, False, False, False]
    assert result_of("IsInf", [x]).tolist() == [False, False, True, True, False]
    attributes = {"detect_negative": 0}
    np.testing.assert_array_equal(
        result_of("IsInf", [x], attributes), peer("IsInf", [x], attributes)[0]
    )
    assert result_of("Not", [np.array([True, False])]).tolist() == [False, True]


@FEW
@given(broadcasting(3))
def test_where_agrees_with_onnx_runtime(shapes):
    condition = np.asarray(whole(0, *shapes[0], low=0, high=1)).astype(np.bool_)
    x, y = (np.asarray(normal(i, *s)) for i, s in enumerate(shapes[1:], 1))
    result = against_peer("Where", [condition, x, y])
    assert result.passed, result.message


def test_where_needs_a_condition_of_bools():
    x = TensorType(FLOAT, (2,))
    with pytest.raises(InferenceError, match="the condition is FLOAT, needs BOOL"):
        infer_node(operator_named("Where"), {}, (x, x, x), (None,) * 3)


def test_dropout_passes_its_input_through_with_a_mask_of_ones():
    x = normal(0, 2, 3)
    body, values = one_node("Dropout", [x, np.float32(0.5)], outputs=2)
    results = body.evaluate(values)
    np.testing.assert_array_equal(results["o0"], x)
    assert results["o1"].all()
    assert check_outputs(body, values, results).passed


@pytest.mark.parametrize("training", [True, False])
def test_dropout_in_training_zeroes_a_share_and_scales_the_rest(training: bool):
    x = np.ones((400, 50), np.float32)
    inputs = [x, np.array(0.25, np.float32), np.array(training)]
    body, values = one_node("Dropout", inputs, {"seed": 7}, outputs=2)
    first, again = body.evaluate(values), body.evaluate(values)
    y, mask = first["o0"], first["o1"]
    assert np.array_equal(y, again["o0"])
    if not training:
        assert np.array_equal(y, x)
        assert mask.all()
        return
    assert abs(mask.mean() - 0.75) < 0.02
    np.testing.assert_allclose(y, np.where(mask, np.float32(4 / 3), 0), rtol=1e-6)
    drawn = np.random.RandomState(7).uniform(0, 1, x.shape) >= 0.25
    assert np.array_equal(mask, drawn)


# -- Cast ---------------------------------------------------------------------------------
@pytest.mark.parametrize("to", ONNX_TYPES)
@pytest.mark.parametrize("given_type", ONNX_TYPES)
def test_casts_agree_with_onnx_runtime(given_type, to):
    x = np.array([0, 1, 2.5, 3.7, 5.5, 100.2, 0.3], np.float32).astype(given_type)
    if np.dtype(given_type).kind in "fi" and np.dtype(to).kind != "u":
        x = np.concatenate([x, -x])
    if ml_dtypes.bfloat16 in (given_type, to):
        theirs = x.astype(to)  # NumPy has no bfloat16 to give to the peer.
    else:
        (theirs,) = peer("Cast", [x], {"to": ONNX_TYPES[to]})
    ours = result_of("Cast", [x], {"to": DataType.of(np.dtype(to))})
    assert ours.dtype == np.dtype(to)
    np.testing.assert_array_equal(ours, theirs)


def test_casts_to_float8_saturate_unless_told_otherwise():
    x = np.array([1e6, -1e6, np.inf, 1.1], np.float32)
    assert result_of("Cast", [x], {"to": DataType.FP8}).astype(float).tolist() == [
        *(448, -448, 448),
        1.125,
    ]
    loose = result_of("Cast", [x], {"to": DataType.FP8, "saturate": 0}).astype(float)
    assert np.isnan(loose[:3]).all()


def test_powers_of_two_round_as_round_mode_says():
    x = np.array([1.0, 1.2, 3.9, 0.26], np.float32)
    up, down, nearest = (
        result_of("Cast", [x], {"to": DataType.E8M0, "round_mode": mode}).astype(float).tolist()
        for mode in ("up", "down", "nearest")
    )
    assert up == [1, 2, 4, 0.5]
    assert down == [1, 1, 2, 0.25]
    assert nearest == [1, 1, 4, 0.25]


def test_a_cast_keeps_its_error_and_adds_the_rounding_of_its_type():
    x = normal(0, 50)
    body, values = one_node("Cast", [x], {"to": DataType.HALF})
    exact, bound = body.exact(values)["o0"]
    np.testing.assert_array_equal(exact, x.astype(np.float64))
    assert (bound <= 2.0**-10 * np.abs(exact) + 1e-7).all()
    assert check_outputs(body, values, {"o0": x.astype(np.float16)}).passed
    assert not check_outputs(body, values, {"o0": (x * 1.01).astype(np.float16)}).passed


# -- symbolic sizes -----------------------------------------------------------------------
BATCH = dimensions.symbol("batch")


def sizes(*values):
    out = np.empty(len(values), object)
    out[:] = values
    return out


def known(op, *values, **attributes):
    """The value that inference knows of ``op`` on vectors of sizes, or None."""
    row = operator_named(op)
    types = tuple(TensorType(INT64 if v.dtype != bool else DataType.BOOL, v.shape) for v in values)
    (result,) = infer_node(row, row.complete(attributes), types, values)[1]
    return None if result is None else result.tolist()


def test_arithmetic_on_sizes_stays_symbolic():
    x, two = sizes(BATCH * 6, 4), np.array([2, 3])
    assert known("Add", x, two) == [BATCH * 6 + 2, 7]
    assert known("Mul", x, two) == [BATCH * 12, 12]
    assert known("Div", x, two) == [BATCH * 3, 1]
    assert known("Mod", x, two) == [0, 1]
    assert known("Max", x, two) == [dimensions.maximum(BATCH * 6, 2), 4]
    assert known("Cast", x, to=DataType.INT32) == [BATCH * 6, 4]
    assert known("Neg", x) == [BATCH * -6, -4]
    assert known("Cast", x, to=FLOAT) is None


def test_a_size_divided_by_itself_is_one_and_by_zero_unknown():
    x = sizes(BATCH)
    assert known("Div", x, x) == [1]
    assert known("Div", x, np.array([0])) is None


def test_comparisons_of_sizes_are_answered_only_when_every_size_agrees():
    x = sizes(BATCH, 3)
    assert known("Equal", x, np.array([-1, 3])) == [False, True]
    assert known("Equal", x, np.array([1, 3])) is None
    assert known("Equal", x, x) == [True, True]
    assert known("Less", x, sizes(BATCH + 1, 2)) == [True, False]
    assert known("GreaterOrEqual", x, np.array([0, 4])) == [True, False]
    assert known("Greater", x, np.array([0, 4])) is None


def test_the_exporters_choice_between_a_size_and_minus_one_is_decided():
    shape, ones = sizes(BATCH, -1), np.array([1, 1])
    minus = known("Equal", shape, np.array([-1, -1]))
    assert known("Where", np.array(minus), ones, shape) == [BATCH, 1]


# -- bounds -------------------------------------------------------------------------------
UNARY = (*PLAIN, *POSITIVE, *INSIDE, "Swish")
FLOATS = (np.float32, np.float16, ml_dtypes.bfloat16)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", UNARY)
def test_typed_results_lie_within_the_bound_and_four_bounds_do_not(op, dtype):
    x = normal(1, 60)
    x = (np.abs(x) if op in POSITIVE else np.tanh(x) if op in INSIDE else x).astype(dtype)
    body, values = one_node(op, [x])
    result = check_outputs(body, values, body.evaluate(values))
    assert result.passed, result.message
    assert not four_bounds_off(body, values).passed


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mean", "PRelu"])
def test_binary_results_lie_within_the_bound_and_four_bounds_do_not(op, dtype):
    x, y = np.abs(normal(1, 4, 5)).astype(dtype), normal(2, 4, 5).astype(dtype)
    body, values = one_node(op, [x, y])
    result = check_outputs(body, values, body.evaluate(values))
    assert result.passed, result.message
    assert not four_bounds_off(body, values).passed


@pytest.mark.parametrize("op", [*UNARY, "Clip", "Cast"])
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1e-3, 0.3, 3.0]))
def test_an_error_of_the_input_stays_within_the_bound_of_the_output(op, seed, size):
    """The input error comes from rounding a first layer to bfloat16, blown up by ``size``."""
    row = operator_named(op)
    attributes = row.complete({"to": DataType.INT32} if op == "Cast" else {})
    x = 3 * normal(seed, 200, dtype=np.float64)
    x = np.abs(x) if op in POSITIVE else np.tanh(x) if op in INSIDE else x
    e = size * np.abs(normal(seed + 1, 200, dtype=np.float64))
    shifts = np.random.default_rng(seed).uniform(-1, 1, (20, 200)) * e
    low = {"Sqrt": 0.0, "Log": 1e-9}.get(op, -1.0 if op in INSIDE else -np.inf)
    moved = np.clip(x + shifts, low, 1.0 if op in INSIDE else np.inf)
    limits = [np.float64(-1), np.float64(2)] if op == "Clip" else []
    with np.errstate(all="ignore"):
        (y,) = row.reference(attributes, [x, *limits])
        (near,) = row.reference(attributes, [moved, *limits])
        (bound,) = row.bound(attributes, [x, *limits], [e, *(0.0 for _ in limits)], [y], 2.0**-24)
        gap = np.abs(near.astype(np.float64) - y)
    assert (gap <= bound * (1 + 1e-12) + 1e-12).all()


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mean", "PRelu"])
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1e-3, 0.3]))
def test_errors_of_both_inputs_stay_within_the_bound_of_the_output(op, seed, size):
    row = operator_named(op)
    random = np.random.default_rng(seed)
    x, y = 2 * normal(seed, 2, 200, dtype=np.float64)
    x = np.abs(x) + 1 if op == "Pow" else x
    e = size * np.abs(normal(seed + 1, 2, 200, dtype=np.float64))
    near_x, near_y = (
        v + random.uniform(-1, 1, (20, 200)) * d for v, d in zip((x, y), e, strict=True)
    )
    with np.errstate(all="ignore"):
        (out,) = row.reference({}, [x, y])
        (near,) = row.reference({}, [near_x, near_y])
        (bound,) = row.bound({}, [x, y], list(e), [out], 2.0**-24)
    assert (np.abs(near - out) <= bound * (1 + 1e-12) + 1e-12).all()


def test_a_comparison_of_nearly_equal_sums_may_go_either_way():
    x = TensorType(FLOAT, (2,))
    add, less = operator_named("Add"), operator_named("Less")
    body = Body(
        tuple(BodyInput(n, x) for n in "abc"),
        (Node(add, ("a", "b"), ("s",), {}), Node(less, ("s", "c"), ("o",), {})),
        ("o",),
    )
    a, b = np.array([1, 1], np.float32), np.array([1e-8, 1], np.float32)
    values = {"a": a, "b": b, "c": np.array([1, 9], np.float32)}
    assert body.exact(values)["o"][1].tolist() == [1, 0]


def test_unknown_sizes_are_an_error_only_where_they_are_needed():
    with pytest.raises(NetworkError, match="has no attribute"):
        operator_named("Add").complete({"axis": 1})
