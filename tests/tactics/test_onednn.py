"""ONEDNN: every tactic that it offers for a layer is correct, repeatable, and says what it is."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from onednn_net import BF16, Net, check_all, offered

from workbench.body import Body, Node, TensorType
from workbench.checks import check_outputs
from workbench.datatypes import DataType
from workbench.devices import CpuDevice
from workbench.formats import CHW16, HWC, LINEAR
from workbench.operators import operator_named
from workbench.records import Refusal
from workbench.tactics.launch import bind, reformat_body, run_once
from workbench.tactics.native import address_of, flat, function_call
from workbench.tactics.onednn.library import Library, load
from workbench.tactics.onednn.source import ONEDNN
from workbench.tactics.protocol import Call, Problem

pytestmark = pytest.mark.skipif(
    ONEDNN.unavailable() is not None, reason="the wheel onednn-cpu-gomp is for Linux x86-64"
)
CONVOLUTIONS = {
    "3x3": ((2, 32, 9, 9), (32, 32, 3, 3), {"pads": (1, 1, 1, 1)}),
    "odd channels": ((1, 5, 8, 8), (20, 5, 3, 3), {"pads": (1, 1, 1, 1)}),
    "strided 1x1": ((2, 16, 9, 9), (32, 16, 1, 1), {"strides": (2, 2)}),
    "asymmetric": ((1, 16, 8, 10), (16, 16, 3, 3), {"pads": (0, 1, 1, 0), "strides": (2, 1)}),
    "same upper": ((1, 16, 7, 7), (16, 16, 3, 3), {"auto_pad": "SAME_UPPER", "strides": (2, 2)}),
    "dilated": ((1, 16, 12, 12), (16, 16, 3, 3), {"dilations": (2, 2)}),
    "grouped": ((1, 32, 8, 8), (64, 16, 3, 3), {"group": 2, "pads": (1, 1, 1, 1)}),
    "depthwise": ((2, 32, 9, 9), (32, 1, 3, 3), {"group": 32, "pads": (1, 1, 1, 1)}),
    "first layer": ((1, 3, 16, 16), (24, 3, 3, 3), {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
    "one axis": ((2, 16, 20), (32, 16, 3), {"pads": (1, 1)}),
    "three axes": ((1, 16, 5, 5, 5), (16, 16, 3, 3, 3), {}),
}


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution_with_bias_relu_is_correct_in_every_tactic(case, dtype):
    x_shape, w_shape, attributes = CONVOLUTIONS[case]
    net = Net()
    x, w = net.input(x_shape, dtype), net.constant(w_shape, dtype, 0.2)
    b = net.constant((w_shape[0],), dtype)
    y = net.op("Relu", net.op("Conv", x, w, b, anchor=True, **attributes))
    tactics = check_all(net, y)
    assert len({t.outputs[0] for t in tactics}) >= 2
    assert any(HWC in t.outputs for t in tactics)


def test_convolution_tactics_name_layouts_and_implementations():
    net = Net()
    x, w = net.input((1, 16, 8, 8)), net.constant((16, 16, 3, 3))
    tactics = offered(net.problem(net.op("Conv", x, w, anchor=True, pads=(1, 1, 1, 1))))
    assert {LINEAR, HWC, CHW16} <= {t.outputs[0] for t in tactics}
    assert len({t.parameter("implementation") for t in tactics}) >= 2
    assert len({(t.name, t.inputs, t.outputs) for t in tactics}) == len(tactics)
    assert all(t.source == "ONEDNN" and not t.emulated for t in tactics)
    assert all("oneDNN 3." in t.version for t in tactics)


ACTIVATIONS = {
    "Relu": lambda n, x: n.op("Relu", x),
    "LeakyRelu": lambda n, x: n.op("LeakyRelu", x, alpha=0.1),
    "Clip": lambda n, x: n.op("Clip", x, n.literal(0.0), n.literal(6.0)),
    "Clip above": lambda n, x: n.op("Clip", x, "", n.literal(1.0)),
    "Sigmoid": lambda n, x: n.op("Sigmoid", x),
    "Tanh": lambda n, x: n.op("Tanh", x),
    "Elu": lambda n, x: n.op("Elu", x, alpha=0.7),
    "HardSwish": lambda n, x: n.op("HardSwish", x),
    "HardSigmoid": lambda n, x: n.op("HardSigmoid", x, alpha=0.2, beta=0.4),
    "Gelu": lambda n, x: n.op("Gelu", x),
    "Gelu tanh": lambda n, x: n.op("Gelu", x, approximate="tanh"),
    "Mish": lambda n, x: n.op("Mish", x),
    "Softplus": lambda n, x: n.op("Softplus", x),
    "SiLU": lambda n, x: n.op("Mul", n.op("Sigmoid", x), x),
    "Gelu spelled out": lambda n, x: n.op(
        "Mul",
        n.op("Mul", x, n.literal(0.5)),
        n.op("Add", n.op("Erf", n.op("Div", x, n.literal(2**0.5))), n.literal(1.0)),
    ),
    "HardSwish spelled out": lambda n, x: n.op(
        "Div",
        n.op(
            "Mul",
            x,
            n.op("Clip", n.op("Add", x, n.literal(3.0)), n.literal(0.0), n.literal(6.0)),
        ),
        n.literal(6.0),
    ),
    "scale and shift": lambda n, x: n.op("Sub", n.literal(1.0), n.op("Mul", x, n.literal(0.125))),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_convolution_and_product_run_the_activation_inside(activation):
    net = Net()
    x, w = net.input((1, 16, 6, 6)), net.constant((16, 16, 1, 1), scale=0.5)
    check_all(net, ACTIVATIONS[activation](net, net.op("Conv", x, w, anchor=True)))
    net = Net()
    x, w = net.input((3, 20)), net.constant((20, 17), scale=0.5)
    check_all(net, ACTIVATIONS[activation](net, net.op("MatMul", x, w, anchor=True)))


def test_an_unknown_group_of_operators_is_refused_by_name():
    net = Net()
    x, w = net.input((3, 20)), net.constant((20, 17))
    y = net.op("MatMul", x, w, anchor=True)
    refused = ONEDNN.candidates(net.problem(net.op("Mul", net.op("Sin", y), y)))
    assert "no post-operation for Sin+Mul" in str(refused[0])


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16])
@pytest.mark.parametrize("channels", [16, 20])
def test_convolution_adds_a_residual_before_the_activation(channels, dtype):
    net = Net()
    x, w = net.input((2, 16, 6, 6), dtype), net.constant((channels, 16, 3, 3), dtype, 0.2)
    r, b = net.input((2, channels, 6, 6), dtype), net.constant((channels,), dtype)
    y = net.op("Conv", x, w, b, anchor=True, pads=(1, 1, 1, 1))
    tactics = check_all(net, net.op("Relu", net.op("Add", r, y)))
    assert all(t.inputs[1] == t.outputs[0] for t in tactics)


def test_convolution_takes_a_bias_that_is_added_and_its_own_input_again():
    net = Net()
    x, w = net.input((2, 16, 6, 6)), net.constant((16, 16, 1, 1), scale=0.2)
    y = net.op("Conv", x, w, anchor=True)
    y = net.op("Add", y, net.constant((1, 16, 1, 1)))
    check_all(net, net.op("Add", y, x))


def test_convolution_refuses_weights_that_arrive_at_run_time():
    net = Net()
    x, w = net.input((2, 16, 6, 6)), net.input((16, 16, 1, 1))
    (refused,) = ONEDNN.candidates(net.problem(net.op("Conv", x, w, anchor=True)))
    assert "not constants" in refused.reason


def test_blocked_outputs_are_padded_with_zeros():
    net = Net()
    x, w, b = net.input((1, 16, 5, 5)), net.constant((20, 16, 1, 1)), net.constant((20,))
    y = net.op("Sigmoid", net.op("Conv", x, w, b, anchor=True))
    problem = net.problem(y)
    blocked = [t for t in offered(problem) if t.outputs == (CHW16,)]
    assert blocked
    for tactic in blocked:
        bound = bind(ONEDNN.prepare(tactic, problem), tactic, problem)
        bound.write(net.data)
        bound.outputs[0].memory[:] = 0xFF
        bound.launch()
        stored = bound.outputs[0].view(DataType.FLOAT, CHW16.physical_shape((1, 20, 5, 5)))
        assert not stored[0, 1, :, :, 4:].any(), tactic.title


QUANTIZED = ["3x3", "odd channels", "strided 1x1", "grouped", "depthwise", "first layer"]


@pytest.mark.parametrize("x_type", [np.uint8, np.int8])
@pytest.mark.parametrize("case", QUANTIZED)
def test_int8_convolution_with_residual_is_exact_to_a_step(case, x_type):
    x_shape, w_shape, attributes = CONVOLUTIONS[case]
    net = Net()
    zero = 3 if x_type is np.uint8 else 0
    x = net.dequantized(net.input(x_shape, x_type), 0.02, zero)
    w_scale = net.rng.uniform(0.001, 0.01, w_shape[0])
    w = net.dequantized(net.constant(w_shape, np.int8), w_scale, axis=0)
    b = net.constant((w_shape[0],))
    y = net.op("Conv", x, w, b, anchor=True, **attributes)
    shape = net.problem(y).body.output_types[0].shape
    r = net.dequantized(net.input(shape, np.int8), 0.05)
    y = net.op("Relu", net.op("Add", y, r))
    tactics = check_all(net, net.quantized(y, 0.1, np.uint8))
    assert all(not t.emulated for t in tactics)


def test_int8_convolution_writes_floats_where_nothing_quantizes():
    net = Net()
    x = net.dequantized(net.input((1, 16, 6, 6), np.int8), 0.02)
    w = net.dequantized(net.constant((32, 16, 3, 3), np.int8), 0.004)
    check_all(net, net.op("Conv", x, w, net.constant((32,)), anchor=True))


def test_int8_kernels_use_vnni_or_amx():
    library = load()
    assert isinstance(library, Library)
    if not library.isa.native_int8:
        pytest.skip("this CPU has neither VNNI nor AMX")
    net = Net()
    x = net.dequantized(net.input((1, 16, 6, 6), np.uint8), 0.02)
    w = net.dequantized(net.constant((32, 16, 3, 3), np.int8), 0.004)
    y = net.quantized(net.op("Conv", x, w, anchor=True), 0.1)
    kernels = [t.parameter("implementation") for t in offered(net.problem(y))]
    assert any("vnni" in k or "amx" in k for k in kernels)


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16])
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_gemm_with_every_attribute(rows, dtype):
    net = Net()
    a, b = net.input((rows, 24), dtype), net.constant((10, 24), dtype, 0.3)
    c = net.constant((10,), dtype)
    tactics = check_all(net, net.op("Gemm", a, b, c, anchor=True, transB=1))
    assert {t.parameter("primitive") for t in tactics} == {"matmul", "inner product"}
    net = Net()
    a, b = net.input((24, rows), dtype), net.constant((24, 10), dtype, 0.3)
    c = net.input((rows, 10), dtype)
    check_all(net, net.op("Gemm", a, b, c, anchor=True, transA=1, alpha=0.5, beta=2.0))


MATMULS = {
    "rows merge": ((2, 5, 24), (24, 32)),
    "batches": ((2, 3, 5, 24), (2, 3, 24, 7)),
    "broadcast": ((2, 1, 5, 24), (3, 24, 7)),
    "second alone": ((5, 24), (2, 24, 7)),
}


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("case", MATMULS)
def test_matmul_in_batches(case, constant, dtype):
    a_shape, b_shape = MATMULS[case]
    net = Net()
    a = net.input(a_shape, dtype)
    b = (net.constant if constant else net.input)(b_shape, dtype, scale=0.3)
    y = net.op("MatMul", a, b, anchor=True)
    y = net.op("Add", y, net.constant((b_shape[-1],), dtype))
    check_all(net, y)


def test_matmul_with_residual_mask_and_scale():
    net = Net()
    q, k = net.input((2, 4, 6, 8)), net.input((2, 4, 8, 6))
    y = net.op("Mul", net.op("MatMul", q, k, anchor=True), net.literal(0.353553))
    check_all(net, net.op("Add", y, net.input((2, 1, 1, 6))))
    net = Net()
    x, w = net.input((2, 6, 16)), net.constant((16, 12), scale=0.3)
    y = net.op("Add", net.op("MatMul", x, w, anchor=True), net.constant((12,)))
    check_all(net, net.op("Add", net.op("Gelu", y), net.input((2, 6, 12))))


@pytest.mark.parametrize("x_type", [np.uint8, np.int8])
def test_int8_products_are_exact_to_a_step(x_type):
    net = Net()
    x = net.dequantized(net.input((4, 6, 64), x_type), 0.02, 2)
    w = net.dequantized(net.constant((64, 48), np.int8), net.rng.uniform(1e-3, 1e-2, 48), axis=1)
    y = net.op("Add", net.op("MatMul", x, w, anchor=True), net.constant((48,)))
    check_all(net, net.quantized(net.op("Relu", y), 0.1, np.uint8))
    net = Net()
    x = net.dequantized(net.input((4, 64), x_type), 0.02)
    w = net.dequantized(net.constant((48, 64), np.int8), net.rng.uniform(1e-3, 1e-2, 48), axis=0)
    check_all(net, net.op("Gemm", x, w, net.constant((48,)), anchor=True, transB=1))


def test_int8_weights_with_a_zero_point_are_refused():
    net = Net()
    x = net.dequantized(net.input((4, 64), np.uint8), 0.02)
    w = net.dequantized(net.constant((64, 48), np.int8), 0.01, 5)
    (refused, *_) = ONEDNN.candidates(net.problem(net.op("MatMul", x, w, anchor=True)))
    assert "symmetric" in refused.reason


POOLS = {
    "max": ("MaxPool", {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}),
    "max ceil": ("MaxPool", {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1}),
    "average": ("AveragePool", {"kernel_shape": (2, 2), "strides": (2, 2)}),
    "average padded": (
        "AveragePool",
        {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "count_include_pad": 1},
    ),
    "average excluding": ("AveragePool", {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}),
    "global average": ("GlobalAveragePool", {}),
    "global max": ("GlobalMaxPool", {}),
}


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16])
@pytest.mark.parametrize("case", POOLS)
def test_pools_in_every_layout(case, dtype):
    op, attributes = POOLS[case]
    net = Net()
    tactics = check_all(net, net.op(op, net.input((2, 20, 8, 8), dtype), anchor=True, **attributes))
    assert {LINEAR, HWC, CHW16} <= {t.outputs[0] for t in tactics}


def test_int8_max_pool_keeps_its_integers():
    op, attributes = POOLS["max"]
    net = Net()
    check_all(net, net.op(op, net.input((2, 32, 8, 8), np.uint8), anchor=True, **attributes))
    net = Net()
    x = net.dequantized(net.input((2, 32, 8, 8), np.int8), 0.02)
    check_all(net, net.quantized(net.op(op, x, anchor=True, **attributes), 0.02))


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16])
@pytest.mark.parametrize(("shape", "axis"), [((4, 10), -1), ((2, 3, 8, 8), -1), ((2, 7, 1), 1)])
def test_softmax(shape, axis, dtype):
    net = Net()
    check_all(net, net.op("Softmax", net.input(shape, dtype), anchor=True, axis=axis))


def test_softmax_across_rows_is_refused():
    net = Net()
    y = net.op("Softmax", net.input((2, 7, 5)), anchor=True, axis=1)
    (refused,) = ONEDNN.candidates(net.problem(y))
    assert "only its plain loop for softmax" in refused.reason


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16])
def test_layer_normalization(dtype):
    net = Net()
    x, g, b = net.input((2, 6, 48), dtype), net.constant((48,), dtype), net.constant((48,), dtype)
    check_all(net, net.op("LayerNormalization", x, g, b, anchor=True))
    net = Net()
    x, g = net.input((2, 6, 8), dtype), net.constant((6, 8), dtype)
    check_all(net, net.op("LayerNormalization", x, g, anchor=True, axis=1))


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16, np.int8])
@pytest.mark.parametrize("axis", [1, -1])
def test_concat(axis, dtype):
    net = Net()
    parts = [net.input((2, 16, 5, 5), dtype) for _ in range(3)]
    tactics = check_all(net, net.op("Concat", *parts, anchor=True, axis=axis))
    assert {t.outputs[0] for t in tactics} >= {LINEAR, HWC}


@pytest.mark.parametrize("op", ["ReduceMean"])
@pytest.mark.parametrize("axes", [(1,), (0, 1), (-1,), (1, 2, 3)])
def test_reductions_of_other_axes(op, axes):
    net = Net()
    x, chosen = net.input((3, 16, 6, 20)), net.literal(axes, np.int64)
    check_all(net, net.op(op, x, chosen, anchor=True, keepdims=0))


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16, np.int8])
@pytest.mark.parametrize("perm", [(0, 2, 1, 3), (3, 2, 1, 0), (0, 2, 3, 1)])
def test_transpose(perm, dtype):
    net = Net()
    check_all(net, net.op("Transpose", net.input((2, 5, 7, 16), dtype), anchor=True, perm=perm))


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16, np.int8])
@pytest.mark.parametrize(("shape", "axis"), [((2, 96, 3, 5), 1), ((2, 3, 96), -1), ((96, 4), 0)])
def test_split(shape, axis, dtype):
    net = Net()
    x, sizes = net.input(shape, dtype), net.literal([32, 16, 48], np.int64)
    row = operator_named("Split")
    node = Node(row, (x, sizes), ("a", "b", "c"), row.complete({"axis": axis}))
    body = Body(tuple(net.inputs), (*net.nodes, node), node.outputs, len(net.nodes))
    problem = Problem(body, {}, CpuDevice(), 2)
    tactics = offered(problem)
    assert len(tactics) == (3 if len(shape) > 2 else 1)
    for tactic in tactics:
        call = ONEDNN.prepare(tactic, problem)
        found = run_once(call, tactic, problem, net.data)
        assert check_outputs(body, net.data, found), tactic.title


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceProd"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(op, keepdims):
    net = Net()
    x, axes = net.input((2, 16, 6, 6)), net.literal([2, 3], np.int64)
    check_all(net, net.op(op, x, axes, anchor=True, keepdims=keepdims))


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_a_largest_element_that_may_be_infinite_is_refused(op):
    net = Net()
    x, axes = net.input((2, 16, 6, 6)), net.literal([2, 3], np.int64)
    (refusal,) = ONEDNN.candidates(net.problem(net.op(op, x, axes, anchor=True)))
    assert isinstance(refusal, Refusal)
    assert "infinity" in refusal.reason


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16])
def test_pointwise_chains(dtype):
    net = Net()
    x, y = net.input((2, 20, 5, 5), dtype), net.input((2, 20, 5, 5), dtype)
    tactics = check_all(net, net.op("Relu", net.op("Add", x, y)))
    assert {LINEAR, HWC, CHW16} <= {t.outputs[0] for t in tactics}
    net = Net()
    check_all(net, net.op("HardSwish", net.input((2, 20, 5, 5), dtype)))
    net = Net()
    x, s = net.input((2, 20, 5, 5), dtype), net.input((2, 20, 1, 1), dtype)
    check_all(net, net.op("Mul", x, s))
    net = Net()
    x = net.input((3, 20), dtype)
    check_all(net, net.op("Tanh", net.op("Sub", net.constant((20,), dtype), x)))


@pytest.mark.parametrize("zeros", [(0, 0, 0), (4, 2, 6)])
def test_int8_addition_of_differently_scaled_tensors(zeros):
    net = Net()
    x = net.dequantized(net.input((2, 16, 5, 5), np.int8), 0.02, zeros[0])
    y = net.dequantized(net.input((2, 16, 5, 5), np.uint8), 0.03, zeros[1])
    check_all(net, net.quantized(net.op("Relu", net.op("Add", x, y)), 0.05, np.int8, zeros[2]))


def test_quantize_dequantize_and_cast_are_reorders():
    net = Net()
    tactics = check_all(net, net.quantized(net.input((2, 20, 5, 5)), 0.02))
    assert {(LINEAR, HWC), (HWC, HWC)} <= {(t.inputs[0], t.outputs[0]) for t in tactics}
    net = Net()
    check_all(net, net.dequantized(net.input((2, 20, 5, 5), np.uint8), 0.02, 128))
    net = Net()
    x = net.input((2, 20), np.int8)
    check_all(net, net.dequantized(x, net.rng.uniform(0.01, 0.1, 20), axis=1))
    for source, target in ((np.float32, BF16), (np.float16, np.float32), (np.float32, np.float16)):
        net = Net()
        check_all(net, net.op("Cast", net.input((3, 9), source), to=DataType.of(np.dtype(target))))


def test_a_bf16_product_adds_a_float32_residual_without_rounding_between() -> None:
    net = Net()
    x, w = net.input((6, 64), BF16), net.constant((64, 32), BF16)
    r = net.input((6, 32))
    product = net.op("MatMul", x, w, anchor=True)
    wide = net.op("Cast", product, to=DataType.FLOAT)
    y = net.op("Add", net.op("Add", wide, net.constant((32,))), r)
    problem = net.problem(y)
    bias = next(a for a in net.constants.values() if a.shape == (32,))
    factors = [a.astype(np.float64) for a in (net.data[x], net.constants[w])]
    exact = factors[0] @ factors[1] + bias + net.data[r]
    for tactic in check_all(net, y):
        call = ONEDNN.prepare(tactic, problem)
        assert isinstance(call, Call)
        (found,) = run_once(call, tactic, problem, net.data).values()
        assert np.abs(found - exact).max() < 2**-16 * np.abs(exact).max()


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16, np.int8, np.uint8, np.int32])
@pytest.mark.parametrize(("source", "target"), [(LINEAR, HWC), (HWC, CHW16), (CHW16, LINEAR)])
def test_reformats_move_every_element(source, target, dtype):
    net = Net()
    array = net._made((2, 20, 5, 5), dtype, 1.0)
    type_ = TensorType(DataType.of(array), array.shape)
    tactic = ONEDNN.reformat(type_, source, target)
    problem = Problem(reformat_body(type_), {}, CpuDevice(), 2)
    call = ONEDNN.prepare(tactic, problem)
    found = run_once(call, tactic, problem, {"input": array})
    np.testing.assert_array_equal(found["output"], array)


def test_threads_are_offered_by_the_size_of_the_layer():
    def counts(size):
        net = Net()
        x, w = net.input((1, 16, size, size)), net.constant((16, 16, 3, 3))
        y = net.op("Conv", x, w, anchor=True)
        return [t.parameter("threads") for t in offered(net.problem(y, threads=2))]

    assert set(counts(4)) == {1}
    assert counts(16)[0] == 2
    assert set(counts(16)) == {1, 2}
    assert set(counts(64)) == {2}


def test_neighbours_in_one_native_call_each_run_on_their_own_number_of_threads():
    library, counts = load(), []
    seen = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: counts.append(library.threads) or 0)
    note = function_call(address_of(seen), (), "a note of the threads", seen, words_of=str)
    net = Net()
    x, w = net.input((1, 16, 16, 16)), net.constant((16, 16, 3, 3))
    problem = net.problem(net.op("Conv", x, w, anchor=True), threads=2)
    by_threads = {t.parameter("threads"): t for t in offered(problem)}
    bound = [bind(ONEDNN.prepare(t, problem), t, problem) for t in by_threads.values()]
    (run,) = flat([launch for b in bound for launch in (b.launch, note)])
    for _ in range(2):
        run()
    assert counts == [*by_threads] * 2
    assert set(by_threads) == {1, 2}


def test_the_list_of_tactics_does_not_change_once_some_are_prepared():
    def made():
        net = Net()
        x, w = net.input((1, 16, 9, 11)), net.constant((16, 16, 3, 3))
        return net.problem(net.op("Conv", x, w, anchor=True))

    first = offered(made())
    kept = [ONEDNN.prepare(t, made()) for t in first]
    assert offered(made()) == first
    assert len(kept) == len(first)


def test_a_tactic_prepares_at_another_batch():
    def at(batch):
        net = Net()
        x, w = net.input((batch, 16, 8, 8)), net.constant((16, 16, 3, 3), scale=0.2)
        return net, net.op("Relu", net.op("Conv", x, w, anchor=True, pads=(1, 1, 1, 1)))

    net, y = at(1)
    for tactic in offered(net.problem(y)):
        other, z = at(7)
        problem = other.problem(z)
        call = ONEDNN.prepare(tactic, problem)
        assert isinstance(call, Call), f"{tactic.title}: {call}"
        found = run_once(call, tactic, problem, other.data)
        assert check_outputs(problem.body, {**other.data, **other.constants}, found)


def test_one_call_is_bound_twice_and_shares_its_weights():
    net = Net()
    x, w = net.input((1, 16, 8, 8)), net.constant((16, 16, 3, 3), scale=0.2)
    problem = net.problem(net.op("Conv", x, w, anchor=True))
    tactic = offered(problem)[0]
    call = ONEDNN.prepare(tactic, problem)
    assert set(call.packed) == {"weights"}
    first, second = (bind(call, tactic, problem) for _ in range(2))
    for bound, factor in ((first, 1), (second, 2)):
        bound.write({x: net.data[x] * np.float32(factor)})
    first.launch()
    second.launch()
    one, two = (next(iter(b.read().values())) for b in (first, second))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-5, atol=1e-5)


def test_what_onednn_cannot_do_is_refused_with_the_reason():
    net = Net()
    x, y = net.input((3,), np.int64), net.input((3,), np.int64)
    (refused,) = ONEDNN.candidates(net.problem(net.op("Add", x, y)))
    assert "INT64" in str(refused)
    net = Net()
    y = net.op("LRN", net.input((1, 4, 3, 3)), anchor=True, size=3)
    (refused,) = ONEDNN.candidates(net.problem(y))
    assert "no primitive for LRN" in str(refused)
