from __future__ import annotations

import pytest
from engines import build, config

from workbench.config import BuilderConfig
from workbench.selection import Candidate, candidates


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
