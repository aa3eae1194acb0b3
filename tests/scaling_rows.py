"""Growth of what a scaling benchmark measures, in a process of its own, at its quietest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ATTEMPTS = 4
SLACK = 1.6
"""Of the ratio of nodes, for a machine that does other things, too."""


def assert_grows_with_the_nodes(script: str, kind: str, few: int, many: int, folder: Path) -> None:
    """Fail if the time grows much faster than the nodes do. folder: a scratch folder.

    In a process of its own: what other tests leave in memory makes its collections slow. Measured
    again, and the best of each size kept, while other work on the machine may be the reason.
    """
    seen: list[tuple[float, float]] = []
    for attempt in range(ATTEMPTS):
        small, large = rows(script, kind, (few, many), folder / f"table{attempt}.json")
        grown = large["nodes"] / small["nodes"]
        seen.append((small["total_s"], large["total_s"]))
        short, long = map(min, zip(*seen, strict=True))
        if long < SLACK * grown * short:
            return
    raise AssertionError(f"({few} nodes, {many} nodes) took {seen} s")


def rows(script: str, kind: str, sizes: tuple[int, ...], table: Path) -> list[dict[str, Any]]:
    """The rows that ``benchmarks/SCRIPT`` saves in a new table."""
    asked = ["--save", str(table), "--kinds", kind, "--sizes", *map(str, sizes)]
    # Its exit status says whether its own limits, meant for other sizes, hold.
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *asked],
        cwd=BENCHMARKS.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert table.is_file(), done.stderr
    return json.loads(table.read_text())["rows"]
