"""Host layers and sizes from data on an NVIDIA GPU, where copies to the host are allowed."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.builder import run_stages, start
from workbench.config import BuilderConfig, BuilderFlag
from workbench.network import NetworkDefinition

pytestmark = pytest.mark.gpu


def network() -> NetworkDefinition:
    """x reshaped as an input says, a product, and a view between kernels."""
    made = NetworkDefinition("late")
    x = made.add_input("x", "FLOAT", (6, 4))
    shape = made.add_input("shape", "INT64", (2,))
    positive = made.add_layer("Relu", [x]).outputs[0]
    rows = made.add_layer("Reshape", [positive, shape]).outputs[0]
    weight = made.constant(np.arange(6, dtype=np.float32).reshape(3, 2) - 2, "w")
    product = made.add_layer("MatMul", [rows, weight]).outputs[0]
    made.mark_output(made.add_layer("Relu", [product]).outputs[0])
    flat = made.add_layer("Reshape", [positive, made.constant(np.array([24]))]).outputs[0]
    made.mark_output(made.add_layer("Sigmoid", [flat]).outputs[0])
    return made


def test_a_late_plan_runs_on_the_gpu_with_host_layers_allowed():
    config = BuilderConfig()
    config.builder_optimization_level = 1
    config.allow_host_layers = True
    config.clear_flag(BuilderFlag.TF32)
    state = run_stages(start(network(), config, device="gpu"))
    engine = state.engine()
    assert {s.tactic.source for s in engine.plan.steps} >= {"HOST", "VIEW"}
    context = engine.create_execution_context()
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    for shape in ((8, 3), (-1, 3)):
        feeds = {"x": x, "shape": np.array(shape)}
        want = network().run(feeds)
        for name, array in context.run(feeds).items():
            np.testing.assert_allclose(array, want[name], rtol=1e-4, atol=1e-5)
