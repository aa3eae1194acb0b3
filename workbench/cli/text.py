"""Tables and progress lines for a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

import pandas as pd

from workbench.records import StageRecord


def table(rows: pd.DataFrame, columns: Sequence[str] | None = None, *, width: int = 60) -> str:
    """Rows as aligned text: numbers to the right with one decimal, cells over ``width`` cut (…)."""
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
    head = f"[{number}/{total}] {record.stage.value:<10}{duration(record.seconds):>8}"
    return f"{head}  {record.summary}"


def duration(seconds: float) -> str:
    """``21 ms`` or ``6.7 s``."""
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def wrapped(text: str, *, indent: int = 0) -> str:
    """Lines broken at spaces to fit the terminal; what follows a break is indented."""
    columns = min(max(shutil.get_terminal_size((120, 24)).columns, 60), 160)
    return "\n".join(
        textwrap.fill(
            line,
            columns,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.splitlines()
    )


def heading(text: str) -> str:
    """A section's title."""
    return f"\n{text}\n{'=' * min(len(text), shutil.get_terminal_size().columns)}"


def say(text: str, *, end: str = "\n") -> None:
    """Print at once, also into a pipe."""
    print(text, end=end, flush=True, file=sys.stdout)


def _cell(value: object, width: int) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    text = str(value)
    return text if len(text) <= width else text[: width - 1] + "…"
