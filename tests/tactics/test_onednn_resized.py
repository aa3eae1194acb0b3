"""ONEDNN: transposed convolutions and resampling."""

from __future__ import annotations

import numpy as np
import pytest
from onednn_net import BF16, Net, check_all

from workbench.records import Refusal
from workbench.tactics.onednn.source import ONEDNN

pytestmark = pytest.mark.skipif(
    ONEDNN.unavailable() is not None, reason="the wheel onednn-cpu-gomp is for Linux x86-64"
)

TRANSPOSED = {
    "2x2 of stride 2": ((2, 32, 5, 5), (32, 16, 2, 2), {"strides": (2, 2)}),
    "3x3 cropped": ((1, 16, 6, 7), (16, 32, 3, 3), {"pads": (1, 0, 1, 2)}),
    "4x4 of stride 2": ((1, 16, 6, 6), (16, 8, 4, 4), {"strides": (2, 2), "pads": (1,) * 4}),
    "grouped": ((1, 32, 5, 5), (32, 8, 3, 3), {"group": 2, "pads": (1,) * 4}),
    "dilated": ((1, 16, 5, 5), (16, 16, 3, 3), {"dilations": (2, 2)}),
    "one axis": ((2, 16, 9), (16, 16, 4), {"strides": (2,), "pads": (1, 1)}),
    "three axes": ((1, 16, 3, 3, 3), (16, 16, 2, 2, 2), {"strides": (2, 2, 2)}),
}


@pytest.mark.parametrize("dtype", [np.float32, BF16])
@pytest.mark.parametrize("case", TRANSPOSED)
def test_a_transposed_convolution_is_correct_in_every_tactic(case, dtype):
    x_shape, w_shape, attributes = TRANSPOSED[case]
    net = Net()
    filters = w_shape[1] * attributes.get("group", 1)
    x, w = net.input(x_shape, dtype), net.constant(w_shape, dtype, 0.2)
    b = net.constant((filters,), dtype)
    y = net.op("ConvTranspose", x, w, b, anchor=True, **attributes)
    tactics = check_all(net, net.op("Relu", y))
    assert all(t.parameter("primitive") == "deconvolution" for t in tactics)


@pytest.mark.parametrize("per_channel", [False, True])
def test_an_int8_transposed_convolution_is_exact_to_a_step(per_channel):
    net = Net()
    stored = net.input((1, 16, 6, 6), np.int8)
    x = net.dequantized(stored, 0.05)
    w = net.constant((16, 32, 2, 2), np.int8)
    scale = np.linspace(0.01, 0.02, 32) if per_channel else 0.015
    real = net.dequantized(w, scale, **({"axis": 1} if per_channel else {}))
    y = net.op("ConvTranspose", x, real, anchor=True, strides=(2, 2))
    check_all(net, net.quantized(y, 0.5))


def test_weights_quantized_along_the_input_channels_are_refused():
    net = Net()
    x = net.dequantized(net.input((1, 16, 6, 6), np.int8), 0.05)
    w = net.dequantized(net.constant((16, 16, 2, 2), np.int8), np.full(16, 0.01), axis=0)
    problem = net.problem(net.op("ConvTranspose", x, w, anchor=True))
    found = ONEDNN.candidates(problem)
    assert all(isinstance(r, Refusal) for r in found)
    assert any("not per output channel" in r.reason for r in found)


def resized(net, x, sizes, **attributes):
    return net.op("Resize", x, "", "", net.literal(sizes, np.int64), anchor=True, **attributes)


RESIZED = {
    "nearest doubled": {"mode": "nearest"},
    "nearest as PyTorch exports it": {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    },
    "linear doubled": {"mode": "linear"},
    "linear as PyTorch exports it": {
        "mode": "linear",
        "coordinate_transformation_mode": "pytorch_half_pixel",
    },
}


@pytest.mark.parametrize("dtype", [np.float32, BF16])
@pytest.mark.parametrize("sizes", [(14, 10), (21, 15)])
@pytest.mark.parametrize("case", RESIZED)
def test_a_resize_is_correct_in_every_tactic(case, sizes, dtype):
    net = Net()
    y = resized(net, net.input((2, 20, 7, 5), dtype), (2, 20, *sizes), **RESIZED[case])
    tactics = check_all(net, y)
    assert len({t.outputs for t in tactics}) == 3


def test_a_resize_along_one_and_three_axes():
    for shape, sizes in (((1, 16, 9), (1, 16, 18)), ((1, 8, 3, 4, 5), (1, 8, 6, 8, 10))):
        net = Net()
        check_all(net, resized(net, net.input(shape), sizes, mode="linear"))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"mode": "cubic"}, "no cubic"),
        ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, "other positions"),
        ({"mode": "nearest", "nearest_mode": "ceil"}, "other positions"),
    ],
)
def test_a_resize_that_reads_other_positions_is_refused(attributes, reason):
    net = Net()
    y = resized(net, net.input((1, 8, 4, 4)), (1, 8, 8, 8), **attributes)
    found = ONEDNN.candidates(net.problem(y))
    assert all(isinstance(r, Refusal) for r in found)
    assert any(reason in r.reason for r in found)
