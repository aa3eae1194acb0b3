"""Kernels that let the next one start before they end: the same results, decided once."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from workbench.builder import build
from workbench.bundle import bundled
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import DataType
from workbench.runtime import LayerInformationFormat, Runtime

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=["digits_cnn", "digits_vit"])
def state(request):
    config = BuilderConfig()
    config.default_precision = DataType.HALF
    config.builder_optimization_level = 2
    config.add_optimization_profile(
        OptimizationProfile().set_shape("image", (1, 1, 8, 8), (32, 1, 8, 8), (64, 1, 8, 8))
    )
    return build(bundled("datasets", f"{request.param}.onnx"), config, device="gpu")


def lets(plan, value: bool):
    return replace(plan, steps=tuple(replace(s, lets_next_start=value) for s in plan.steps))


@pytest.mark.parametrize("batch", [1, 32, 64])
def test_results_are_the_same_to_the_bit_however_many_start_early(state, batch):
    images = np.load(bundled("datasets", "digits.npz"))["test_images"][:batch]
    found = []
    for plan in (lets(state.plan, False), state.plan, lets(state.plan, True)):
        context = Runtime("gpu").deserialize(plan).create_execution_context()
        found += [context.run({"image": images})["logits"].tobytes() for _ in range(20)]
    assert len(set(found)) == 1


def test_what_was_decided_is_in_the_plan_and_the_next_build_decides_alike(state):
    config = state.config.clone()
    config.timing_cache = state.cache
    again = build(state.model, config, device="gpu", name=state.name)
    assert again.plan_bytes == state.plan_bytes
    loaded = Runtime("gpu").deserialize(state.plan_bytes)
    inspector = loaded.create_engine_inspector()
    layers = json.loads(inspector.get_engine_information(LayerInformationFormat.JSON))["Layers"]
    assert [x["LetsNextStart"] for x in layers] == [s.lets_next_start for s in state.plan.steps]
