"""What the scaling benchmarks share: their arguments, one core, and the saved table."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from workbench.devices import open_device

Row = dict[str, Any]
Save = Callable[[Mapping[str, Any]], None]


def run(
    measured: Callable[[str, int], Row],
    kinds: Iterable[str],
    sizes: Iterable[int],
    *,
    about: str | None,
) -> tuple[list[Row], Save]:
    """Measure each kind at each size on one core, as the command line asks.

    Gives the rows, and what writes them with further facts where ``--save`` says.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--save", type=Path, help="write the table as JSON")
    parser.add_argument("--kinds", nargs="*", default=tuple(kinds))
    parser.add_argument("--sizes", nargs="*", type=int, default=tuple(sizes))
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    measured(options.kinds[0], 100)  # imports and first calls
    rows: list[Row] = []
    for kind in options.kinds:
        for count in options.sizes:
            rows.append(measured(kind, count))
            print(rows[-1], flush=True)

    def save(facts: Mapping[str, Any]) -> None:
        if options.save is None:
            return
        data = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "onnx": version("onnx"),
            "processor": open_device("cpu").fingerprint.name,
            "cores": 1,
            **facts,
            "rows": rows,
        }
        options.save.write_text(json.dumps(data, indent=1) + "\n")

    return rows, save
