"""Importing a model three times as long takes about three times as long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scaling_rows import BENCHMARKS, assert_grows_with_the_nodes


@pytest.mark.parametrize("kind", ["vision", "language", "mixed"])
def test_three_times_the_nodes_are_imported_in_about_three_times_the_time(
    kind: str, tmp_path: Path
) -> None:
    assert_grows_with_the_nodes("parse_scaling.py", kind, 1000, 3000, tmp_path)


def test_the_saved_table_keeps_its_limits() -> None:
    saved = json.loads((BENCHMARKS / "results" / "parse_scaling.json").read_text())
    assert {r["kind"] for r in saved["rows"]} == {"vision", "language", "mixed"}
    assert max(r["nodes"] for r in saved["rows"]) > 9_900
    assert all(r["total_s"] < saved["limit_s"] for r in saved["rows"])
    assert all(e <= saved["limit_growth"] for e in saved["growth"].values())
