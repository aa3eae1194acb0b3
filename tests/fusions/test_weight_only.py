"""WEIGHT_ONLY: a product takes in its 4-bit weights, the model's own or requested."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from workbench.builder import run_stages, start
from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.records import Stage

K, N, BLOCK = 64, 24, 32


def model(stored: DataType = DataType.INT4, *, first: bool = False, known: bool = True) -> bytes:
    """relu(x @ dequantized(w)), or with ``first`` dequantized(w) @ x."""
    random = np.random.default_rng(0)
    low, high = int(stored.info.low), int(stored.info.high) + 1
    weights = {
        "w": random.integers(low, high, (K, N)).astype(stored.numpy),
        "s": (0.01 + 0.02 * random.random((K // BLOCK, N))).astype(np.float32),
    }
    given = [numpy_helper.from_array(v, n) for n, v in weights.items() if known or n != "s"]
    scale = helper.make_tensor_value_info("s", TensorProto.FLOAT, (K // BLOCK, N))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (N, 3) if first else (3, K))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    operands = ["wide", "x"] if first else ["x", "wide"]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["wide"], axis=0, block_size=BLOCK),
        helper.make_node("MatMul", operands, ["product"]),
        helper.make_node("Relu", ["product"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x] if known else [x, scale], [y], given)
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def fused(data: bytes):
    state = run_stages(start(data, BuilderConfig()), until=Stage.FUSE)
    tried = [a for a in state.log[Stage.FUSE].attempts if a.rule == "weight_only"]
    return [x.operator_names for x in state.network.layers], tried


@pytest.mark.parametrize("stored", [DataType.INT4, DataType.UINT4])
def test_a_product_takes_in_its_four_bit_weights(stored):
    layers, tried = fused(model(stored))
    assert layers == [("DequantizeLinear", "MatMul", "Relu")]
    assert [a.applied for a in tried] == [True]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"first": True}, "second factor"),
        ({"known": False}, "'s'"),
    ],
)
def test_it_refuses_other_weights_with_the_reason(given, reason):
    layers, tried = fused(model(**given))
    assert ("DequantizeLinear", "MatMul", "Relu") not in layers
    assert tried and all(reason in str(a.refusal) for a in tried)


def test_weights_of_eight_bits_are_none_of_its_business():
    layers, tried = fused(model(DataType.INT8))
    assert ("DequantizeLinear",) in layers and not tried


def test_the_fused_layer_gives_what_the_model_gives():
    config = BuilderConfig()
    config.builder_optimization_level = 0
    config.verify = "all"
    data = model()
    x = np.random.default_rng(1).standard_normal((3, K)).astype(np.float32)
    state = run_stages(start(data, config))
    made = state.engine().create_execution_context().run({"x": x})["y"]
    (wanted,) = ReferenceEvaluator(data).run(None, {"x": x})
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)
