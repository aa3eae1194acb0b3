"""Shapes as data: sizes flow through inference, symbolic ones too, and at run time as numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx_peer import against_peer, normal, one_node, peer

from workbench import dimensions
from workbench.body import CONSTANT, Body, BodyInput, Literal, Node, TensorType, infer, infer_node
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators import operator_named

FEW = settings(max_examples=20, deadline=None)
FLOAT, INT64 = DataType.FLOAT, DataType.INT64
BATCH, TOKENS = dimensions.symbol("batch"), dimensions.symbol("tokens")


def constant(name, *values):
    return Node(CONSTANT, (), (name,), {"value": Literal.of(np.array(values, np.int64))})


def scalar(name, value):
    return Node(CONSTANT, (), (name,), {"value": Literal.of(np.array(value, np.int64))})


def node(op, inputs, outputs, **attributes):
    row = operator_named(op)
    return Node(row, tuple(inputs.split()), tuple(outputs.split()), row.complete(attributes))


# -- each operator ------------------------------------------------------------------------
@FEW
@given(st.lists(st.integers(0, 4), max_size=4), st.data())
def test_shape_agrees_with_onnx_runtime(shape, data):
    limits = st.integers(-5, 5)
    attributes = {"start": data.draw(limits), "end": data.draw(limits | st.none())}
    result = against_peer("Shape", [np.zeros(shape, np.float32)], attributes)
    assert result.passed, result.message


def test_size_counts_elements():
    result = against_peer("Size", [normal(0, 3, 4)])
    assert result.passed, result.message


@FEW
@given(st.lists(st.integers(0, 3), max_size=3), st.sampled_from((np.float32, np.int64, np.bool_)))
def test_constant_of_shape_agrees_with_onnx_runtime(shape, dtype):
    value = np.array([1], dtype)
    body, values = one_node("ConstantOfShape", [np.array(shape, np.int64)], {"value": value})
    attributes = {"value": numpy_helper.from_array(value)}
    (theirs,) = peer("ConstantOfShape", [np.array(shape, np.int64)], attributes)
    ours = body.evaluate(values)["o0"]
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def test_constant_of_shape_is_zeros_when_no_value_is_given():
    body, values = one_node("ConstantOfShape", [np.array([2, 1])])
    zeros = body.evaluate(values)["o0"]
    assert zeros.dtype == np.float32
    assert zeros.tolist() == [[0], [0]]


@FEW
@given(st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([1, 2, -1, -3, 5]), st.booleans())
def test_range_agrees_with_onnx_runtime(start, limit, step, real):
    inputs = [np.asarray(v, np.float32 if real else np.int64) for v in (start, limit, step)]
    inputs = [np.asarray(v / np.float32(4)) for v in inputs] if real else inputs
    result = against_peer("Range", inputs)
    assert result.passed, result.message


def test_range_refuses_a_step_of_zero():
    types = (TensorType(INT64, ()),) * 3
    with pytest.raises(InferenceError, match="delta is 0"):
        infer_node(operator_named("Range"), {}, types, tuple(np.array(v) for v in (0, 3, 0)))


@pytest.mark.parametrize("k", [-1, 0, 2])
def test_eye_like_agrees_with_onnx_runtime(k):
    result = against_peer("EyeLike", [normal(0, 3, 4)], {"k": k})
    assert result.passed, result.message


# -- sizes through a network --------------------------------------------------------------
def test_shape_gather_concat_reshape_infers_symbolic_sizes():
    types, values = infer(
        (
            node("Shape", "x", "shape"),
            scalar("zero", 0),
            node("Gather", "shape zero", "n"),
            constant("axis", 0),
            node("Unsqueeze", "n axis", "n1"),
            constant("rest", 12, -1),
            node("Concat", "n1 rest", "target", axis=0),
            node("Reshape", "x target", "y"),
        ),
        {"x": TensorType(FLOAT, (BATCH, TOKENS, 768))},
    )
    assert values["target"].tolist() == [BATCH, 12, -1]
    assert types["y"].shape == (BATCH, 12, TOKENS * 64)


def test_the_exporters_transposed_key_keeps_rank_and_sizes():
    """As torch 2 writes Kᵀ: shape sliced apart, flattened to 3-D, transposed, shaped back."""
    largest, smallest = 2**63 - 1, -(2**63)
    types, _ = infer(
        (
            node("Shape", "k", "s"),
            constant("m1", -1),
            constant("m2", -2),
            constant("end", largest),
            constant("begin", smallest),
            node("Slice", "s m1 end", "a"),
            node("Slice", "s m2 m1", "b"),
            node("Slice", "s begin m2", "r"),
            node("Concat", "m1 b a", "flat", axis=0),
            node("Reshape", "k flat", "k3"),
            node("Transpose", "k3", "kt", perm=(0, 2, 1)),
            node("Concat", "r a b", "back", axis=0),
            node("Reshape", "kt back", "y"),
        ),
        {"k": TensorType(FLOAT, (BATCH, 12, TOKENS, 64))},
    )
    assert types["k3"].shape == (BATCH * 12, TOKENS, 64)
    assert types["y"].shape == (BATCH, 12, 64, TOKENS)


def test_the_exporters_mask_expands_to_symbolic_sizes():
    types, _ = infer(
        (
            node("Shape", "mask", "b", start=0, end=1),
            node("Shape", "mask", "t", start=1, end=2),
            constant("one", 1),
            constant("axes", 1, 2),
            node("Unsqueeze", "mask axes", "m4"),
            node("Concat", "b one t t", "target", axis=0),
            node("Expand", "m4 target", "y"),
        ),
        {"mask": TensorType(INT64, (BATCH, TOKENS))},
    )
    assert types["y"].shape == (BATCH, 1, TOKENS, TOKENS)


def test_arithmetic_on_sizes_reaches_a_reshape():
    types, _ = infer(
        (
            node("Shape", "x", "n", start=0, end=1),
            node("Shape", "x", "c", start=1, end=2),
            constant("heads", 4),
            node("Mul", "n heads", "nh"),
            node("Div", "c heads", "each"),
            node("Concat", "nh each", "target", axis=0),
            node("Reshape", "x target", "y"),
        ),
        {"x": TensorType(FLOAT, (BATCH, 32))},
    )
    assert types["y"].shape == (BATCH * 4, 8)


def test_the_size_of_a_symbolic_tensor_is_known_as_a_product():
    _, values = infer((node("Size", "x", "n"),), {"x": TensorType(FLOAT, (BATCH, 3, TOKENS))})
    assert values["n"].item() == BATCH * TOKENS * 3


def test_sums_and_products_of_sizes_are_known():
    _, values = infer(
        (
            node("Shape", "x", "shape"),
            node("ReduceProd", "shape", "product", keepdims=0),
            node("ReduceSum", "shape", "sum"),
        ),
        {"x": TensorType(FLOAT, (BATCH, 3, TOKENS))},
    )
    assert values["product"].item() == BATCH * TOKENS * 3
    assert values["sum"].tolist() == [BATCH + TOKENS + 3]


def test_scaled_sizes_are_known_where_they_are_numbers():
    scale = Node(CONSTANT, (), ("scale",), {"value": Literal.of(np.array(2.5, np.float32))})
    _, values = infer(
        (
            node("Shape", "x", "shape", start=1),
            node("Cast", "shape", "real", to=FLOAT),
            scale,
            node("Mul", "real scale", "scaled"),
            node("Floor", "scaled", "floor"),
            node("Cast", "floor", "target", to=INT64),
        ),
        {"x": TensorType(FLOAT, (BATCH, 3, 7))},
    )
    assert values["target"].tolist() == [7, 17]


def test_known_halves_are_computed_in_float32_and_rounded_once():
    half = np.array([1.001, 3.3, 0.1], np.float16)
    scalar = TensorType(DataType.HALF, (3,))
    (value,) = infer_node(operator_named("Mul"), {}, (scalar, scalar), (half, half[::-1]))[1]
    assert value.dtype == np.float16
    wide = half.astype(np.float32)
    np.testing.assert_array_equal(value, (wide * wide[::-1]).astype(np.float16))


def test_constants_and_ranges_of_symbolic_sizes_have_symbolic_shapes():
    types, _ = infer(
        (
            node("Shape", "x", "shape"),
            node("ConstantOfShape", "shape", "zeros"),
            scalar("zero", 0),
            scalar("one", 1),
            scalar("two", 2),
            node("Gather", "shape one", "t"),
            node("Range", "zero t one", "positions"),
            node("Range", "zero t two", "even"),
        ),
        {"x": TensorType(FLOAT, (BATCH, TOKENS))},
    )
    assert types["zeros"].shape == (BATCH, TOKENS)
    assert types["positions"].shape == (TOKENS,)
    assert types["even"].shape == (dimensions.ceildiv(TOKENS, 2),)


def test_a_shape_computed_from_data_has_sizes_for_later_named_after_the_output():
    types, _ = infer(
        (node("Reshape", "x target", "y"),),
        {"x": TensorType(FLOAT, (6,)), "target": TensorType(INT64, (2,))},
    )
    assert str(types["y"]) == "FLOAT[y__0, y__1]"


def test_a_shape_of_unknown_length_leaves_the_rank_open():
    types, _ = infer(
        (node("Reshape", "x target", "y"), node("Relu", "y", "z")),
        {"x": TensorType(FLOAT, (6,)), "target": TensorType(INT64, (BATCH,))},
    )
    assert str(types["z"]) == "FLOAT[?]"


def test_a_literal_of_symbolic_sizes_is_bound_at_run_time():
    target = np.empty(2, object)
    target[:] = [BATCH * 2, 3]
    body = Body(
        (BodyInput("x", TensorType(FLOAT, (BATCH, 6))),),
        (
            Node(CONSTANT, (), ("target",), {"value": Literal.of(target)}),
            node("Reshape", "x target", "y"),
        ),
        ("y",),
        1,
    )
    assert body.types["y"].shape == (BATCH * 2, 3)
    for n in (1, 4):
        x = normal(0, n, 6)
        np.testing.assert_array_equal(body.evaluate({"x": x})["y"], x.reshape(2 * n, 3))
        np.testing.assert_array_equal(body.exact({"x": x})["y"][0], x.reshape(2 * n, 3))


def test_run_time_sizes_agree_with_the_inferred_ones():
    body = Body(
        (BodyInput("x", TensorType(FLOAT, (BATCH, TOKENS, 8))),),
        (
            node("Shape", "x", "shape", start=0, end=2),
            constant("rest", 2, 4),
            node("Concat", "shape rest", "target", axis=0),
            node("Reshape", "x target", "heads"),
            node("Transpose", "heads", "y", perm=(0, 2, 1, 3)),
        ),
        ("y",),
    )
    assert body.types["y"].shape == (BATCH, 2, TOKENS, 4)
    x = normal(0, 3, 5, 8)
    assert body.evaluate({"x": x})["y"].shape == (3, 2, 5, 4)
