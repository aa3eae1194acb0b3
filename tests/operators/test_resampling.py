"""Resize, GridSample, AffineGrid, RoiAlign, MaxRoiPool and DeformConv."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_peer import against_peer, four_bounds_off, normal, one_node

from workbench.body import Inference, TensorType
from workbench.datatypes import DataType
from workbench.dimensions import symbol
from workbench.errors import InferenceError
from workbench.operators import operator_named

TRANSFORMS = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("sizes", [(7, 10), (3, 2), (10, 3)])
def test_resize_to_sizes_agrees_with_onnx_runtime(mode, transform, sizes):
    x = normal(0, 1, 2, 5, 4)
    wanted = np.array([1, 2, *sizes], np.int64)
    attributes = {"mode": mode, "coordinate_transformation_mode": transform}
    found = against_peer("Resize", (x, None, None, wanted), attributes, opset=19)
    assert found, found.message


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("scales", [(0.5, 0.6), (2.0, 0.3)])
def test_antialiased_resize_agrees_with_onnx_runtime(mode, scales):
    x = normal(1, 1, 2, 9, 8)
    factors = np.array([1, 1, *scales], np.float32)
    found = against_peer("Resize", (x, None, factors), {"mode": mode, "antialias": 1}, opset=19)
    assert found, found.message


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_the_nearest_pixel_is_the_one_that_onnx_runtime_takes(rounding):
    x = normal(2, 1, 1, 6, 7)
    attributes = {"nearest_mode": rounding, "coordinate_transformation_mode": "asymmetric"}
    scales = np.array([1, 1, 2, 0.5], np.float32)
    found = against_peer("Resize", (x, None, scales), attributes, opset=19)
    assert found, found.message
    assert found.worst == 0


def test_resize_scales_a_symbolic_size_exactly():
    batch, height = symbol("n"), symbol("h")
    row = operator_named("Resize")
    x = TensorType(DataType.FLOAT, (batch, 3, height, 8))
    scales = np.array([1, 1, 1.5, 2], np.float32)
    kinds = (x, None, TensorType(DataType.FLOAT, (4,)))
    (found,) = row.infer(Inference(row.complete({}), kinds, (None, None, scales)))
    assert found.shape[0] == batch
    assert found.shape[3] == 16
    assert [s.evaluate({"h": 5}) for s in found.shape[2:3]] == [7]


def test_resize_refuses_scales_and_sizes_at_once():
    row = operator_named("Resize")
    four = TensorType(DataType.FLOAT, (4,))
    kinds = (TensorType(DataType.FLOAT, (1, 1, 2, 2)), None, four, four)
    with pytest.raises(InferenceError, match="scales or sizes"):
        row.infer(Inference(row.complete({}), kinds, (None,) * 4))


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sample_agrees_with_onnx_runtime(padding, mode, corners):
    x = normal(3, 2, 3, 5, 6)
    grid = np.random.default_rng(4).uniform(-1.3, 1.3, (2, 4, 3, 2)).astype(np.float32)
    attributes = {"padding_mode": padding, "mode": mode, "align_corners": corners}
    found = against_peer("GridSample", (x, grid), attributes, opset=20)
    assert found, found.message


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), ratio=st.integers(0, 3), half=st.booleans())
def test_roi_align_agrees_with_onnx_runtime(seed, ratio, half):
    rng = np.random.default_rng(seed)
    x = normal(seed, 2, 3, 8, 9)
    corner = rng.uniform(-1, 6, (4, 2))
    rois = np.hstack((corner, corner + rng.uniform(0.5, 4, (4, 2)))).astype(np.float32)
    attributes = {
        "coordinate_transformation_mode": "half_pixel" if half else "output_half_pixel",
        "output_height": 2,
        "output_width": 3,
        "sampling_ratio": ratio,
        "spatial_scale": 0.75,
    }
    found = against_peer("RoiAlign", (x, rois, rng.integers(0, 2, 4)), attributes, opset=16)
    assert found, found.message


def test_max_roi_pool_agrees_with_onnx_runtime():
    rois = np.array([[0, 1, 1, 5, 6], [1, 0, 2, 7, 3], [1, 2.4, 3.2, 3.1, 4.9]], np.float32)
    attributes = {"pooled_shape": (2, 3), "spatial_scale": 0.5}
    found = against_peer("MaxRoiPool", (normal(5, 2, 3, 8, 9), rois), attributes, opset=21)
    assert found, found.message


def test_affine_grid_agrees_with_onnx_runtime():
    sizes = np.array([2, 1, 3, 4], np.int64)
    found = against_peer("AffineGrid", (normal(6, 2, 2, 3), sizes), {}, opset=20)
    assert found, found.message


def test_deform_conv_without_offsets_is_a_convolution():
    x, w, bias = normal(7, 1, 4, 6, 5), normal(8, 6, 2, 3, 3), normal(9, 6)
    attributes: dict[str, Any] = {"group": 2, "pads": (1, 1, 1, 1), "strides": (2, 1)}
    offset = np.zeros((1, 2 * 2 * 9, 3, 5), np.float32)
    body, values = one_node("DeformConv", (x, w, offset, bias), {**attributes, "offset_group": 2})
    plain, given_values = one_node("Conv", (x, w, bias), attributes)
    expected = plain.evaluate(given_values)["o0"]
    np.testing.assert_allclose(body.evaluate(values)["o0"], expected, rtol=1e-5, atol=1e-5)


CASES: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = (
    ("Resize", (normal(0, 1, 2, 5, 4), None, np.array([1, 1, 1.7, 2.3], np.float32)), {}),
    (
        "Resize",
        (normal(0, 1, 2, 5, 4), None, np.array([1, 1, 1.7, 0.7], np.float32)),
        {"mode": "cubic"},
    ),
    ("GridSample", (normal(1, 1, 2, 5, 4), 0.7 * np.tanh(normal(2, 1, 3, 3, 2))), {}),
    ("AffineGrid", (normal(3, 2, 2, 3), np.array([2, 1, 3, 4])), {}),
    (
        "RoiAlign",
        (normal(4, 1, 2, 6, 6), np.array([[0.3, 0.2, 4.1, 5.2]], np.float32), np.array([0])),
        {"output_height": 2, "output_width": 2, "sampling_ratio": 2},
    ),
    (
        "DeformConv",
        (normal(5, 1, 2, 5, 5), normal(6, 3, 2, 2, 2), 0.3 * normal(7, 1, 8, 4, 4)),
        {},
    ),
)


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES, ids=lambda c: str(c)[:12])
def test_a_result_four_bounds_off_is_found(op, inputs, attributes):
    inputs = tuple(x if x is None or x.dtype == np.int64 else x.astype(np.float32) for x in inputs)
    body, values = one_node(op, inputs, attributes)
    (_, bound), *_ = body.exact(values).values()
    assert not four_bounds_off(body, values) or (op == "Resize" and not attributes)
    assert np.median(bound) < 1e-4
