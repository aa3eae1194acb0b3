"""Every family of fusions as models write it: products with bias, activation and residual; rows."""

import numpy as np
import pytest
from sketch import Sketch

from workbench.datatypes import DataType
from workbench.network import Tensor

ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Swish", "HardSwish", "Tanh", "Gelu", "Elu")
PRODUCTS = ("Conv", "depthwise", "ConvTranspose", "Gemm", "MatMul")


def activated(s: Sketch, x: Tensor, activation: str) -> Tensor:
    limits = (s.value(0.0), s.value(6.0)) if activation == "Clip" else ()
    return s(activation, x, *limits, name="act")


def product(s: Sketch, kind: str) -> tuple[Tensor, str]:
    """A product with a bias, and the operators that it is."""
    image, rows = s.input("batch", 4, 6, 6), s.input("batch", 8, name="rows")
    bias = s.weight(4, name="bias")
    match kind:
        case "Conv":
            return s("Conv", image, s.weight(4, 4, 3, 3), bias, pads=(1,) * 4, name="p"), kind
        case "depthwise":
            w = s.weight(4, 1, 3, 3)
            return s("Conv", image, w, bias, pads=(1,) * 4, group=4, name="p"), "Conv"
        case "ConvTranspose":
            w = s.weight(4, 4, 3, 3)
            return s("ConvTranspose", image, w, bias, pads=(1,) * 4, name="p"), kind
        case "Gemm":
            return s("Gemm", rows, s.weight(4, 8), bias, transB=1, name="p"), kind
        case _:
            return s("Add", s.linear(rows, 4, name="p"), bias, name="add_bias"), "MatMul+Add"


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_product_with_bias_activation_and_residual_is_one_layer(
    kind: str, activation: str
) -> None:
    s = Sketch()
    y, name = product(s, kind)
    rest = s.input(*y.shape, name="rest")
    s.output(s("Add", activated(s, y, activation), rest, name="residual"))
    s.fuse()
    assert s.operators() == [f"{name}+{activation}+Add"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_residual_before_the_activation_is_one_layer_too(kind: str, activation: str) -> None:
    s = Sketch()
    y, name = product(s, kind)
    rest = s.input(*y.shape, name="rest")
    s.output(activated(s, s("Add", rest, y, name="residual"), activation))
    s.fuse()
    assert s.operators() == [f"{name}+Add+{activation}"]


ROWS = ("Softmax", "LayerNormalization", "RMSNormalization", "GroupNormalization", "ReduceMean")


def row_operator(s: Sketch, x: Tensor, kind: str) -> Tensor:
    match kind:
        case "Softmax":
            return s(kind, x, axis=-1, name="rows")
        case "LayerNormalization":
            return s(kind, x, s.weight(8), s.weight(8), axis=-1, name="rows")
        case "RMSNormalization":
            return s(kind, x, s.weight(8), axis=-1, name="rows")
        case "GroupNormalization":
            return s(kind, x, s.weight(4), s.weight(4), num_groups=2, name="rows")
        case _:
            return s(kind, x, s.value(np.array([-1])), name="rows")


@pytest.mark.parametrize("kind", ROWS)
def test_rows_take_in_what_is_computed_before_and_after(kind: str) -> None:
    s = Sketch()
    x, y = s.input("batch", 4, 6, 8), s.input("batch", 4, 6, 8, name="y")
    before = s("Add", s("Mul", x, s.value(0.5)), y)
    after = s("Tanh", row_operator(s, before, kind))
    s.output(s("Mul", after, s.value(2.0)))
    s.fuse()
    assert s.operators() == [f"Mul+Add+{kind}+Tanh+Mul"]


# -- attention ----------------------------------------------------------------------------
def heads(s: Sketch, x: Tensor, *, count: int, turned: bool = False) -> Tensor:
    """[batch, tokens, width] as [batch, heads, tokens, width / heads], or turned."""
    x = s("Reshape", x, s.value(np.array([0, 0, count, x.shape[-1] // count])))
    return s("Transpose", x, perm=(0, 2, 3, 1) if turned else (0, 2, 1, 3))


def attention(s: Sketch, x: Tensor, *, mask: Tensor | None, key_heads: int = 4) -> Tensor:
    """Self attention of four heads with projections of its own, as exporters write it."""
    q, k, v = (
        s("Add", s.linear(x, width, name=name), s.weight(width, name=f"{name}.b"), name=f"{name}b")
        for name, width in (("q", 16), ("k", 4 * key_heads), ("v", 4 * key_heads))
    )
    q, k, v = heads(s, q, count=4), heads(s, k, count=key_heads), heads(s, v, count=key_heads)
    if key_heads < 4:
        k, v = repeated(s, k, 4 // key_heads), repeated(s, v, 4 // key_heads)
    k = s("Transpose", k, perm=(0, 1, 3, 2))
    scores = s("Mul", s("MatMul", q, k, name="scores"), s.value(0.5))
    if mask is not None:
        scores = s("Add", scores, mask)
    y = s("MatMul", s("Softmax", scores, axis=-1, name="softmax"), v, name="mix")
    y = s("Reshape", s("Transpose", y, perm=(0, 2, 1, 3)), s.value(np.array([0, 0, 16])))
    return s("Add", s.linear(y, 16, name="out"), x, name="residual")


def repeated(s: Sketch, x: Tensor, times: int) -> Tensor:
    """Each head for several: grouped heads as Expand between reshapes."""
    _, count, tokens, width = x.shape
    x = s("Unsqueeze", x, s.value(np.array([2])))
    x = s("Expand", x, s.value(np.array([1, 1, times, 1, 1])))
    return s("Reshape", x, s.value(np.array([0, count * times, tokens, width])))


@pytest.mark.parametrize("mask", ["none", "an input", "causal"])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_attention_with_merged_projections_is_three_layers(mask: str, key_heads: int) -> None:
    s = Sketch()
    x = s.input("batch", 5, 16)
    added = {
        "none": None,
        "an input": s.input("batch", 1, 1, 5, name="mask") if mask == "an input" else None,
        "causal": s.value(np.triu(np.full((5, 5), -1e9), 1).astype(np.float32)),
    }[mask]
    s.output(
        s("Tanh", attention(s, s("Softmax", x, name="first"), mask=added, key_heads=key_heads))
    )
    s.fold()
    s.fuse()
    first, projections, mixed, out = s.operators()
    assert (first, projections) == ("Softmax", "MatMul+Add")
    assert mixed.count("MatMul") == 2
    assert out == "MatMul+Add+Tanh"


# -- siblings -----------------------------------------------------------------------------
def test_pointwise_siblings_of_one_tensor_are_one_layer_of_two_outputs() -> None:
    s = Sketch()
    x = s("Softmax", s.input("batch", 5, 8), name="first")
    a, b = s("Tanh", x, name="a"), s("Mul", x, s.input("batch", 5, 8, name="y"), name="b")
    s.output(s("ReduceSum", a, s.value(np.array([1]))), s("ReduceMax", b, s.value(np.array([1]))))
    s.fuse()
    assert s.operators() == ["Softmax", "Tanh+Mul", "ReduceSum", "ReduceMax"]


# -- quantized ----------------------------------------------------------------------------
@pytest.mark.parametrize("mover", ["Transpose", "Reshape", "MaxPool"])
def test_a_pair_before_a_mover_reaches_the_product_behind_it(mover: str) -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 4, 6, 6), name="q")
    match mover:
        case "Transpose":
            x = s("Transpose", x, perm=(0, 2, 3, 1))
        case "Reshape":
            x = s("Reshape", x, s.value(np.array([0, 24, 6])))
        case _:
            x = s("MaxPool", x, kernel_shape=(2, 2), strides=(1, 1))
    w = s.stored(x.shape[-1], 8, axis=1)
    s.output(s("MatMul", x, w, name="fc"))
    s.fuse()
    assert s.operators()[-1] == "DequantizeLinear+DequantizeLinear+MatMul"


def test_a_quantized_weight_that_is_transposed_is_stored_transposed() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 6), name="q")
    w = s("Transpose", s.stored(8, 6, axis=0), perm=(1, 0), name="turn")
    s.output(s("MatMul", x, w, name="fc"))
    s.fold()
    s.fuse()
    assert s.operators()[-1] == "DequantizeLinear+DequantizeLinear+MatMul"
    assert "Transpose" not in "".join(s.operators())


def test_a_pair_whose_floats_are_read_elsewhere_is_dequantized_there() -> None:
    s = Sketch()
    x = s.quantize(s("Softmax", s.input("batch", 4, 6)), name="q")
    turned = s("Transpose", x, perm=(0, 2, 1), name="turn")
    s.output(s("ReduceMax", turned, s.value(np.array([1]))))
    s.fuse()
    assert [o for o in s.operators() if "DequantizeLinear" in o] == ["DequantizeLinear"]


def test_fp8_goes_from_product_to_product() -> None:
    s = Sketch()
    fp8 = DataType.FP8.numpy

    def quantized(x: Tensor, name: str) -> Tensor:
        scale = s.value(0.05, f"{name}.scale")
        q = s("QuantizeLinear", x, scale, output_dtype=DataType.FP8, name=f"{name}.q")
        return s("DequantizeLinear", q, scale, name=f"{name}.dq")

    def stored(rows: int, columns: int) -> Tensor:
        q = s.value(s.random.standard_normal((rows, columns)).astype(fp8), "w.fp8")
        return s("DequantizeLinear", q, s.value(np.full(columns, 0.02), "w.scale"), axis=1)

    x = quantized(s.input("batch", 16), "x")
    y = s("Relu", s("Add", s("MatMul", x, stored(16, 8), name="fc1"), s.weight(8, name="b")))
    s.output(s("MatMul", quantized(y, "y"), stored(8, 4), name="fc2"))
    s.fuse()
    assert s.operators() == [
        "QuantizeLinear",
        "DequantizeLinear+DequantizeLinear+MatMul+Add+Relu+QuantizeLinear",
        "DequantizeLinear+DequantizeLinear+MatMul",
    ]
    assert s.network.layer("fc1").outputs[0].dtype is DataType.FP8
