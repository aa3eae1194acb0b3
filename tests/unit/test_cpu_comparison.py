"""benchmarks/cpu's table: ratios, means over the large models, and what failed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[2] / "benchmarks" / "cpu" / "table.py"


def table():
    spec = importlib.util.spec_from_file_location("cpu_comparison_table", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def markdown(rows):
    about = {"versions": {"numpy": "2"}, "date": "2026-01-01", "cpu": "a CPU", "cpus": 2}
    about |= {"features": ["avx2"], "load_average_at_start": [0.1], "bf16_native": False}
    return table().markdown({**about, "rows": rows})


def row(model, engine, median, least, large=True):
    return {
        **{"model": model, "type": "f32", "threads": 1, "engine": engine, "large": large},
        **{"median_us": median, "min_us": least, "error": 1e-6, "peak": 1 << 26},
    }


def test_a_ratio_is_the_peers_time_by_ours_and_means_are_of_large_models_alone():
    text = markdown(
        [
            *(row("a", "workbench", 10, 8), row("a", "onnxruntime", 20, 8)),
            *(row("b", "workbench", 10, 8), row("b", "onnxruntime", 5, 8)),
            *(row("tiny", "workbench", 1, 1, False), row("tiny", "onnxruntime", 9, 9, False)),
        ]
    )
    assert "| a | 1 | 10 | 2.00 (1.00) | - |" in text
    assert "| geometric mean (worst) of the large | 1 | | 1.00 (0.50) |" in text
    assert "| tiny | 1 | 1 | 9.00 (9.00) |" in text
    assert "no BF16 arithmetic" in text


def test_what_failed_is_named_with_its_reason():
    failed = {"model": "a", "type": "f32", "threads": 1, "engine": "openvino", "large": True}
    text = markdown([row("a", "workbench", 10, 8), {**failed, "failed": "no such file"}])
    assert "- a, 1 threads, openvino: no such file" in text


def test_what_was_measured_again_takes_the_place_of_the_earlier_rows():
    earlier = [row("a", "workbench", 10, 8), row("a", "openvino", 20, 18)]
    other = [row("b", "workbench", 3, 2)]
    again, new = [row("a", "workbench", 5, 4)], [row("c", "workbench", 1, 1)]
    assert table().joined([*earlier, *other], [*new, *again]) == [*again, *other, *new]


def test_what_was_measured_on_another_day_is_named_with_it():
    old = {**row("a", "workbench", 10, 8), "date": "2025-12-31"}
    new = {**row("b", "workbench", 10, 8), "date": "2026-01-01"}
    text = markdown([old, {**old, "threads": 2}, new])
    assert "Measured on 2025-12-31: a f32.\n" in text and "2026-01-01: b" not in text
