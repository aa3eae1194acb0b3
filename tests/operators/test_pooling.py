"""Pooling: ONNX's semantics, and bounds that catch a wrong result."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_peer import against_peer, four_bounds_off, normal, one_node, peer

from workbench import dimensions
from workbench.body import Inference, TensorType
from workbench.checks import check_outputs
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators import operator_named

FEW = settings(max_examples=60, deadline=None)


@st.composite
def pools(draw, *, dilated=True):
    rank = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER"]))
    most = 2 if dilated and auto == "NOTSET" else 1
    dilations = [draw(st.integers(1, most)) for _ in range(rank)]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    attributes = {
        "kernel_shape": kernel,
        # A stride beyond a SAME-padded window makes ONNX Runtime's padding negative.
        "strides": [draw(st.integers(1, 3 if auto == "NOTSET" else e)) for e in extent],
        "dilations": dilations,
        "auto_pad": auto,
    }
    if auto == "NOTSET":
        attributes["ceil_mode"] = draw(st.integers(0, 1))
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel + kernel]
    x = normal(draw(st.integers(0, 9)), 1, 2, *(draw(st.integers(e, e + 4)) for e in extent))
    return x, attributes


@FEW
@given(pools())
def test_max_pool_agrees_with_onnx_runtime(case):
    x, attributes = case
    result = against_peer("MaxPool", [x], attributes)
    assert result.passed and result.worst == 0, result.message


@FEW
@given(pools(), st.integers(0, 1))
def test_max_pool_indices_agree_with_onnx_runtime(case, order):
    x, attributes = case
    result = against_peer("MaxPool", [x], {**attributes, "storage_order": order}, outputs=2)
    assert result.passed, result.message


@FEW
@given(pools(), st.integers(0, 1))
def test_average_pool_agrees_with_onnx_runtime(case, include):
    x, attributes = case
    result = against_peer("AveragePool", [x], {**attributes, "count_include_pad": include})
    assert result.passed, result.message


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools_agree_with_onnx_runtime(op):
    result = against_peer(op, [normal(0, 2, 3, 5, 4)])
    assert result.passed, result.message


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_max_pool_of_integers_agrees_with_onnx_runtime(dtype):
    x = np.random.default_rng(0).integers(-100, 100, (1, 2, 6, 6)).astype(dtype)
    attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
    body, values = one_node("MaxPool", [x], attributes)
    (theirs,) = peer("MaxPool", [x], attributes)
    np.testing.assert_array_equal(body.evaluate(values)["o0"], theirs)


def test_ceil_mode_leaves_out_a_window_that_starts_in_the_right_padding():
    x = normal(0, 1, 1, 4)
    for pads, positions in (((0, 0), 2), ((1, 1), 2), ((0, 3), 2)):
        body, values = one_node(
            "MaxPool",
            [x],
            {"kernel_shape": (2,), "strides": (3,), "pads": pads, "ceil_mode": 1},
        )
        assert body.evaluate(values)["o0"].shape == (1, 1, positions)


def test_symbolic_sizes_bind_to_the_sizes_of_the_reference():
    h = dimensions.symbol("h")
    row = operator_named("MaxPool")
    attributes = row.complete({"kernel_shape": (3,), "strides": (2,), "ceil_mode": 1})
    x = TensorType(DataType.FLOAT, (1, 1, h))
    (y,) = row.infer(Inference(attributes, (x,), (None,)))
    for size in range(3, 12):
        out = row.reference(attributes, [normal(0, 1, 1, size)])[0]
        assert dimensions.evaluate_shape(y.shape, {"h": size}) == out.shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"])
def test_an_error_of_four_bounds_fails_and_the_reference_passes(op, dtype):
    attributes = {} if op.startswith("Global") else {"kernel_shape": (3, 3), "strides": (2, 2)}
    body, values = one_node(op, [normal(0, 2, 3, 9, 9).astype(dtype)], attributes)
    assert check_outputs(body, values, body.evaluate(values)).passed
    assert not four_bounds_off(body, values).passed


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((1, 3, 4, 4), DataType.INT32, "input is INT32"),
        ((1, 3), DataType.FLOAT, "need batch, channels and spatial"),
        ((1, 3, 2, 2), DataType.FLOAT, "a window of 3 does not fit in size 2"),
        ((1, 3, 4), DataType.FLOAT, "kernel has 2 axes"),
    ],
)
def test_pools_refuse_inputs_that_do_not_fit(shape, dtype, said):
    row = operator_named("MaxPool")
    attributes = row.complete({"kernel_shape": (3, 3)})
    with pytest.raises(InferenceError, match=said):
        row.infer(Inference(attributes, (TensorType(dtype, shape),), (None,)))
