"""Optimizing grows with the network, not with its square: Fold, Fuse and the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from scaling_rows import assert_grows_with_the_nodes, rows


@pytest.mark.parametrize("kind", ["vision", "language", "wide"])
def test_three_times_the_nodes_take_about_three_times_as_long(kind: str, tmp_path: Path) -> None:
    assert_grows_with_the_nodes("optimize_scaling.py", kind, 400, 1200, tmp_path)


def test_a_benchmark_row_says_what_became_of_the_nodes(tmp_path: Path) -> None:
    (row,) = rows("optimize_scaling.py", "vision", (100,), tmp_path / "table.json")
    blocks = row["nodes"] // 10
    assert row["layers"] == 3 * blocks
    assert row["applied"] >= 7 * blocks
