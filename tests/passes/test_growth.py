"""Optimizing grows with the network, not with its square: Fold, Fuse and the ledger."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "optimize_scaling.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("optimize_scaling", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        spec.loader.exec_module(module)
    module.measured("vision", 100)
    return module


@pytest.mark.parametrize("kind", ["vision", "language", "wide"])
def test_three_times_the_nodes_take_about_three_times_as_long(
    benchmark: ModuleType, kind: str
) -> None:
    few, many = benchmark.measured(kind, 400), benchmark.measured(kind, 1200)
    assert many["total_s"] < 2.5 * (many["nodes"] / few["nodes"]) * (few["total_s"] + 0.1)


def test_a_benchmark_row_says_what_became_of_the_nodes(benchmark: ModuleType) -> None:
    row = benchmark.measured("vision", 100)
    blocks = row["nodes"] // 10
    assert row["layers"] == 3 * blocks
    assert row["applied"] >= 7 * blocks
