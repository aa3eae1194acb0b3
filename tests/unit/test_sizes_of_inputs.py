"""Sizes that inputs have together: expressions of a profile's and a run's shapes are held."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.builder import build
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.dimensions import symbol
from workbench.errors import ConfigError, ExecutionError
from workbench.network import NetworkDefinition


def cache_and_mask() -> NetworkDefinition:
    """``mask`` [past + 1, 4] + (``past`` [past, 4], one row of ones); the mask comes first."""
    net = NetworkDefinition("cache")
    past = symbol("past")
    mask = net.add_input("mask", "FP32", (past + 1, 4))
    cache = net.add_input("cache", "FP32", (past, 4))
    row = net.constant(np.ones((1, 4), np.float32))
    joined = net.add_layer("Concat", [cache, row], {"axis": 0}).outputs[0]
    net.mark_output(net.add_layer("Add", [mask, joined], outputs=["y"]).outputs[0])
    return net


def configured(longest_mask: int = 9) -> BuilderConfig:
    config = BuilderConfig()
    config.builder_optimization_level = 0
    config.num_threads = 1
    profile = OptimizationProfile().set_shape("mask", (2, 4), (3, 4), (longest_mask, 4))
    config.add_optimization_profile(profile.set_shape("cache", (1, 4), (2, 4), (8, 4)))
    return config


def test_a_profile_whose_shapes_do_not_fit_an_expression_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"size 10 where the network has 1 \+ past = 9 with past"):
        build(cache_and_mask(), configured(longest_mask=10))


def test_a_run_whose_shapes_do_not_fit_an_expression_is_refused() -> None:
    context = build(cache_and_mask(), configured()).engine().create_execution_context()

    def run(mask: int, cache: int) -> tuple[int, ...]:
        given = {"mask": np.ones((mask, 4), np.float32), "cache": np.ones((cache, 4), np.float32)}
        return context.run(given)["y"].shape

    assert run(4, 3) == (4, 4)
    with pytest.raises(ExecutionError, match=r"input 'mask'.* with 1 \+ past = 4"):
        run(5, 3)
    assert run(9, 8) == (9, 4)
