"""Quantization: ONNX's semantics, and one step as the largest difference."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx.reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_peer import against_peer, four_bounds_off, normal, one_node, peer

from workbench.body import Body, BodyInput, Inference, Node, TensorType
from workbench.checks import check_outputs
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators import operator_named

FEW = settings(max_examples=30, deadline=None)
STORED = (np.int8, np.uint8, np.int16, np.uint16)


@FEW
@given(st.sampled_from(STORED), st.booleans(), st.integers(0, 99), st.integers(-2, 1))
def test_quantize_agrees_with_onnx_runtime(stored, per_axis, seed, axis):
    x = 3 * normal(seed, 4, 5)
    shape = (x.shape[axis],) if per_axis else ()
    scale = np.asarray(0.01 + np.abs(normal(1, *shape))).astype(np.float32)
    zero = np.random.default_rng(seed).integers(0, 50, shape).astype(stored)
    body, values = one_node("QuantizeLinear", [x, scale, zero], {"axis": axis})
    (theirs,) = peer("QuantizeLinear", [x, scale, zero], {"axis": axis})
    np.testing.assert_array_equal(body.evaluate(values)["o0"], theirs)
    result = check_outputs(body, values, {"o0": theirs})
    assert result.passed, result.message


@FEW
@given(st.sampled_from((*STORED, np.int32)), st.booleans(), st.integers(0, 99))
def test_dequantize_agrees_with_onnx_runtime(stored, per_axis, seed):
    random = np.random.default_rng(seed)
    info = np.iinfo(stored)
    q = random.integers(info.min // 2, info.max // 2, (4, 5)).astype(stored)
    shape = (5,) if per_axis else ()
    scale = np.asarray(0.01 + np.abs(normal(1, *shape))).astype(np.float32)
    zero = None if stored is np.int32 else random.integers(0, 99, shape).astype(stored)
    result = against_peer("DequantizeLinear", [q, scale, zero], {"axis": 1})
    assert result.passed, result.message


@pytest.mark.parametrize("axis", [0, 1])
def test_blocks_agree_with_onnx_runtime(axis):
    x, shape = 3 * normal(0, 4, 6), (2, 6) if axis == 0 else (4, 3)
    scale = (0.1 + np.abs(normal(1, *shape))).astype(np.float32)
    attributes = {"axis": axis, "block_size": 2}
    zero = np.zeros(shape, np.int8)
    body, values = one_node("QuantizeLinear", [x, scale, zero], attributes)
    (theirs,) = peer("QuantizeLinear", [x, scale, zero], attributes)
    np.testing.assert_array_equal(body.evaluate(values)["o0"], theirs)
    result = against_peer("DequantizeLinear", [theirs, scale, zero], attributes)
    assert result.passed, result.message


def test_blocks_may_end_short():
    x, scale = normal(0, 5), np.array([0.5, 0.25, 0.125], np.float32)
    body, values = one_node("QuantizeLinear", [x, scale], {"axis": 0, "block_size": 2})
    wide = np.repeat(scale, 2)[:5]
    expected = np.clip(np.rint(x / wide), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(body.evaluate(values)["o0"], expected)


def test_ties_go_to_even_and_values_beyond_the_range_are_clipped():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1000, -1000], np.float32)
    body, values = one_node("QuantizeLinear", [x, np.float32(1), np.int8(0)])
    assert body.evaluate(values)["o0"].tolist() == [0, 2, 2, 0, -2, 127, -128]


@pytest.mark.parametrize(
    "stored", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2], ids=["e4m3", "e5m2"]
)
def test_float8_agrees_with_the_standards_reference(stored):
    x, scale = 3 * normal(0, 4, 5), np.asarray(np.float32(0.1))
    zero = np.zeros((), stored)
    attributes = {"output_dtype": DataType.of(zero)}
    body, values = one_node("QuantizeLinear", [x, scale, zero], attributes)
    ours = body.evaluate(values)["o0"]
    assert check_outputs(body, values, {"o0": ours}).passed
    number = {DataType.FP8: 17, DataType.FP8E5M2: 19}[DataType.of(zero)]
    node = onnx.helper.make_node("QuantizeLinear", ["x", "s"], ["y"], output_dtype=number)
    model = onnx.reference.ReferenceEvaluator(node)
    (theirs,) = model.run(None, {"x": x, "s": scale})
    np.testing.assert_array_equal(ours.astype(np.float32), np.asarray(theirs).astype(np.float32))


def test_int4_is_clipped_to_its_own_range():
    x = np.array([-100, -3, 3, 100], np.float32)
    zero = np.zeros((), ml_dtypes.int4)
    attributes = {"output_dtype": DataType.INT4}
    body, values = one_node("QuantizeLinear", [x, np.asarray(np.float32(1)), zero], attributes)
    ours = body.evaluate(values)["o0"]
    assert ours.dtype == ml_dtypes.int4
    assert ours.astype(int).tolist() == [-8, -3, 3, 7]


@FEW
@given(st.integers(0, 99), st.floats(-4, 4))
def test_dynamic_quantization_agrees_with_onnx_runtime(seed, shift):
    x = (normal(seed, 3, 4) + shift).astype(np.float32)
    result = against_peer("DynamicQuantizeLinear", [x], outputs=3)
    assert result.passed, result.message


def quantized_product(seed=0):
    """int8 -> DequantizeLinear -> MatMul -> QuantizeLinear -> int8, as a fused layer has it."""
    random = np.random.default_rng(seed)
    values = {
        "x": random.integers(-128, 128, (6, 32)).astype(np.int8),
        "w": random.integers(-127, 128, (32, 5)).astype(np.int8),
        "sx": np.float32(0.02),
        "sw": (0.001 + 0.01 * random.random(5)).astype(np.float32),
        "sy": np.float32(0.05),
        "zy": np.int8(0),
    }
    values = {k: np.asarray(v) for k, v in values.items()}
    q, d, m = (operator_named(n) for n in ("QuantizeLinear", "DequantizeLinear", "MatMul"))
    body = Body(
        tuple(
            BodyInput(k, TensorType(DataType.of(v), v.shape), k != "x") for k, v in values.items()
        ),
        (
            Node(d, ("x", "sx"), ("xf",), d.complete({})),
            Node(d, ("w", "sw"), ("wf",), d.complete({"axis": 1})),
            Node(m, ("xf", "wf"), ("y",), m.complete({})),
            Node(q, ("y", "sy", "zy"), ("z",), q.complete({})),
        ),
        ("z",),
        2,
    )
    return body, values


def test_an_int8_layer_may_be_one_step_off_and_no_more():
    body, values = quantized_product()
    exact = body.exact(values)["z"][0]
    inside = np.abs(exact) < 120
    right = np.clip(np.rint(exact), -128, 127)
    assert check_outputs(body, values, {"z": right.astype(np.int8)}).passed
    away = np.where(inside, np.where(right >= exact, right - 1, right + 1), right)
    near_tie = np.abs(np.abs(exact - right) - 0.5) < 1e-4
    found = check_outputs(body, values, {"z": away.astype(np.int8)})
    assert found.passed == bool(near_tie[inside].all())
    two = np.where(inside, right + 2, right).astype(np.int8)
    assert not check_outputs(body, values, {"z": two}).passed


def test_integer_accumulation_passes():
    body, values = quantized_product(1)
    sums = values["x"].astype(np.int64) @ values["w"].astype(np.int64)
    factor = values["sx"] * values["sw"] / values["sy"]
    z = np.clip(np.rint(sums.astype(np.float32) * factor), -128, 127).astype(np.int8)
    result = check_outputs(body, values, {"z": z})
    assert result.passed, result.message


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"])
def test_an_error_of_four_bounds_fails_and_the_reference_passes(op):
    x = np.arange(-30, 30, dtype=np.int8) if op[0:2] == "De" else normal(0, 60)
    inputs = [x] if op.startswith("Dyn") else [x, np.asarray(np.float32(0.1))]
    body, values = one_node(op, inputs, outputs=3 if op.startswith("Dyn") else 1)
    assert check_outputs(body, values, body.evaluate(values)).passed
    assert not four_bounds_off(body, values).passed


@pytest.mark.parametrize(
    ("scale", "attributes", "zero", "said"),
    [
        ((4,), {"axis": 1}, None, "axis 1 of the input has size 5"),
        ((5,), {"axis": 3}, None, "axis is 3"),
        ((4, 2), {"axis": 1, "block_size": 2}, None, "blocks of 2 on axis 1 need"),
        ((), {}, (DataType.INT32, ()), "cannot quantize to INT32"),
        ((), {}, (DataType.INT4, ()), "needs the attribute output_dtype"),
        ((), {}, (DataType.INT8, (5,)), "zero point"),
        ((), {"precision": DataType.HALF}, None, "precision is HALF"),
        ((), {"output_dtype": DataType.UINT8}, (DataType.INT8, ()), "output_dtype is UINT8"),
    ],
)
def test_quantize_refuses_what_contradicts_itself(scale, attributes, zero, said):
    row = operator_named("QuantizeLinear")
    types = [TensorType(DataType.FLOAT, (4, 5)), TensorType(DataType.FLOAT, scale)]
    types += [TensorType(*zero)] if zero else []
    with pytest.raises(InferenceError, match=said):
        row.infer(Inference(row.complete(attributes), tuple(types), (None,) * 3))
