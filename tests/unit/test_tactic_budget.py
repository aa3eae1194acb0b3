"""Limits of the search: level, max_num_tactics, iterations, workspace, sources."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engines import build, config
from hypothesis import given
from hypothesis import strategies as st

from workbench.config import BuilderConfig, MemoryPoolType
from workbench.datatypes import DataType
from workbench.errors import ConfigError, NoTacticError
from workbench.formats import HWC, LINEAR, Format
from workbench.network import NetworkDefinition
from workbench.records import Refusal
from workbench.selection import Candidate
from workbench.selection.budget import in_turns, outclassed
from workbench.tactics.protocol import Tactic
from workbench.tactics.workspace import size_text
from workbench.timing import Timing


def tried(made: BuilderConfig, network: NetworkDefinition | None = None) -> list[list[Candidate]]:
    """Per layer every candidate but the view and COMPOSED, which is made of others."""
    tuned = build(made, network).tuned
    assert tuned is not None
    own = [[c for c in x.candidates if c.source not in ("VIEW", "COMPOSED")] for x in tuned.layers]
    return [layer for layer in own if layer]


def timed(layer: list[Candidate]) -> int:
    return sum(c.timing is not None for c in layer)


@given(st.lists(st.integers(0, 9), max_size=5), st.integers(1, 20))
def test_tactics_are_dealt_out_fairly_and_none_too_many(offered: list[int], most: int):
    counts = {str(k): n for k, n in enumerate(offered)}
    given_out = in_turns(counts, most)
    assert sum(given_out.values()) == min(most, sum(offered))
    for name, n in given_out.items():
        assert n <= counts[name]
        # Who got less than another had no more to offer, or stood behind it in the last round.
        assert all(n >= m - 1 for m in given_out.values()) or n == counts[name]


@pytest.mark.parametrize("most", [1, 3])
def test_max_num_tactics_counts_a_layers_tactics_over_all_sources(most: int):
    made = config(level=5)
    made.max_num_tactics = most
    for layer in tried(made):
        assert 1 <= timed(layer) <= most
        left = [c.refusal for c in layer if c.refusal and c.refusal.code == "max_num_tactics"]
        assert all(f"max_num_tactics is {most}" in r.reason for r in left)


def test_a_higher_level_times_no_fewer_tactics_and_level_0_none():
    counts = [sum(map(timed, tried(config(level=level)))) for level in (0, 1, 3)]
    assert counts[0] == 0
    assert 0 < counts[1] <= counts[2]


def test_the_median_is_of_as_many_samples_as_were_asked_for_or_of_more_where_they_scatter():
    made = config(level=1)
    made.avg_timing_iterations = 5
    samples = {c.timing.samples for x in tried(made) for c in x if c.timing}
    assert samples <= {1, 5, 10, 15, 20}  # one, where it was cut off
    assert samples - {1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("avg_timing_iterations", 0),
        ("max_num_tactics", 0),
        ("max_num_tactics", -2),
        ("builder_optimization_level", 6),
    ],
)
def test_a_limit_that_means_nothing_is_refused(name: str, value: int):
    with pytest.raises(ConfigError, match=name):
        setattr(BuilderConfig(), name, value)


def product(rows: int) -> NetworkDefinition:
    """A product whose transposed factor some kernels pack into scratch memory."""
    net = NetworkDefinition("product")
    a = net.add_input("a", "FP32", (rows, rows))
    b = net.add_input("b", "FP32", (rows, rows))
    y = net.add_layer("MatMul", [a, b], name="product").outputs[0]
    y = net.add_layer("Softmax", [y], name="softmax").outputs[0]
    net.mark_output(net.add_layer("MatMul", [y, a], name="again").outputs[0])
    return net


def test_a_tactic_over_the_workspace_limit_says_what_it_needs_and_what_it_may():
    made = BuilderConfig()
    made.num_threads = 1
    made.avg_timing_iterations = 2
    free = [c for layer in tried(made, product(64)) for c in layer if c.workspace_bytes]
    assert free, "some tactic of this network takes workspace"
    hungriest = max(free, key=lambda c: c.workspace_bytes)
    made.set_memory_pool_limit(MemoryPoolType.WORKSPACE, hungriest.workspace_bytes - 1)
    made.timing_cache = None
    again = [c for layer in tried(made, product(64)) for c in layer]
    (refused,) = {str(c.refusal) for c in again if c.title == hungriest.title and c.refusal}
    needs = size_text(hungriest.workspace_bytes)
    assert f"needs {needs} of workspace > limit " in refused
    assert "raise MemoryPoolType.WORKSPACE" in refused


def test_only_the_sources_that_are_set_offer_tactics_and_the_others_say_so():
    made = config(level=1)
    made.set_tactic_sources(["NUMPY"])
    for layer in tried(made):
        assert {c.source for c in layer if c.timing} == {"NUMPY"}
        others = [c for c in layer if c.source == "ONEDNN"]
        assert all("not among the tactic sources" in str(c.refusal) for c in others)


def test_a_source_that_does_not_exist_is_refused_with_the_names_of_those_that_do():
    made = config(level=1)
    made.set_tactic_sources(["CUBLAS", "NUMPY"])
    with pytest.raises(ConfigError, match=r"'CUBLAS'.*CUBLAS_LT"):
        build(made)


def test_without_a_source_for_the_device_the_build_names_every_refusal():
    made = config(level=1)
    made.set_tactic_sources(["TRITON"])
    with pytest.raises(NoTacticError, match="not among the tactic sources"):
        build(made)


def measured(source: str, us: float, layout: Format = LINEAR) -> Candidate:
    tactic = Tactic(source, f"{us}", (layout,), (layout,), DataType.FLOAT)
    return Candidate(source, tactic.title, tactic, Timing.of([us] * 3))


def test_a_source_whose_best_guesses_are_far_slower_is_left_alone_and_says_beside_whom():
    offer = measured("NVRTC", 0).tactic
    assert offer is not None
    found = [measured("CUDNN", 10.0), measured("NVRTC", 31.0)]
    assert outclassed(offer, found) is None, "one guess is not enough"
    found.append(measured("NVRTC", 35.0))
    refusal = outclassed(offer, found)
    assert refusal is not None
    assert "2 of this source's take 31.0 µs and more, CUDNN 10.0 µs" in refusal.reason
    assert refusal.remedy is not None and "builder_optimization_level to 4" in refusal.remedy
    assert outclassed(offer, [*found, measured("NVRTC", 29.0)]) is None


def test_other_layouts_outclass_only_by_more_than_rewriting_can_cost():
    offer = measured("NVRTC", 0).tactic
    assert offer is not None
    slow = [measured("NVRTC", 31.0), measured("NVRTC", 35.0)]
    assert outclassed(offer, [*slow, measured("CUDNN", 4.0, HWC)]) is None
    refusal = outclassed(offer, [slow[0], measured("CUDNN", 3.0, HWC)])
    assert refusal is not None, "one guess that far off is enough"
    assert "CUDNN 3.0 µs in other layouts" in refusal.reason
    other_layout = measured("NVRTC", 0, HWC).tactic
    assert other_layout is not None
    assert outclassed(other_layout, [*slow, measured("CUDNN", 1.0, HWC)]) is None


def test_refused_tactics_outclass_nobody():
    offer = measured("NVRTC", 0).tactic
    assert offer is not None
    slow = [measured("NVRTC", 31.0), measured("NVRTC", 35.0)]
    wrong = replace(measured("CUDNN", 1.0), refusal=Refusal("wrong"))
    assert outclassed(offer, [*slow, wrong]) is None
    assert outclassed(offer, slow) is None
