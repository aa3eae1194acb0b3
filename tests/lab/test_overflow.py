"""NaN and overflow are found with layer, sample, value and limit."""

from __future__ import annotations

import numpy as np
import pytest
from planted import WIDTH, planted_trials, quick_config

import workbench as wb
from workbench.lab import PrecisionTrials, hunt_overflow
from workbench.lab.overflow import BEYOND, INHERITED
from workbench.network import NetworkDefinition
from workbench.reports.weights_and_types import headroom_rows, overflow_rows


def loud(gain: float, sample: int) -> PrecisionTrials:
    """Three products; the second's output is ``gain`` times too large, the third's is not."""
    network = NetworkDefinition("loud")
    x = network.add_input("x", "FP32", ("batch", WIDTH))
    for k, scale in enumerate((1.0, gain, 1 / gain)):
        w = network.constant((np.eye(WIDTH) * scale).astype(np.float32), f"w{k}")
        x = network.add_layer("MatMul", [x, w], name=f"fc{k}", origin=(f"fc{k}",)).outputs[0]
        act = network.add_layer("Relu", [x], name=f"act{k}", origin=(f"act{k}",))
        x = act.outputs[0]
    network.mark_output(x)
    network.model_nodes = tuple(n for layer in network.layers for n in layer.origin)
    data = np.random.default_rng(1).uniform(0, 1, (70, WIDTH)).astype(np.float32)
    data[sample] *= 100.0
    return PrecisionTrials(network, quick_config(), samples=_batches(data))


def _batches(data: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{"x": data[i : i + 32]} for i in range(0, len(data), 32)]


def test_the_layer_the_sample_the_value_and_the_limit_are_named() -> None:
    hunt = hunt_overflow(loud(1000.0, sample=45), wb.DataType.HALF)
    assert hunt.samples == 70
    (cause,) = hunt.causes
    assert cause.layer == "fc1"
    assert cause.sample == 45
    assert cause.limit == 65504
    assert 65504 < cause.value < 100001
    assert cause.found == np.inf
    assert cause.cause == BEYOND
    assert cause.samples == 1
    assert "fc1 (MatMul), sample 45" in str(cause)
    assert overflow_rows(hunt).iloc[0].to_dict()["Limit"] == 65504
    assert headroom_rows(hunt).iloc[0]["Share of limit"] > 1
    assert {o.layer for o in hunt.overflows if o.cause == INHERITED} >= {"act1"}
    assert hunt.nearest.layer in ("fc1", "act1")
    assert hunt.nearest.share == pytest.approx(cause.value / 65504)


def test_an_overflow_that_was_clipped_away_is_not_the_cause_of_a_later_one() -> None:
    network = NetworkDefinition("clipped")
    x = network.add_input("x", "FP32", ("batch", WIDTH))

    def add(op: str, inputs: list, name: str):
        return network.add_layer(op, inputs, name=name, origin=(name,)).outputs[0]

    def product(t, scale: float, name: str):
        held = network.constant((np.eye(WIDTH) * scale).astype(np.float32), f"{name}_w")
        return add("MatMul", [t, held], name)

    low, high = (network.constant(np.float32(v), f"at{v}") for v in (0, 70))
    far = add("Sub", [high, add("Clip", [product(x, 1e3, "first"), low, high], "clip")], "far")
    network.mark_output(product(far, 1e4, "second"))
    network.model_nodes = tuple(n for layer in network.layers for n in layer.origin)
    data = np.full((64, WIDTH), 0.07, np.float32)
    data[3], data[45] = 100.0, 0.06
    hunt = hunt_overflow(
        PrecisionTrials(network, quick_config(), samples=_batches(data)), wb.DataType.HALF
    )
    assert [(o.layer, o.sample, o.samples) for o in hunt.causes] == [
        ("first", 3, 1),
        ("second", 45, 1),
    ]


def test_bfloat16_reaches_far_enough() -> None:
    hunt = hunt_overflow(loud(1000.0, sample=45), wb.DataType.BF16)
    assert hunt.overflows == ()
    assert hunt.nearest.share < 1e-30


def test_what_fits_is_told_by_its_headroom() -> None:
    hunt = hunt_overflow(loud(100.0, sample=3), wb.DataType.HALF)
    assert hunt.overflows == ()
    assert 0.1 < hunt.nearest.share < 0.2
    assert hunt.nearest.sample == 3


def test_only_the_layers_that_are_lowered_have_the_lower_limit() -> None:
    trials = loud(1000.0, sample=45)
    config = trials.lowered(wb.DataType.HALF)
    config.precisions = (
        ("fc1", wb.DataType.FLOAT),
        ("act1", wb.DataType.FLOAT),
        ("fc2", wb.DataType.FLOAT),
    )
    assert hunt_overflow(trials, config=config).overflows == ()


def test_int8_clips_and_makes_nothing_infinite() -> None:
    assert hunt_overflow(planted_trials((6,)), wb.DataType.INT8).overflows == ()
