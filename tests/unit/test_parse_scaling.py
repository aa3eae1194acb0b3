"""Importing a model three times as long takes about three times as long."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SLACK = 1.6
"""Of the ratio, for a machine that does other things, too."""


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("parse_scaling", BENCHMARKS / "parse_scaling.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["vision", "language", "mixed"])
def test_three_times_the_nodes_are_imported_in_about_three_times_the_time(
    benchmark: Any, kind: str
) -> None:
    benchmark.measured(kind, 100)
    small, large = (benchmark.measured(kind, n, repeats=4) for n in (1000, 3000))
    grown = large["nodes"] / small["nodes"]
    assert large["total_s"] < SLACK * grown * small["total_s"], (small, large)


def test_the_saved_table_keeps_its_limits(benchmark: Any) -> None:
    saved = json.loads((BENCHMARKS / "results" / "parse_scaling.json").read_text())
    assert {r["kind"] for r in saved["rows"]} == set(benchmark.KINDS)
    assert max(r["nodes"] for r in saved["rows"]) > 9_900
    assert all(r["total_s"] < benchmark.LIMIT_S for r in saved["rows"])
    assert benchmark.growth(saved["rows"]) == saved["growth"]
    assert all(e <= benchmark.LIMIT_GROWTH for e in saved["growth"].values())
