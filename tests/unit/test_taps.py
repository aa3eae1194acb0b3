"""Taps read inner tensors and change neither the plan nor a bit of the outputs."""

from __future__ import annotations

import numpy as np
import pytest
from engines import build, config, images, small_network

import workbench as wb
from workbench.bundle import bundled
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import DataType
from workbench.errors import ExecutionError
from workbench.network import NetworkDefinition
from workbench.runtime.taps import tensor_names


def digits(kind: DataType = DataType.FLOAT):
    made = BuilderConfig()
    made.builder_optimization_level, made.num_threads = 0, 1
    made.default_precision = kind
    shape = (1, 8, 8)
    made.add_optimization_profile(
        OptimizationProfile().set_shape("image", (1, *shape), (4, *shape), (8, *shape))
    )
    return wb.build(
        bundled("datasets", "digits_cnn.onnx"), made, calibration=bundled("datasets", "digits.npz")
    )


def test_every_tensor_inside_and_between_fused_layers_has_the_reference_value() -> None:
    state, batch = build(), {"image": images()}
    expected = small_network().run(batch, keep=True)
    context = state.engine().create_execution_context()
    names = tensor_names(context.engine)
    inner = {t.name for x in small_network().layers for t in x.outputs} & set(names)
    assert len(inner) >= 6
    run = context.tap(batch, sorted(inner))
    for name, tap in run.taps.items():
        np.testing.assert_allclose(tap.value, expected[name], atol=1e-5)
    assert run.taps["inner_out"].replayed
    assert run.taps["inner_out"].layer == run.taps["join_relu_out"].layer == "inner"
    assert not run.taps["join_relu_out"].replayed


@pytest.mark.parametrize("kind", [DataType.FLOAT, DataType.INT8])
def test_plan_and_outputs_are_the_same_to_the_last_bit_with_taps_on_and_off(
    kind: DataType,
) -> None:
    state = digits(kind)
    engine = state.engine()
    batch = {"image": np.random.default_rng(3).random((4, 1, 8, 8)).astype(np.float32)}
    context = engine.create_execution_context()
    plain = context.run(batch)
    tapped = context.tap(batch, tensor_names(engine))
    again = context.run(batch)
    for name, array in plain.items():
        assert array.tobytes() == tapped.outputs[name].tobytes() == again[name].tobytes()
    assert engine.plan.to_bytes() == state.plan_bytes
    assert len(tapped.taps) > engine.num_layers


def test_inside_an_int8_layer_the_integers_and_the_real_values_can_be_seen() -> None:
    engine = digits(DataType.INT8).engine()
    step = next(s for s in engine.plan.steps if "Conv" in s.body.operator_names)
    batch = {"image": np.random.default_rng(3).random((2, 1, 8, 8)).astype(np.float32)}
    read = next(n.inputs[0] for n in step.body.nodes if n.op == "Conv")
    run = engine.create_execution_context().tap(batch, [step.inputs[0].split("@")[0], read])
    stored, real = run.taps.values()
    assert stored.value.dtype == np.int8
    assert (real.value.dtype, real.replayed, real.layer) == (np.float32, True, step.name)


def test_an_input_can_be_tapped_and_a_name_that_is_not_there_names_its_neighbours() -> None:
    context = build().engine().create_execution_context()
    batch = {"image": images()}
    assert context.tap(batch, ["image"])["image"] is batch["image"]
    with pytest.raises(ExecutionError, match="no tensor 'inner_ou'") as caught:
        context.tap(batch, ["inner_ou"])
    assert "inner_out" in caught.value.remedy


def test_memory_that_a_later_layer_overwrites_is_read_in_time() -> None:
    network = NetworkDefinition("chain")
    tensor = network.add_input("image", "FP32", (2, 3, 8, 8))
    for i in range(6):
        tensor = network.add_layer("Softmax", [tensor], {"axis": 1 + i % 3}).outputs[0]
    network.mark_output(tensor)
    made = config()
    made.optimization_profiles = ()
    state, batch = build(made, network), {"image": images(2)}
    assert state.memory[0].arena_bytes < state.memory[0].total_bytes
    expected = network.run(batch, keep=True)
    names = [t.name for x in network.layers for t in x.outputs]
    run = state.engine().create_execution_context().tap(batch, names)
    for name in names:
        np.testing.assert_allclose(run[name], expected[name], atol=1e-5)
