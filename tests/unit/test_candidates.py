from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engines import build, config, one_thread

from workbench.config import BuilderConfig, BuilderFlag, MemoryPoolType
from workbench.network import NetworkDefinition
from workbench.optimization_profile import OptimizationProfile
from workbench.records import Refusal
from workbench.selection import Candidate, candidates, finals, trial
from workbench.selection.candidates import Workshop
from workbench.selection.layer_problem import LayerProblem, constants_of
from workbench.tactics.numba.source import NUMBA
from workbench.tactics.numpy_source import NUMPY
from workbench.timing import Timing


def offers(made: BuilderConfig) -> list[Candidate]:
    """What NUMBA offered for every layer."""
    tuned = build(made).tuned
    assert tuned is not None
    return [c for x in tuned.layers for c in x.candidates if c.source == "NUMBA" and c.tactic]


def test_a_kernel_is_not_compiled_for_a_layer_that_another_source_runs_fast(monkeypatch):
    monkeypatch.setattr(candidates, "WORTH_COMPILING_US", float("inf"))
    monkeypatch.setattr(candidates, "COMPILED_FOR_EXACTNESS", frozenset[tuple[str, str]]())
    for c in offers(config(level=3)):
        assert c.refusal is not None
        assert "not compiled: ONEDNN takes" in c.refusal.reason
        assert "builder_optimization_level to 4" in c.refusal.remedy


def test_a_kernel_whose_result_is_several_times_as_exact_is_compiled_anyway(monkeypatch):
    monkeypatch.setattr(candidates, "WORTH_COMPILING_US", float("inf"))
    timed = {c.tactic.name for c in offers(config(level=3)) if c.tactic and c.timing}
    assert timed == {"means"}


def test_a_last_product_is_compiled_where_the_errors_of_others_are_large(monkeypatch):
    monkeypatch.setattr(candidates, "WORTH_COMPILING_US", float("inf"))
    monkeypatch.setattr(candidates, "WORTH_EXACTNESS", 0.0)
    tuned = build(config(level=3)).tuned
    assert tuned is not None
    compiled = {
        x.layer: x
        for x in tuned.layers
        for c in x.candidates
        if c.tactic and c.tactic.name == "product" and c.timing
    }
    assert set(compiled) == {"head"}


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


def test_layers_with_different_zero_points_are_tuned_one_by_one(monkeypatch):
    asked = []

    def spy(problem):
        asked.append(sorted(int(v) for v in problem.constants.values() if v.dtype == np.int8))
        return offered(problem)

    offered = NUMPY.candidates
    monkeypatch.setattr(NUMPY, "candidates", spy)
    build(one_thread(), two_convolutions(0, 3, 3))
    assert asked.count([0]) == asked.count([3]) > 0


def test_what_may_pass_is_told_but_not_kept_with_the_timings(monkeypatch):
    def dies(tactic, problem):
        return Refusal("the compiler died", code="compile")

    with monkeypatch.context() as broken:
        broken.setattr(NUMPY, "prepare", dies)
        first = build(one_thread(), two_convolutions(0))
    assert first.tuned is not None
    told = [c.refusal for x in first.tuned.layers for c in x.candidates if c.source == "NUMPY"]
    assert any("the compiler died" in str(r) for r in told)
    made = one_thread()
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
    made = one_thread()
    made.set_memory_pool_limit(MemoryPoolType.WORKSPACE, 1 << 21)
    made.timing_cache = None
    first = build(made, two_convolutions(0))
    made = one_thread()
    made.timing_cache = first.cache
    second = build(made, two_convolutions(0))
    assert second.tuned is not None
    for layer in second.tuned.layers:
        assert all(c.timing for c in layer.candidates if c.source == "NUMPY" and c.eligible)


def test_a_disabled_cache_compiles_ahead_what_it_will_time():
    known = build(one_thread(), two_convolutions(0))
    made = one_thread()
    made.set_flag(BuilderFlag.DISABLE_TIMING_CACHE)
    assert known.tuned is not None
    (layer,) = (x for x in known.tuned.layers if x.layer == "conv0")
    tactic = next(c.tactic for c in layer.candidates if c.timing and c.source != "COMPOSED")
    shops = [Workshop(known.device, config, known.cache) for config in (one_thread(), made)]
    body = known.network.layer("conv0").body
    given = constants_of(known.network.layer("conv0"))
    decided = shops[0].deciding.digest(body, given)
    problem = LayerProblem("conv0", body, (body,), given, layer.built, decided)
    assert [shop.is_cached(tactic, problem) for shop in shops] == [True, False]


def known_to(shop: Workshop, net: NetworkDefinition) -> list[bool]:
    """Whether a cache holds what became of NUMPY's tactic for a network's only layer."""
    (layer,) = net.layers
    body = layer.body
    problem = LayerProblem(layer.name, body, (body,), {}, layer.precision)
    offered = NUMPY.candidates(shop.problem(body, {}))
    return [shop.is_cached(t, problem) for t in offered if not isinstance(t, Refusal)]


def one_relu() -> NetworkDefinition:
    net = NetworkDefinition("relu")
    x = net.add_input("x", "FLOAT", (4, 8))
    net.mark_output(net.add_layer("Relu", [x], name="relu").outputs[0])
    return net


@pytest.mark.parametrize(
    ("before", "after", "known"), [("none", "all", False), ("all", "none", True)]
)
def test_what_was_timed_unchecked_is_unknown_to_a_build_that_checks(before, after, known):
    first, second = one_thread(), one_thread()
    first.verify, second.verify = before, after
    made = build(first, one_relu())
    assert made.cache.entries
    shop = Workshop(made.device, second, made.cache)
    assert set(known_to(shop, one_relu())) == {known}
    second.timing_cache = made.cache
    again = build(second, one_relu())
    assert again.tuned is not None
    assert (again.tuned.timed == 0) == known
    assert all(c.worst is not None for c in again.tuned.layers[0].candidates if c.timing)


def relus(*batches: str | int) -> NetworkDefinition:
    """A Relu for every batch size, of tensors that are alike at a batch of 4."""
    net = NetworkDefinition("relus")
    for k, batch in enumerate(batches):
        x = net.add_input(f"x{k}", "FLOAT", (batch, 8))
        net.mark_output(net.add_layer("Relu", [x], name=f"relu{k}").outputs[0])
    return net


def from_to(least: int, most: int) -> BuilderConfig:
    """Batches of ``x1`` from one size to another, best at 4."""
    made = one_thread()
    profile = OptimizationProfile().set_shape("x1", (least, 8), (4, 8), (most, 8))
    made.add_optimization_profile(profile)
    return made


def test_layers_alike_at_opt_alone_are_each_checked_at_their_own_sizes(monkeypatch):
    asked = []
    prepare = NUMPY.prepare

    def spy(tactic, problem):
        asked.append(problem.body.inputs[0].type.shape)
        return prepare(tactic, problem)

    monkeypatch.setattr(NUMPY, "prepare", spy)
    build(from_to(1, 16), relus(4, "N"))
    assert {(1, 8), (4, 8), (16, 8)} <= set(asked)


def test_timings_of_other_sizes_with_the_same_opt_are_not_taken():
    first = build(from_to(1, 4), relus(4, "N"))
    for least, most, known in ((1, 4, True), (1, 16, False)):
        made = from_to(least, most)
        made.timing_cache = first.cache
        again = build(made, relus(4, "N"))
        assert again.tuned is not None
        assert (again.tuned.timed == 0) == known


@pytest.mark.parametrize("factor", [0.9, 1.1], ids=["later ones faster", "earlier ones faster"])
def test_what_is_tried_of_a_layer_or_of_a_part_is_compiled_ahead(monkeypatch, factor):
    """max_num_tactics is dealt out anew for parts, for which slow compilers do nothing.

    Times are made up: whatever wins, the parts one by one (tried last) or the fused kernels.
    """
    ahead, tried, timed = set(), set(), []
    prepare = NUMPY.prepare

    def measured(launch, device, **options):
        timed.append(100.0 * factor ** len(timed))
        return Timing.of([timed[-1]] * 3)

    monkeypatch.setattr(trial, "measure", measured)
    monkeypatch.setattr(finals, "measure_again", lambda launch, device, before, **options: before)

    def precompile(problem, tactics):
        ahead.update((problem.body.signature, t) for t in tactics)
        return ()

    def spy(tactic, problem):
        if tactic.name != "reformat":
            tried.add((problem.body.signature, tactic))
        return prepare(tactic, problem)

    for source, slow in ((NUMPY, False), (NUMBA, True)):
        monkeypatch.setattr(source, "slow", slow, raising=False)
        monkeypatch.setattr(source, "precompile", precompile, raising=False)
    monkeypatch.setattr(NUMPY, "prepare", spy)
    made = config(level=1)
    made.tactic_sources = ("ONEDNN", "NUMBA", "NUMPY")
    made.max_num_tactics = 2
    tuned = build(made).tuned
    assert tried and timed and tuned is not None
    won = {c.winner.source for c in tuned.layers}
    assert ("COMPOSED" in won) == (factor < 1), won
    assert tried <= ahead


def test_a_kernel_whose_timing_is_known_stays_though_others_were_faster_in_the_end(monkeypatch):
    made = config(level=3)
    made.tactic_sources = ("NUMPY", "NUMBA")
    monkeypatch.setattr(candidates, "COMPILED_FOR_EXACTNESS", frozenset[tuple[str, str]]())
    monkeypatch.setattr(candidates, "WORTH_COMPILING_US", 0.0)
    made.timing_cache = build(made).cache
    monkeypatch.setattr(candidates, "WORTH_COMPILING_US", float("inf"))
    assert any(c.timing for c in offers(made))
    made.timing_cache = None
    assert not any(c.timing for c in offers(made))
