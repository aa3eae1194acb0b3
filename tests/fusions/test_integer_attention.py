"""INT8 attention: what becomes one layer, what stays apart and why, and on which devices."""

import numpy as np
import pytest
from sketch import Sketch, applied, refusal

from workbench import fusions
from workbench.datatypes import DataType
from workbench.devices import CpuDevice, Fingerprint
from workbench.network import Tensor

WHOLE = [
    *("DequantizeLinear", "DequantizeLinear", "MatMul", "Softmax"),
    *("QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul"),
]


class Elsewhere(CpuDevice):
    """A device of another kind, or with other instructions."""

    def __init__(self, kind: str, *features: str) -> None:
        super().__init__(1)
        self.given = Fingerprint(kind, "another device", features)

    @property
    def fingerprint(self) -> Fingerprint:
        return self.given


def attention(s: Sketch, *, scale: float = 1 / 127) -> Tensor:
    """Q, K, V as INT8 inputs, dequantized; probabilities quantized and dequantized."""
    shapes = {"q": (2, 5, 4), "k": (2, 4, 7), "v": (2, 7, 6)}
    q, k, v = (
        s(
            "DequantizeLinear",
            s.input("batch", *shape, name=f"{n}_in", dtype="int8"),
            s.value(0.02, f"{n}.scale"),
            s.value(np.int8(0), f"{n}.zero"),
            name=f"{n}.dq",
        )
        for n, shape in shapes.items()
    )
    p = s("Softmax", s("MatMul", q, k, name="scores"), name="softmax")
    return s("MatMul", s.quantize(p, scale, name="p"), v, name="mix")


def parts(s: Sketch) -> list[str]:
    (whole,) = s.operators()
    return sorted(whole.split("+"))


def test_both_integer_products_and_the_softmax_are_one_layer() -> None:
    s = Sketch()
    s.output(attention(s))
    attempts = s.fuse()
    assert parts(s) == sorted(WHOLE)
    (layer,) = s.network.layers
    assert layer.op == "Softmax"
    assert layer.precision is DataType.INT8
    assert set(layer.origin) >= {"scores", "softmax", "mix", "p.q", "p.dq", "q.dq", "k.dq", "v.dq"}
    assert applied(attempts, "integer_attention")[0].place[0] == "softmax"


def test_what_quantizes_the_factors_and_the_result_goes_inside_with_the_shuffles() -> None:
    s = Sketch()
    whole = s("Reshape", s.input("batch", 5, 24), s.value(np.array([0, 5, 3, 2, 4])))
    whole = s("Transpose", whole, perm=(2, 0, 3, 1, 4))
    found: list[Tensor] = []
    for k in range(3):
        bounds = (s.value(np.array([n])) for n in (k, k + 1, 0))
        found.append(s("Squeeze", s("Slice", whole, *bounds), s.value(np.array([0]))))
    q = s.quantize(s("Mul", found[0], s.value(0.7)), name="q")
    k = s.quantize(s("Transpose", found[1], perm=(0, 1, 3, 2)), name="k")
    p = s("Softmax", s("MatMul", q, k), name="softmax")
    y = s("MatMul", s.quantize(p, 1 / 127, name="p"), s.quantize(found[2], name="v"))
    y = s("Reshape", s("Transpose", y, perm=(0, 2, 1, 3)), s.value(np.array([0, 5, 8])))
    y = s("QuantizeLinear", y, s.value(0.01), s.value(np.int8(0)), name="y.q")
    s.output(y)
    attempts = s.fuse()
    assert parts(s).count("QuantizeLinear") == 5
    assert {"Slice", "Mul", "Transpose", "Reshape"} <= set(parts(s))
    assert len(applied(attempts, "integer_attention_quantize")) == 3
    assert len(applied(attempts, "attention_quantize")) == 1


def test_a_product_still_writes_the_int8_that_the_attention_reads() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 5, 8), name="x")
    product = s("MatMul", x, s.stored(8, 8, axis=1, name="w"), name="product")
    q = s.quantize(product, name="q")
    k = s.quantize(s.input("batch", 8, 7, name="k_in"), name="k")
    v = s.quantize(s.input("batch", 7, 6, name="v_in"), name="v")
    p = s("Softmax", s("MatMul", q, k), name="softmax")
    s.output(s("MatMul", s.quantize(p, 1 / 127, name="p"), v))
    s.fuse()
    assert "DequantizeLinear+DequantizeLinear+MatMul+QuantizeLinear" in s.operators()
    whole = next(x for x in s.network.layers if x.op == "Softmax")
    # Its own two factors come in floats, and are quantized inside; so are the probabilities.
    assert whole.operator_names.count("QuantizeLinear") == 3


def test_a_zero_point_keeps_the_products_apart() -> None:
    s = Sketch()
    q, k, v = (s.quantize(s.input("batch", 4, 4, name=f"{n}_in"), name=n) for n in "qkv")
    p = s("Softmax", s("MatMul", q, k), name="softmax")
    scale, zero = s.value(1 / 255, "p.scale"), s.value(np.int8(-128), "p.zero")
    stored = s("QuantizeLinear", p, scale, zero, name="p.q")
    s.output(s("MatMul", s("DequantizeLinear", stored, scale, zero, name="p.dq"), v))
    code, reason = refusal(s.fuse(), "integer_attention")
    assert code == "zero_point"
    assert "'p.zero' is not 0" in reason
    assert len(s.operators()) > 1


def test_probabilities_that_are_an_output_keep_the_layers_apart() -> None:
    s = Sketch()
    y = attention(s)
    s.output(y, s.network.layer("p.q").outputs[0])
    assert refusal(s.fuse(), "integer_attention")[0] == "marked_output"


@pytest.mark.parametrize(
    ("device", "whole"),
    [
        (Elsewhere("cpu", "avx2", "avx512_vnni"), True),
        (Elsewhere("cpu", "avx_vnni"), True),
        (Elsewhere("cpu", "avx512f"), False),
        (Elsewhere("cuda", "9.0"), False),
    ],
    ids=("avx512_vnni", "avx_vnni", "no dot products", "a GPU"),
)
def test_only_a_device_with_the_kernel_gets_the_whole(device: Elsewhere, whole: bool) -> None:
    s = Sketch()
    s.output(attention(s))
    attempts = fusions.fuse(s.network, device=device)
    assert (len(s.network.layers) == 1) is whole
    if whole:
        return
    code, reason = refusal(attempts, "integer_attention")
    assert code == "device"
    assert reason.startswith("no kernel on another device multiplies integers")
    # As they ran before: each product in integers, the softmax writes what the second one reads.
    assert s.operators() == [
        "DequantizeLinear+DequantizeLinear+MatMul",
        "Softmax+QuantizeLinear",
        "DequantizeLinear+DequantizeLinear+MatMul",
    ]
