"""benchmarks/cpu's table: ratios, means over the large models, and what failed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "cpu"


def table(name="table"):
    spec = importlib.util.spec_from_file_location(f"cpu_comparison_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def markdown(rows):
    about = {"versions": {"numpy": "2"}, "date": "2026-01-01", "cpu": "a CPU", "cpus": 2}
    about |= {"features": ["avx2"], "load_average_at_start": [0.1], "bf16_native": False}
    return table().markdown({**about, "rows": rows})


def row(model, engine, median, least, large=True):
    return {
        **{"model": model, "type": "f32", "threads": 1, "engine": engine, "large": large},
        **{"median_us": median, "min_us": least, "error": 1e-6, "inputs": 8, "peak": 1 << 26},
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


def test_errors_are_pooled_over_draws_and_the_worst_output_counts():
    exact = {"a.0": np.array([1.0, 0.0]), "a.1": np.array([0.0, 2.0]), "b.0": np.ones(4)}
    found = {"a.0": np.array([1.0, 0.3]), "a.1": np.array([0.8, 2.0]), "b.0": np.ones(4)}
    assert table("pooling").pooled_error(found, exact) == pytest.approx((0.125) ** 0.5)


def test_over_how_many_inputs_errors_are_is_told_by_the_models():
    rows = [row("a", "workbench", 10, 8), row("b", "workbench", 10, 8)]
    assert "its root mean square over 8 inputs." in markdown(rows)
    digit = {**row("digit:1", "workbench", 1, 1, False), "inputs": 64}
    old = {**row("old", "workbench", 1, 1), "inputs": 1}
    text = markdown([*rows, digit, old])
    assert "over 8 inputs (digit:1: 64; old: 1)." in text


def test_every_engine_is_given_all_draws_in_place_and_the_first_stays():
    candidates, models = table("candidates"), table("models")
    stored = {f"x.{k}": np.full(2, float(k)) for k in range(12)}
    inputs = {n: a.copy() for n, a in candidates.draw_of(stored, 0).items()}
    array = inputs["x"]
    found = candidates.outputs_of_all(stored, inputs, lambda: {"y": 2 * array})
    assert {n: a[0] for n, a in found.items()} == {f"y.{k}": 2.0 * k for k in range(12)}
    assert inputs["x"] is array
    assert not array.any()
    model = models.model_named("digits_cnn:1")
    drawn = {model.inputs(k)["image"].tobytes() for k in range(model.draws)}
    assert len(drawn) == model.draws
    assert all(c["image"].tobytes() not in drawn for c in model.calibration())
