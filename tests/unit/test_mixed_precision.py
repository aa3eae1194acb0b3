"""Quantized products among layers of a half type: what Calibrate finds and Fuse leaves."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.builder.builder import build
from workbench.builder.state import BuildState
from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.network import NetworkDefinition

WIDTH = 16


def block() -> NetworkDefinition:
    """norm → product + bias → GELU → product + bias → + residual, as a transformer has it."""
    network, random = NetworkDefinition("block"), np.random.default_rng(0)

    def weight(*shape: int, name: str):
        return network.constant(random.standard_normal(shape).astype(np.float32), name)

    x = network.add_input("x", DataType.FLOAT, (3, 5, WIDTH))
    y = x
    for k, activation in enumerate(("Gelu", "")):
        ones = network.constant(np.ones(WIDTH, np.float32), f"ones{k}")
        y = network.add_layer("LayerNormalization", [y, ones], name=f"norm{k}").outputs[0]
        y = network.add_layer("MatMul", [y, weight(WIDTH, WIDTH, name=f"w{k}")], name=f"fc{k}")
        y = network.add_layer("Add", [y.outputs[0], weight(WIDTH, name=f"b{k}")], name=f"bias{k}")
        y = y.outputs[0]
        if activation:
            y = network.add_layer(activation, [y], name=activation).outputs[0]
    y = network.add_layer("Add", [y, x], name="residual").outputs[0]
    network.mark_output(y)
    return network


@pytest.fixture(scope="module", params=[DataType.INT8, DataType.FP8])
def state(request: pytest.FixtureRequest) -> BuildState:
    config = BuilderConfig()
    config.builder_optimization_level = 0
    config.default_precision = DataType.HALF
    config.set_precision("fc*", request.param)
    return build(block(), config, calibration="random")


def test_products_are_quantized_and_what_surrounds_them_is_half(state: BuildState):
    kind = {"fc0", "fc1"}
    built = {layer.name: layer.precision for layer in state.network.layers}
    products = [layer for layer in state.network.layers if layer.op == "MatMul"]
    asked = {state.config.precision_of(n) for n in kind}
    assert {layer.precision for layer in products} == asked and len(products) == 2
    norms = [layer for layer in state.network.layers if layer.op == "LayerNormalization"]
    assert {layer.precision for layer in norms} == {DataType.HALF}, built


def test_norms_write_what_the_products_read(state: BuildState):
    (kind,) = {state.config.precision_of(n) for n in ("fc0", "fc1")}
    for layer in state.network.layers:
        if layer.op == "LayerNormalization":
            assert layer.outputs[-1].dtype is kind
            assert layer.operator_names[-1] == "QuantizeLinear"
    assert len(state.network.layers) <= 6


def test_the_engine_computes_what_the_float_network_does(state: BuildState):
    x = np.random.default_rng(1).standard_normal((3, 5, WIDTH)).astype(np.float32)
    exact = build(block(), BuilderConfig()).engine().create_execution_context().run({"x": x})
    (found,) = state.engine().create_execution_context().run({"x": x}).values()
    (wanted,) = exact.values()
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 0.1
