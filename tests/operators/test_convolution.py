"""Conv and ConvTranspose: ONNX's semantics, and bounds that catch a wrong result."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_peer import against_peer, four_bounds_off, normal, one_node

from workbench import dimensions
from workbench.body import Inference, TensorType
from workbench.datatypes import DataType
from workbench.errors import InferenceError, NetworkError
from workbench.network import NetworkDefinition
from workbench.operators import operator_named

FEW = settings(max_examples=40, deadline=None)


@st.composite
def convolutions(draw, *, transposed=False):
    rank = draw(st.integers(1, 3))
    group = draw(st.sampled_from([1, 1, 2, 3]))
    per_group, filters = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    # ONNX Runtime has no dilation with SAME padding.
    dilations = [draw(st.integers(1, 1 if "SAME" in auto else 2)) for _ in range(rank)]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [draw(st.integers(e, e + 4)) for e in extent]
    attributes = {"group": group, "strides": strides, "dilations": dilations, "auto_pad": auto}
    if auto == "NOTSET":
        most = [(e - 1) // 2 if transposed else e - 1 for e in extent]
        attributes["pads"] = [draw(st.integers(0, m)) for m in most + most]
    x = normal(1, draw(st.integers(1, 2)), group * per_group, *sizes)
    shape = (group * per_group, filters) if transposed else (group * filters, per_group)
    w = normal(2, *shape, *kernel)
    bias = normal(3, group * filters) if draw(st.booleans()) else None
    return [x, w, bias], attributes


@FEW
@given(convolutions())
def test_conv_agrees_with_onnx_runtime(case):
    inputs, attributes = case
    result = against_peer("Conv", inputs, attributes)
    assert result.passed, result.message


@FEW
@given(convolutions(transposed=True), st.booleans())
def test_conv_transpose_agrees_with_onnx_runtime(case, padded):
    inputs, attributes = case
    rank = inputs[0].ndim - 2
    if padded and attributes["auto_pad"] == "NOTSET":
        attributes = {**attributes, "output_padding": [s - 1 for s in attributes["strides"]]}
    if attributes["auto_pad"].startswith("SAME"):
        # ONNX Runtime refuses the widening that a stride beyond the kernel needs.
        kernel = zip(attributes["dilations"], inputs[1].shape[2:], strict=True)
        strides = [
            min(s, (k - 1) * d + 1) for s, (d, k) in zip(attributes["strides"], kernel, strict=True)
        ]
        attributes = {**attributes, "strides": strides}
    result = against_peer("ConvTranspose", inputs, attributes)
    assert result.passed, (rank, result.message)


@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
def test_conv_transpose_honours_a_given_output_shape(mode):
    x, w = normal(0, 1, 2, 5, 4), normal(1, 2, 3, 3, 3)
    attributes = {"strides": [2, 2], "output_shape": [10, 8], "auto_pad": mode}
    body, values = one_node("ConvTranspose", [x, w], attributes)
    assert body.evaluate(values)["o0"].shape == (1, 3, 10, 8)
    if mode == "NOTSET":
        result = against_peer("ConvTranspose", [x, w], attributes)
        assert result.passed, result.message


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_an_error_of_four_bounds_fails_and_the_reference_passes(op, dtype):
    x, w, b = normal(0, 2, 4, 6, 6), normal(1, 4, 4, 3, 3), normal(2, 4)
    body, values = one_node(op, [v.astype(dtype) for v in (x, w, b)], {"pads": [1] * 4})
    assert operator_named(op).bound is not None
    assert not four_bounds_off(body, values).passed


def test_conv_shapes_keep_symbols():
    network = NetworkDefinition()
    x = network.add_input("x", "FLOAT", ("batch", 3, "h", "w"))
    w = network.constant(normal(0, 8, 3, 3, 3))
    same = network.add_layer("Conv", [x, w], {"pads": (1,) * 4}).get_output(0)
    assert [str(d) for d in same.shape] == ["batch", "8", "h", "w"]
    half = network.add_layer(
        "Conv",
        [same, network.constant(normal(0, 4, 8, 2, 2))],
        {"strides": (2, 2), "auto_pad": "SAME_UPPER"},
    )
    bound = dimensions.evaluate_shape(half.get_output(0).shape, {"batch": 5, "h": 7, "w": 8})
    assert bound == (5, 4, 4, 4)


@pytest.mark.parametrize(
    ("attributes", "kernel", "said"),
    [
        ({}, (4, 2, 3, 3), "3 channels"),
        ({"group": 2}, (3, 2, 3, 3), "channels"),
        ({"kernel_shape": (5, 5)}, (4, 3, 3, 3), "kernel_shape is"),
        ({"pads": (1, 1)}, (4, 3, 3, 3), "pads has 2 entries"),
        ({}, (4, 3, 9, 9), "does not fit in size 8"),
        ({"auto_pad": "SOME"}, (4, 3, 3, 3), "auto_pad is 'SOME'"),
    ],
)
def test_conv_refuses_what_contradicts_itself(attributes, kernel, said):
    row = operator_named("Conv")
    types = (TensorType(DataType.FLOAT, (1, 3, 8, 8)), TensorType(DataType.FLOAT, kernel))
    with pytest.raises(InferenceError, match=said):
        row.infer(Inference(row.complete(attributes), types, (None, None)))


def test_an_unknown_attribute_is_named():
    with pytest.raises(NetworkError, match="Conv has no attribute stride;"):
        operator_named("Conv").complete({"stride": 1})


def test_conv_counts_a_multiply_and_an_add_as_two():
    row = operator_named("Conv")
    x, w = TensorType(DataType.FLOAT, (1, 4, 8, 8)), TensorType(DataType.FLOAT, (6, 2, 3, 3))
    y = TensorType(DataType.FLOAT, (1, 6, 8, 8))
    attributes = row.complete({"group": 2, "pads": (1,) * 4})
    cost = row.cost(attributes, (x, w, None), (y,))
    assert cost.flops == 2 * 6 * 64 * 18
    assert cost.bytes == 4 * (4 * 64 + 6 * 18 + 6 * 64)
    bias = TensorType(DataType.FLOAT, (6,))
    assert row.cost(attributes, (x, w, bias), (y,)).flops == cost.flops + 6 * 64
