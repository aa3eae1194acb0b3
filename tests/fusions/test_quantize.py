import numpy as np
import pytest
from sketch import Sketch, applied, refusal

from workbench.datatypes import DataType


def int8_conv(s: Sketch) -> None:
    """conv + relu between Q/DQ, read by a second INT8 convolution."""
    x = s.quantize(s.input("batch", 3, 6, 6), name="x")
    y = s("Conv", x, s.stored(4, 3, 3, 3, name="w1"), name="one", pads=(1, 1, 1, 1))
    y = s.quantize(s("Relu", y, name="act"), name="y")
    s.output(s("Conv", y, s.stored(5, 4, 1, 1, name="w2"), name="two"))


def test_int8_product_writes_int8_when_its_reader_quantizes() -> None:
    s = Sketch()
    int8_conv(s)
    attempts = s.fuse()
    assert applied(attempts, "absorb_quantize")
    one, two = s.network.layer("one"), s.network.layer("two")
    assert one.outputs[0].dtype is DataType.INT8
    assert one.operator_names[-3:] == ("Conv", "Relu", "QuantizeLinear")
    assert one.precision is DataType.INT8
    assert two.outputs[0].dtype is DataType.FLOAT
    assert [x.op for x in s.network.layers] == ["QuantizeLinear", "Conv", "Conv"]


def test_identical_quantizations_of_one_tensor_are_merged_first() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 8), name="x")
    y = s("MatMul", x, s.stored(8, 8, axis=1, name="w1"), name="one")
    for i in range(2):
        z = s.quantize(y, 0.25, name=f"q{i}")
        s.output(s("MatMul", z, s.stored(8, 8, axis=1, name=f"u{i}"), name=f"reader{i}"))
    attempts = s.fuse()
    assert applied(attempts, "merge_quantize")[0].place == ("q0.q", "q1.q")
    assert applied(attempts, "absorb_quantize")
    assert [x.op for x in s.network.layers] == ["QuantizeLinear", "MatMul", "MatMul", "MatMul"]


def test_int8_output_is_refused_when_the_product_is_also_read_in_float() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 8), name="x")
    y = s("MatMul", x, s.stored(8, 8, axis=1), name="fc")
    s.output(s.quantize(y, name="y"), s("Softmax", y, name="soft"))
    code, reason = refusal(s.fuse(), "absorb_quantize")
    assert code == "second_consumer"
    assert "Softmax 'soft'" in reason


def test_a_float_product_does_not_write_int8() -> None:
    s = Sketch()
    s.output(s.quantize(s.linear(s.input("batch", 8), 8, name="fc"), name="y"))
    code, _ = refusal(s.fuse(), "absorb_quantize")
    assert code == "product_is_float"


@pytest.mark.parametrize("mover", ["MaxPool", "Reshape", "Transpose"])
def test_quantization_moves_before(mover: str) -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 3, 6, 6), name="x")
    y = s("Conv", x, s.stored(4, 3, 1, 1), name="conv")
    match mover:
        case "MaxPool":
            y = s("MaxPool", y, name="mover", kernel_shape=(2, 2), strides=(2, 2))
        case "Reshape":
            y = s("Reshape", y, s.value(np.array([-1, 4, 36])), name="mover")
        case _:
            y = s("Transpose", y, name="mover", perm=(0, 2, 3, 1))
    s.output(s.quantize(y, name="y"))
    attempts = s.fuse()
    assert applied(attempts, "quantize_earlier")
    assert s.network.layer("mover").outputs[0].dtype is DataType.INT8
    assert s.network.layer("conv").outputs[0].dtype is DataType.INT8


def test_quantization_stays_behind_a_pool_that_is_read_in_float() -> None:
    s = Sketch()
    y = s("MaxPool", s.input("batch", 3, 6, 6), name="pool", kernel_shape=(2, 2))
    s.output(s.quantize(y, name="y"), s("Softmax", y))
    assert refusal(s.fuse(), "quantize_earlier")[0] == "second_consumer"


def test_a_concatenation_is_quantized_part_by_part() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 3, 4, 4), name="x")
    parts = [
        s(
            "Conv",
            x,
            s.stored(2 + i, 3, 1 + 2 * i, 1 + 2 * i, name=f"w{i}"),
            name=f"c{i}",
            pads=(i,) * 4,
        )
        for i in range(2)
    ]
    s.output(s.quantize(s("Concat", *parts, name="join", axis=1), name="y"))
    assert applied(s.fuse(), "quantize_before_concat")
    assert s.network.layer("join").outputs[0].dtype is DataType.INT8
    assert {s.network.layer(n).outputs[0].dtype for n in ("c0", "c1")} == {DataType.INT8}


def test_requantizing_by_the_same_scale_is_left_out() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 8), 0.1, name="x")
    s.output(s.quantize(x, 0.1, name="again"))
    assert applied(s.fuse(), "requantize_pair")
    assert s.operators() == ["QuantizeLinear", "DequantizeLinear"]


def test_requantizing_by_another_scale_is_kept_with_the_reason() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 8), 0.1, name="x")
    s.output(s.quantize(x, 0.2, name="again"))
    assert refusal(s.fuse(), "requantize_pair")[0] == "scales_differ"


def test_a_half_is_quantized_without_a_cast() -> None:
    s = Sketch()
    x = s("Cast", s.input("batch", 8), name="narrow", to=DataType.HALF)
    y = s("LayerNormalization", x, s.weight(8, dtype="float16"), name="norm", axis=-1)
    s.output(s.quantize(s("Cast", y, name="wide", to=DataType.FLOAT), name="y"))
    attempts = s.fuse()
    assert applied(attempts, "quantize_half")
    assert s.network.layer("norm").operator_names == (
        "Cast",
        "LayerNormalization",
        "QuantizeLinear",
    )
    assert s.network.layer("norm").outputs[-1].dtype is DataType.INT8


def test_what_a_cast_rounds_is_quantized_after_it() -> None:
    s = Sketch()
    x = s.input("batch", 8)
    s.output(s.quantize(s("Cast", x, name="narrow", to=DataType.HALF), name="y"))
    assert refusal(s.fuse(), "quantize_half")[0] == "lossy_cast"
