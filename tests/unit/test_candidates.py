from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engines import build, config

from workbench.config import BuilderConfig, BuilderFlag, MemoryPoolType
from workbench.network import NetworkDefinition
from workbench.records import Refusal
from workbench.selection import Candidate, candidates
from workbench.selection.candidates import Workshop
from workbench.selection.layer_problem import LayerProblem, constants_of
from workbench.tactics.numpy_source import NUMPY


def offers(made: BuilderConfig) -> list[Candidate]:
    """What NUMBA offered for every layer."""
    tuned = build(made).tuned
    assert tuned is not None
    return [c for x in tuned.layers for c in x.candidates if c.source == "NUMBA" and c.tactic]


def test_a_kernel_is_not_compiled_for_a_layer_that_another_source_runs_fast(monkeypatch):
    monkeypatch.setattr(candidates, "WORTH_COMPILING_US", float("inf"))
    for c in offers(config(level=3)):
        assert c.refusal is not None
        assert "not compiled: ONEDNN takes" in c.refusal.reason
        assert "builder_optimization_level to 4" in c.refusal.remedy


def test_a_slow_layer_or_level_4_compiles_every_kernel(monkeypatch):
    monkeypatch.setattr(candidates, "WORTH_COMPILING_US", 0.0)
    assert any(c.timing for c in offers(config(level=3)))
    monkeypatch.setattr(candidates, "WORTH_COMPILING_US", float("inf"))
    assert any(c.timing for c in offers(config(level=4)))


def test_where_nothing_else_runs_a_layer_its_kernel_is_compiled(monkeypatch):
    monkeypatch.setattr(candidates, "WORTH_COMPILING_US", float("inf"))
    made = config(level=3)
    made.tactic_sources = ("NUMBA", "NUMPY")
    assert any(c.timing for c in offers(made))


@pytest.mark.parametrize("level", [1, 3])
def test_the_same_cache_gives_the_same_decision_again(level):
    made = config(level=level)
    made.timing_cache = None
    first = build(made)
    made.timing_cache = first.cache
    second = build(made)
    assert second.tuned is not None
    assert second.tuned.timed == 0
    assert second.plan_bytes == first.plan_bytes


def two_convolutions(*points: int) -> NetworkDefinition:
    """INT8 convolutions alike but for the zero points of their inputs, and for their weights."""
    net, random = NetworkDefinition("points"), np.random.default_rng(0)
    x = net.add_input("image", "INT8", (1, 4, 8, 8))
    for k, point in enumerate(points):
        scale, zero = net.constant(np.float32(0.05 + k), f"s{k}"), net.constant(np.int8(point))
        weights = net.constant(random.standard_normal((4, 4, 3, 3)).astype(np.float32))
        real = net.add_layer("DequantizeLinear", [x, scale, zero]).outputs[0]
        pads = {"pads": (1, 1, 1, 1)}
        net.mark_output(net.add_layer("Conv", [real, weights], pads, name=f"conv{k}").outputs[0])
    return net


def plain(level: int = 1) -> BuilderConfig:
    made = BuilderConfig()
    made.builder_optimization_level = level
    made.num_threads = 1
    made.avg_timing_iterations = 2
    return made


def test_layers_with_different_zero_points_are_tuned_one_by_one(monkeypatch):
    asked = []

    def spy(problem):
        asked.append(sorted(int(v) for v in problem.constants.values() if v.dtype == np.int8))
        return offered(problem)

    offered = NUMPY.candidates
    monkeypatch.setattr(NUMPY, "candidates", spy)
    build(plain(), two_convolutions(0, 3, 3))
    assert asked.count([0]) == asked.count([3]) > 0


def test_what_may_pass_is_told_but_not_kept_with_the_timings(monkeypatch):
    def dies(tactic, problem):
        return Refusal("the compiler died", code="compile")

    with monkeypatch.context() as broken:
        broken.setattr(NUMPY, "prepare", dies)
        first = build(plain(), two_convolutions(0))
    assert first.tuned is not None
    told = [c.refusal for x in first.tuned.layers for c in x.candidates if c.source == "NUMPY"]
    assert any("the compiler died" in str(r) for r in told)
    made = plain()
    made.timing_cache = first.cache
    second = build(made, two_convolutions(0))
    assert second.tuned is not None
    assert any(c.source == "NUMPY" and c.timing for x in second.tuned.layers for c in x.candidates)


def test_a_tactic_over_an_earlier_workspace_limit_is_timed_under_a_larger_one(monkeypatch):
    prepare = NUMPY.prepare

    def hungry(tactic, problem):
        call = prepare(tactic, problem)
        return call if isinstance(call, Refusal) else replace(call, workspace_bytes=1 << 22)

    monkeypatch.setattr(NUMPY, "prepare", hungry)
    made = plain()
    made.set_memory_pool_limit(MemoryPoolType.WORKSPACE, 1 << 21)
    made.timing_cache = None
    first = build(made, two_convolutions(0))
    made = plain()
    made.timing_cache = first.cache
    second = build(made, two_convolutions(0))
    assert second.tuned is not None
    for layer in second.tuned.layers:
        assert all(c.timing for c in layer.candidates if c.source == "NUMPY" and c.eligible)


def test_a_disabled_cache_compiles_ahead_what_it_will_time():
    known = build(plain(), two_convolutions(0))
    made = plain()
    made.set_flag(BuilderFlag.DISABLE_TIMING_CACHE)
    assert known.tuned is not None
    (layer,) = (x for x in known.tuned.layers if x.layer == "conv0")
    tactic = next(c.tactic for c in layer.candidates if c.timing and c.source != "COMPOSED")
    shops = [Workshop(known.device, config, known.cache) for config in (plain(), made)]
    body = known.network.layer("conv0").body
    given = constants_of(known.network.layer("conv0"))
    decided = shops[0].deciding.digest(body, given)
    problem = LayerProblem("conv0", body, (body,), given, layer.built, decided)
    assert [shop.is_cached(tactic, problem) for shop in shops] == [True, False]
