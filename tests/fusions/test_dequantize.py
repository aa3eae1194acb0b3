from sketch import Sketch, applied, refusal

from workbench.datatypes import DataType


def test_both_factors_join_the_product_and_make_it_int8() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 3, 6, 6), name="x")
    y = s("Conv", x, s.stored(4, 3, 3, 3), s.weight(4, name="b"), name="conv")
    s.output(s("Relu", y))
    attempts = s.fuse()
    assert len(applied(attempts, "absorb_dequantize")) == 2
    layer = s.network.layer("conv")
    assert layer.precision is DataType.INT8
    assert layer.operator_names == ("DequantizeLinear", "DequantizeLinear", "Conv", "Relu")
    assert [i.type.dtype for i in layer.body.dynamic_inputs] == [DataType.INT8]


def test_each_reader_of_a_dequantized_tensor_gets_a_copy() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 3, 6, 6), name="x")
    for i, kernel in enumerate((1, 3)):
        w = s.stored(4, 3, kernel, kernel, name=f"w{i}")
        s.output(s("Conv", x, w, name=f"conv{i}"))
    attempts = s.fuse()
    assert len(applied(attempts, "duplicate_dequantize")) == 1
    assert s.operators() == ["QuantizeLinear", *["DequantizeLinear+DequantizeLinear+Conv"] * 2]
    assert all("x.dq" in s.network.layer(f"conv{i}").origin for i in range(2))


def test_a_float_reader_keeps_the_dequantize_layer() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 8), name="x")
    s.output(s("MatMul", x, s.stored(8, 8, axis=1), name="fc"), s("Softmax", x, name="soft"))
    s.fuse()
    assert s.operators() == [
        "QuantizeLinear", "DequantizeLinear", "DequantizeLinear+DequantizeLinear+MatMul", "Softmax"
    ]  # fmt: skip


def test_a_quantized_residual_is_read_as_int8() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 4, 6, 6), name="x")
    y = s("Conv", x, s.stored(4, 4, 3, 3), name="conv", pads=(1, 1, 1, 1))
    s.output(s("Relu", s("Add", y, x, name="sum")))
    s.fuse()
    layer = s.network.layer("conv")
    assert layer.op == "Conv"
    assert s.operators()[1:] == ["DequantizeLinear+DequantizeLinear+Conv+Add+Relu"]
    assert {i.type.dtype for i in layer.body.dynamic_inputs} == {DataType.INT8}


def test_a_product_with_one_float_factor_is_refused() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 8), name="x")
    s.output(s("MatMul", x, s.weight(8, 8), name="fc"))
    code, reason = refusal(s.fuse(), "absorb_dequantize")
    assert code == "other_factor_is_float"
    assert "'fc'" in reason
    assert s.network.layer("fc").precision is DataType.FLOAT


def test_weights_quantized_along_the_wrong_axis_are_refused() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 8), name="x")
    s.output(s("MatMul", x, s.stored(8, 6, axis=0), name="fc"))
    attempts = s.fuse()
    code, reason = refusal(attempts, "absorb_dequantize")
    assert code == "wrong_axis"
    assert "along axis 0, its output channels lie on 1" in reason


def test_two_dequantized_activations_make_an_int8_product() -> None:
    s = Sketch()
    a = s.quantize(s.input("batch", 4, 8, name="a"), name="qa")
    b = s.quantize(s.input("batch", 8, 5, name="b"), name="qb")
    s.output(s("MatMul", a, b, name="scores"))
    s.fuse()
    assert s.network.layer("scores").precision is DataType.INT8
