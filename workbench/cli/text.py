"""Tables and progress lines for a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

import pandas as pd

from workbench.records import StageRecord


def table(rows: pd.DataFrame, columns: Sequence[str] | None = None, *, width: int = 44) -> str:
    """Rows as aligned text: numbers to the right with one decimal, long cells cut with ``…``."""
    shown = rows[list(columns)] if columns is not None else rows
    cells = [[_cell(v, width) for v in row] for row in shown.itertuples(index=False)]
    heads = [str(c) for c in shown.columns]
    widths = [max(len(h), *(len(r[i]) for r in cells), 1) for i, h in enumerate(heads)]
    numeric = [pd.api.types.is_numeric_dtype(shown[c]) for c in shown.columns]

    def line(values: Sequence[str]) -> str:
        parts = [
            v.rjust(w) if n else v.ljust(w) for v, w, n in zip(values, widths, numeric, strict=True)
        ]
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([line(heads), rule, *(line(r) for r in cells)])


def stage_line(record: StageRecord, number: int, total: int) -> str:
    """``[3/9] Profiles     1 ms  batch 1..8..64``."""
    time = f"{record.seconds * 1e3:.0f} ms" if record.seconds < 10 else f"{record.seconds:.1f} s"
    return f"[{number}/{total}] {record.stage.value:<10} {time:>8}  {record.summary}"


def heading(text: str) -> str:
    """A section's title."""
    return f"\n{text}\n{'=' * min(len(text), shutil.get_terminal_size().columns)}"


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True, file=sys.stdout)


def _cell(value: object, width: int) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    text = str(value)
    return text if len(text) <= width else text[: width - 1] + "…"
