"""Random networks through Fold and Fuse: same outputs, faithful replay, no node lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch

from workbench.datatypes import DataType
from workbench.network import Tensor

Draw = Callable[[st.SearchStrategy], object]
UNARY = ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Softplus", "Identity", "Gelu")
BINARY = ("Add", "Mul", "Sub", "Max")
SHAPE = ("batch", 4, 4, 4)


def grown(s: Sketch, draw: Draw, values: list[Tensor], kinds: tuple[str, ...]) -> Tensor:
    """One more value of the shape that all values have."""
    x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))
    match draw(st.sampled_from(kinds)):
        case "unary":
            return s(draw(st.sampled_from(UNARY)), x)
        case "binary":
            return s(draw(st.sampled_from(BINARY)), x, y)
        case "conv":
            return s.conv(x, 4, draw(st.sampled_from([1, 3])), name="conv")
        case "norm":
            return s.norm(x, name="bn")
        case "channel":
            return s(draw(st.sampled_from(["Add", "Mul"])), x, s.weight(4, 1, 1))
        case "scalar":
            return s("Mul", x, s.value(draw(st.sampled_from([0.0, 0.5, 1.0]))))
        case "matmul":
            return s("MatMul", x, s.weight(4, 4))
        case "transpose":
            return s("Transpose", x, perm=(0, *draw(st.permutations((1, 2, 3)))))
        case "reshape":
            flat = s("Reshape", x, s.value(np.array([0, 16, 4])))
            return s(
                "Reshape", s("Transpose", flat, perm=(0, 2, 1)), s.value(np.array([0, 4, 4, 4]))
            )
        case "cast":
            return s("Cast", s("Cast", x, to=DataType.DOUBLE), to=DataType.FLOAT)
        case "split":
            parts = s.layer("Split", x, s.value(np.array([1, 3])), outputs=2, axis=1)
            return s("Concat", *reversed(parts), axis=1)
        case "quantized":
            stored = s.stored(4, 4, 1, 1)
            return s("Conv", s.quantize(x, name="q"), stored)
        case "int8":
            return s.quantize(x, draw(st.sampled_from([0.05, 0.1])), name="q")
        case "pool":
            return s("MaxPool", x, kernel_shape=(3, 3), pads=(1, 1, 1, 1))
        case _:
            return s("Softmax", x)


def network(draw: Draw, kinds: tuple[str, ...]) -> Sketch:
    s = Sketch(draw(st.integers(0, 999)))
    values = [s.input(*SHAPE)]
    for _ in range(draw(st.integers(3, 14))):
        values.append(grown(s, draw, values, kinds))
    s.output(*(t for t in values if not t.users and not t.is_network_input))
    if draw(st.booleans()):
        s.output(values[len(values) // 2]) if values[len(values) // 2].producer else None
    return s


FLOAT = (
    "unary", "binary", "conv", "norm", "channel", "scalar", "matmul", "transpose", "reshape",
    "cast", "split", "softmax",
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_float_networks_keep_their_meaning_through_fold_and_fuse(data: st.DataObject) -> None:
    s = network(data.draw, FLOAT)
    s.fold()
    s.fuse()


INT8 = ("quantized", "quantized", "int8", "unary", "binary", "conv", "pool", "split", "channel")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_quantized_networks_keep_their_meaning_through_fuse(data: st.DataObject) -> None:
    network(data.draw, INT8).fuse()
