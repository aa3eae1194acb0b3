"""TensorRT's add_* calls give the layers that their names promise."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.datatypes import DataType
from workbench.errors import NetworkError
from workbench.network import (
    ActivationType,
    ElementWiseOperation,
    GatherMode,
    MatrixOperation,
    NetworkDefinition,
    PaddingMode,
    PoolingType,
    ReduceOperation,
    ScaleMode,
    UnaryOperation,
)
from workbench.network.layer_types import ACTIVATION_OPERATORS
from workbench.operators import OPERATORS


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(add, *arrays):
    """The result of the layer that ``add(network, *tensors)`` gives, on these arrays."""
    network = NetworkDefinition("one")
    tensors = [network.add_input(f"i{k}", DataType.of(a), a.shape) for k, a in enumerate(arrays)]
    layer = add(network, *tensors)
    network.mark_output(layer.get_output(0))
    network.verify()
    (result,) = network.run({f"i{k}": a for k, a in enumerate(arrays)}).values()
    return result


X = normal(0, 2, 3, 6, 5)


def test_a_network_written_by_hand_runs():
    network = NetworkDefinition("hand")
    x = network.add_input("x", "FLOAT", ("batch", 3, 8, 8))
    conv = network.add_convolution_nd(
        x, 4, (3, 3), normal(1, 4, 3, 3, 3), normal(2, 4), padding_nd=(1, 1), name="conv"
    )
    relu = network.add_activation(conv.get_output(0), ActivationType.RELU)
    pool = network.add_pooling_nd(relu.get_output(0), PoolingType.MAX, (2, 2), stride_nd=(2, 2))
    flat = network.add_shuffle(pool.get_output(0), reshape_dims=(0, -1))
    weight = network.add_constant((64, 10), normal(3, 640)).get_output(0)
    product = network.add_matrix_multiply(
        flat.get_output(0), MatrixOperation.NONE, weight, MatrixOperation.NONE
    )
    soft = network.add_softmax(product.get_output(0), axes=1 << 1, name="soft")
    network.mark_output(soft.get_output(0))
    network.verify()
    assert [x.type for x in network.layers] == [
        "CONVOLUTION",
        "ACTIVATION",
        "POOLING",
        "SHUFFLE",
        "MATRIX_MULTIPLY",
        "SOFTMAX",
    ]
    (y,) = network.run({"x": normal(4, 5, 3, 8, 8)}).values()
    assert y.shape == (5, 10)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-5)


def test_weights_are_copied():
    network = NetworkDefinition()
    x = network.add_input("x", "FLOAT", (1, 1, 4, 4))
    kernel, bias = np.ones((1, 1, 3, 3), np.float32), np.zeros(1, np.float32)
    frozen_view = kernel.view()
    frozen_view.flags.writeable = False
    first = network.add_convolution_nd(x, 1, (3, 3), kernel, bias)
    second = network.add_convolution_nd(x, 1, (3, 3), frozen_view)
    for layer in (first, second):
        network.mark_output(layer.get_output(0))
    kernel[:] = 5
    bias[:] = 5
    one, two = network.run({"x": np.ones((1, 1, 4, 4), np.float32)}).values()
    assert (one == 9).all() and (two == 9).all()


@pytest.mark.parametrize("mode", list(PaddingMode))
def test_padding_modes_give_the_sizes_of_onnx(mode):
    given = {} if mode.name.startswith("SAME") else {"padding_nd": (1, 1)}

    def pool(n, x):
        return n.add_pooling_nd(
            x, PoolingType.AVERAGE, (3, 3), stride_nd=(2, 2), padding_mode=mode, **given
        )

    sizes = {
        PaddingMode.EXPLICIT_ROUND_DOWN: (3, 3),
        PaddingMode.EXPLICIT_ROUND_UP: (4, 3),
        PaddingMode.SAME_UPPER: (3, 3),
        PaddingMode.SAME_LOWER: (3, 3),
    }
    assert run(pool, X).shape[2:] == sizes[mode]


def test_asymmetric_padding_and_groups():
    kernel = normal(1, 6, 1, 3, 3)

    def conv(n, x):
        return n.add_convolution_nd(
            x, 6, (3, 3), kernel, pre_padding=(0, 1), post_padding=(1, 0), num_groups=3
        )

    assert run(conv, X).shape == (2, 6, 5, 4)
    with pytest.raises(NetworkError, match="use one"):
        run(
            lambda n, x: n.add_pooling_nd(
                x, PoolingType.MAX, (2, 2), padding_nd=(1, 1), pre_padding=(1, 1)
            ),
            X,
        )


def test_deconvolution_undoes_the_stride():
    kernel = normal(1, 3, 4, 2, 2)
    up = run(lambda n, x: n.add_deconvolution_nd(x, 4, (2, 2), kernel, stride_nd=(2, 2)), X)
    assert up.shape == (2, 4, 12, 10)


def test_average_pooling_excludes_padding_unless_told():
    x = np.ones((1, 1, 2, 2), np.float32)

    def pool(**more):
        return run(
            lambda n, t: n.add_pooling_nd(
                t, PoolingType.AVERAGE, (2, 2), stride_nd=(1, 1), padding_nd=(1, 1), **more
            ),
            x,
        )

    assert (pool() == 1).all()
    assert pool(average_count_excludes_padding=False)[0, 0, 0, 0] == 0.25


ACTIVATIONS = {
    ActivationType.RELU: lambda x: np.maximum(x, 0),
    ActivationType.SIGMOID: lambda x: 1 / (1 + np.exp(-x)),
    ActivationType.TANH: np.tanh,
    ActivationType.LEAKY_RELU: lambda x: np.where(x < 0, 0.3 * x, x),
    ActivationType.ELU: lambda x: np.where(x < 0, 0.3 * np.expm1(x), x),
    ActivationType.SELU: lambda x: np.where(x < 0, 1.5 * 0.3 * np.expm1(x), 1.5 * x),
    ActivationType.SOFTSIGN: lambda x: x / (1 + abs(x)),
    ActivationType.SOFTPLUS: lambda x: np.log1p(np.exp(x)),
    ActivationType.CLIP: lambda x: np.clip(x, 0.3, 1.5),
    ActivationType.HARD_SIGMOID: lambda x: np.clip(0.3 * x + 1.5, 0, 1),
    ActivationType.SCALED_TANH: lambda x: 0.3 * np.tanh(1.5 * x),
    ActivationType.THRESHOLDED_RELU: lambda x: np.where(x > 0.3, x, 0),
}


@pytest.mark.parametrize("kind", ACTIVATIONS, ids=lambda k: k.name)
def test_activations_mean_what_tensorrt_says(kind):
    names = {"alpha": 0.3, "beta": 1.5}
    known = ACTIVATION_OPERATORS[kind][1] if kind in ACTIVATION_OPERATORS else names
    given = {k: v for k, v in names.items() if k in known}
    y = run(lambda n, x: n.add_activation(x, kind, **given), X)
    np.testing.assert_allclose(y, ACTIVATIONS[kind](X), rtol=1e-5, atol=1e-6)


def test_an_activation_refuses_a_number_that_it_does_not_use():
    with pytest.raises(NetworkError, match="RELU has no alpha"):
        run(lambda n, x: n.add_activation(x, ActivationType.RELU, alpha=1.0), X)
    with pytest.raises(NetworkError, match="CLIP needs alpha and beta"):
        run(lambda n, x: n.add_activation(x, ActivationType.CLIP, alpha=1.0), X)


@pytest.mark.parametrize("op", list(UnaryOperation), ids=lambda o: o.name)
def test_every_unary_operation_has_its_operator(op):
    x = np.abs(X) % 0.9 if op is not UnaryOperation.ACOSH else 1 + np.abs(X)
    x = x > 0.5 if op is UnaryOperation.NOT else x
    names = {"RECIP": "reciprocal", "NEG": "negative", "NOT": "logical_not", "ROUND": "rint"}
    special = {"ERF": lambda v: np.vectorize(__import__("math").erf)(v)}
    theirs = (
        special.get(op.name)
        or getattr(np, names.get(op.name, op.name.lower()), None)
        or getattr(np, f"arc{op.name.lower()[1:]}")
    )
    y = run(lambda n, t: n.add_unary(t, op), x)
    np.testing.assert_allclose(y, theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", list(ElementWiseOperation), ids=lambda o: o.name)
def test_every_elementwise_operation_has_its_meaning(op):
    a, b = normal(1, 3, 4), normal(2, 4)
    if op in (ElementWiseOperation.AND, ElementWiseOperation.OR, ElementWiseOperation.XOR):
        a, b = a > 0, b > 0
    if op is ElementWiseOperation.POW:
        a = np.abs(a)
    names = {
        "SUM": "add", "PROD": "multiply", "MAX": "maximum", "MIN": "minimum", "SUB": "subtract",
        "DIV": "divide", "POW": "power", "FLOOR_DIV": "floor_divide", "AND": "logical_and",
        "OR": "logical_or", "XOR": "logical_xor",
    }  # fmt: skip
    theirs = getattr(np, names.get(op.name, op.name.lower()))(a, b)
    y = run(lambda n, x, z: n.add_elementwise(x, z, op), a, b)
    np.testing.assert_allclose(y, theirs, rtol=1e-5)


def test_floor_division_of_integers_rounds_down():
    a = np.array([7, -7, 7, -7, 6], np.int32)
    b = np.array([2, 2, -2, -2, 3], np.int32)
    y = run(lambda n, x, z: n.add_elementwise(x, z, ElementWiseOperation.FLOOR_DIV), a, b)
    np.testing.assert_array_equal(y, a // b)


@pytest.mark.parametrize("op", list(ReduceOperation), ids=lambda o: o.name)
@pytest.mark.parametrize("keep", [False, True])
def test_reductions_take_a_bit_mask_of_axes(op, keep):
    theirs = {"SUM": np.sum, "PROD": np.prod, "MAX": np.max, "MIN": np.min, "AVG": np.mean}
    y = run(lambda n, x: n.add_reduce(x, op, 0b1010, keep), X)
    want = theirs[op.name](X, axis=(1, 3), keepdims=keep)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def test_an_axis_mask_that_does_not_fit_is_refused():
    with pytest.raises(NetworkError, match="0b10000 does not fit rank 4"):
        run(lambda n, x: n.add_reduce(x, ReduceOperation.SUM, 1 << 4, True), X)
    with pytest.raises(NetworkError, match="softmax takes one axis"):
        run(lambda n, x: n.add_softmax(x, axes=0b11), X)


@pytest.mark.parametrize("ops", [("NONE", "NONE"), ("TRANSPOSE", "NONE"), ("NONE", "TRANSPOSE")])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_matrix_multiply_transposes_its_operands(ops, batch):
    a, b = normal(1, *batch, 3, 4), normal(2, *batch, 4, 5)
    left, right = (MatrixOperation[o] for o in ops)
    given_a = np.ascontiguousarray(a.swapaxes(-1, -2)) if ops[0] == "TRANSPOSE" else a
    given_b = np.ascontiguousarray(b.swapaxes(-1, -2)) if ops[1] == "TRANSPOSE" else b
    y = run(lambda n, x, z: n.add_matrix_multiply(x, left, z, right), given_a, given_b)
    np.testing.assert_allclose(y, a @ b, rtol=1e-4, atol=1e-5)


def test_matrix_multiply_by_vectors():
    a, v = normal(1, 2, 3, 4), normal(2, 2, 4)
    vector, none = MatrixOperation.VECTOR, MatrixOperation.NONE
    y = run(lambda n, x, z: n.add_matrix_multiply(x, none, z, vector), a, v)
    np.testing.assert_allclose(y, np.einsum("bij,bj->bi", a, v), rtol=1e-4, atol=1e-5)
    y = run(lambda n, x, z: n.add_matrix_multiply(x, vector, z, vector), v, v)
    np.testing.assert_allclose(y, (v * v).sum(-1), rtol=1e-4)


def test_shuffle_transposes_reshapes_transposes():
    y = run(
        lambda n, x: n.add_shuffle(
            x, first_transpose=(0, 2, 3, 1), reshape_dims=(0, -1, 3), second_transpose=(0, 2, 1)
        ),
        X,
    )
    np.testing.assert_array_equal(y, X.reshape(2, 3, 30))
    np.testing.assert_array_equal(run(lambda n, x: n.add_shuffle(x), X), X)


def test_slices_go_forward_and_backward():
    y = run(lambda n, x: n.add_slice(x, (0, 1, 0, 4), (2, 2, 3, 5), (1, 1, 2, -1)), X)
    np.testing.assert_array_equal(y, X[:, 1:3, 0:5:2, ::-1])


def test_a_slice_outside_is_refused():
    with pytest.raises(NetworkError, match="axis 3 of size 5: elements 3 to 6"):
        run(lambda n, x: n.add_slice(x, (0, 0, 0, 3), (2, 3, 6, 4), (1,) * 4), X)
    with pytest.raises(NetworkError, match="give one number an axis"):
        run(lambda n, x: n.add_slice(x, (0,), (2,), (1,)), X)


def test_moving_layers_agree_with_numpy():
    index = np.array([2, 0], np.int64)
    one = run(lambda n, x: n.add_gather(x, index, 1), X)
    np.testing.assert_array_equal(one, X.take(index, 1))
    rows = np.zeros((2, 1, 6, 5), np.int64)
    element = run(lambda n, x: n.add_gather_v2(x, rows, GatherMode.ELEMENT, axis=1), X)
    np.testing.assert_array_equal(element, np.take_along_axis(X, rows, 1))
    pairs = np.array([[0, 1], [1, 2]], np.int64)
    nd = run(lambda n, x: n.add_gather_v2(x, pairs, GatherMode.ND), X)
    np.testing.assert_array_equal(nd, X[[0, 1], [1, 2]])
    joined = run(lambda n, x, z: n.add_concatenation([x, z]), X, X)
    np.testing.assert_array_equal(joined, np.concatenate([X, X], axis=1))
    padded = run(lambda n, x: n.add_padding_nd(x, (1, 0), (0, 2)), X)
    np.testing.assert_array_equal(padded, np.pad(X, ((0, 0), (0, 0), (1, 0), (0, 2))))
    shape = run(lambda n, x: n.add_shape(x), X)
    np.testing.assert_array_equal(shape, X.shape)
    wide = run(lambda n, x: n.add_unsqueeze(x, [0]), X)
    assert wide.shape == (1, *X.shape)
    assert run(lambda n, x: n.add_squeeze(x, [0]), wide).shape == X.shape
    chosen = run(lambda n, c, x: n.add_select(c, x, x), X > 0, X)
    np.testing.assert_array_equal(chosen, X)
    half = run(lambda n, x: n.add_cast(x, DataType.HALF), X)
    assert half.dtype == np.float16
    summed = run(lambda n, x: n.add_einsum([x], "bchw->bc"), X)
    np.testing.assert_allclose(summed, X.sum((2, 3)), rtol=1e-4, atol=1e-5)
    sloped = run(lambda n, x: n.add_parametric_relu(x, np.float32([[[0.5]]])), X)
    np.testing.assert_allclose(sloped, np.where(X < 0, 0.5 * X, X))


@pytest.mark.parametrize("mode", list(ScaleMode), ids=lambda m: m.name)
def test_scale_multiplies_shifts_and_raises(mode):
    shape = {"UNIFORM": (), "CHANNEL": (3,), "ELEMENTWISE": (3, 6, 5)}[mode.name]
    scale, shift = 1 + np.abs(normal(1, *shape)), 9 + np.abs(normal(2, *shape))
    power = np.full(shape, 2, np.float32)
    y = run(lambda n, x: n.add_scale(x, mode, shift, np.asarray(scale, np.float32), power), X)
    wide = (lambda v: np.reshape(v, (3, 1, 1))) if mode is ScaleMode.CHANNEL else np.asarray
    np.testing.assert_allclose(y, (X * wide(scale) + wide(shift)) ** 2, rtol=1e-4)
    with pytest.raises(NetworkError, match="given 7"):
        run(lambda n, x: n.add_scale(x, mode, normal(0, 7)), X)


def moments(x, axes):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def test_normalization_is_chosen_by_axes_and_groups():
    x = normal(0, 2, 4, 6, 5)
    channel, bias = normal(1, 1, 4, 1, 1), normal(2, 1, 4, 1, 1)
    y = run(lambda n, t: n.add_normalization(t, channel, bias, 0b1100), x)
    np.testing.assert_allclose(y, moments(x, (2, 3)) * channel + bias, rtol=1e-3, atol=1e-5)
    y = run(lambda n, t: n.add_normalization(t, channel, bias, 0b1100, num_groups=2), x)
    parts = moments(x.reshape(2, 2, 2, 6, 5), (2, 3, 4)).reshape(x.shape)
    np.testing.assert_allclose(y, parts * channel + bias, rtol=1e-3, atol=1e-5)
    scale, bias = normal(1, 5), normal(2, 5)
    y = run(lambda n, t: n.add_normalization(t, scale, bias, 0b1000), x)
    np.testing.assert_allclose(y, moments(x, (3,)) * scale + bias, rtol=1e-3, atol=1e-5)
    with pytest.raises(NetworkError, match="normalize the last axes"):
        run(lambda n, t: n.add_normalization(t, scale, bias, 0b0010), x)
    y = run(lambda n, t: n.add_lrn(t, 3, 0.1, 0.75, 1.0), x)
    assert y.shape == x.shape


def test_quantize_and_dequantize_lose_at_most_half_a_step():
    def pair(n, x):
        q = n.add_quantize(x, 0.05)
        assert q.get_output(0).dtype is DataType.INT8
        return n.add_dequantize(q.get_output(0), 0.05)

    y = run(pair, X)
    inside = np.abs(X) < 6
    assert (np.abs(y - X)[inside] <= 0.0251).all()

    def channels(n, x):
        q = n.add_quantize(x, [0.05, 0.1, 0.2], axis=1)
        return n.add_dequantize(q.get_output(0), [0.05, 0.1, 0.2], axis=1)

    assert (np.abs(run(channels, X) - X) <= 0.101).all()
    eight = run(lambda n, x: n.add_quantize(x, 0.05, DataType.FP8), X)
    assert eight.dtype == DataType.FP8.numpy


def test_every_operator_named_by_an_enumeration_exists():
    from workbench.network import layer_types

    tables = (
        layer_types.ELEMENTWISE_OPERATORS.values(),
        layer_types.UNARY_OPERATORS.values(),
        layer_types.REDUCE_OPERATORS.values(),
        (row[0] for row in layer_types.ACTIVATION_OPERATORS.values()),
    )
    assert {name for table in tables for name in table} <= set(OPERATORS)
