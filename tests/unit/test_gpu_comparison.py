"""benchmarks/gpu's table: jobs joined, ratios, errors beside PyTorch's own, what failed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "gpu" / "table.py"


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("gpu_comparison_table", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(who, median, error=1e-3, kind="fp16", model="resnet50", batch=32, **facts):
    about = {"model": model, "batch": batch, "type": kind, "who": who}
    return {**about, "median_us": median, "min_us": median - 1, "error": error, **facts}


def job(*rows, device="a GPU", date="2026-01-02"):
    about = {"driver": "1", "versions": {"torch": "2"}}
    protocol = {"builder_optimization_level": 2}
    return {"device": device, "date": date, **about, "protocol": protocol, "rows": list(rows)}


def test_rows_of_all_jobs_stand_by_type_model_and_batch(page):
    text = page.markdown(
        page.merged(
            [
                job(row("workbench", 700, kind="int8", error=0.1, **{"error_of_same_graph": 0.01})),
                job(row("workbench", 1000), row("eager", 2400), row("compile", 1600)),
                job(row("workbench", 250, batch=1), row("compile", 300, batch=1)),
            ]
        )
    )
    cells = "| resnet50 | 32 | 1,000.0 (999.0) | 900 | 1,600.0 (1,599.0) | 1.60 | 1.5 |"
    assert cells in text
    assert "| 1.20 **!** | 1.4 |" in text
    assert text.index("| resnet50 | 1 |") < text.index("| resnet50 | 32 |") < text.index("## INT8")
    assert "| 700.0 (699.0) | 1,000.0 (999.0) | 1,600.0 (1,599.0) | 2.29 | 1.00e-02 | - | " in text
    assert "| resnet50 | 32 | INT8 | FP16, INT8 | 700.0 **!** | 650 |" in text


def test_onnx_runtime_has_columns_where_it_was_installed(page):
    mine, other = row("workbench", 1000), row("onnxruntime", 1900)
    text = page.markdown(page.merged([job(mine, row("eager", 2400), other)]))
    assert "| 2,400.0 (2,399.0) | 2.40 | 1,900.0 (1,899.0) | 1.90 |" in text
    head, ruler, cells = [line for line in text.splitlines() if line.startswith("|")][:3]
    assert head.count("|") == ruler.count("|") == cells.count("|")
    without = page.markdown(page.merged([job(mine, row("eager", 2400))]))
    assert "ONNX Runtime" not in without
    head, ruler, cells = [line for line in without.splitlines() if line.startswith("|")][:3]
    assert head.count("|") == ruler.count("|") == cells.count("|")


def test_errors_beyond_pytorchs_own_or_the_graphs_are_marked(page):
    text = page.markdown(
        page.merged(
            [
                job(row("workbench", 9, error=1.2e-3), row("eager", 9, error=1e-3)),
                job(row("workbench", 9, error=1.0e-3, batch=1), row("eager", 9, batch=1)),
                job(row("workbench", 9, kind="fp8", error_of_same_graph=0.06)),
            ]
        )
    )
    assert "1.20e-03 **!**" in text
    assert "1.00e-03 **!**" not in text
    assert "6.00e-02 **!**" in text


def test_what_failed_is_named_until_a_later_job_measures_it(page):
    failed = {"model": "resnet50", "batch": 32, "type": "fp16", "who": "all", "failed": "no GPU"}
    assert "resnet50 b32 fp16, all: no GPU" in page.markdown(page.merged([job(failed)]))
    again = page.merged([job(failed), job(row("workbench", 9))])
    assert "no GPU" not in page.markdown(again)


def test_jobs_of_another_device_are_refused_by_both_names(page):
    with pytest.raises(ValueError, match="device: another beside a GPU"):
        page.merged([job(row("eager", 1)), job(row("eager", 1), device="another")])


def test_an_earlier_result_fills_what_no_job_measured_with_its_own_date(
    page, tmp_path, monkeypatch
):
    earlier = job(row("eager", 5), row("workbench", 7), date="2025-12-31")
    for name, table in (("job", job(row("workbench", 6))), ("before", earlier)):
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    files = [str(tmp_path / f"{n}.json") for n in ("result", "job", "before")]
    monkeypatch.setattr(sys, "argv", ["table.py", *files[:2], "--before", files[2]])
    page.main()
    found = json.loads((tmp_path / "result.json").read_text())
    times = {r["who"]: (r["median_us"], r["date"]) for r in found["rows"]}
    assert times == {"workbench": (6, "2026-01-02"), "eager": (5, "2025-12-31")}
    assert "# The GPU engine against PyTorch" in (tmp_path / "result.md").read_text()


def test_a_page_says_what_was_measured_earlier_and_keeps_its_notes(page):
    earlier = page.merged(
        [job(row("workbench", 7), row("workbench", 3, batch=1), date="2025-12-31")],
        notes=["Earlier rows have other weights."],
    )
    text = page.markdown(page.merged([job(row("workbench", 6))], earlier, ["One more."]))
    assert "Measured on 2025-12-31: resnet50 b1 FP16.\n" in text
    assert text.index("Earlier rows have other weights.") < text.index("One more.")
