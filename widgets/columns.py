"""What kind of values a column of rows holds: how it is aligned, wrapped and written."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

SHORT = 24
"""Characters of a text that is never wrapped."""


def column_kind(column: Any) -> str:
    """Of a pandas Series: count, number, short (never wrapped), name, or wide text."""
    present = [v for v in column.tolist() if not is_missing(v)]
    if pd.api.types.is_numeric_dtype(column):
        return "count" if all(float(v).is_integer() for v in present) else "number"
    longest = max((len(str(v)) for v in present), default=0)
    return "short" if longest <= SHORT else "name" if longest <= 2 * SHORT else "wide"


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: nothing was measured, or nothing is to be said."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as mappings from column to a plain Python value."""
    names = [str(c) for c in rows.columns]
    return [dict(zip(names, r, strict=True)) for r in rows.itertuples(index=False, name=None)]


def number_text(value: float) -> str:
    """A measured number with about four digits."""
    size = abs(value)
    if size == 0 or 0.1 <= size < 1e6:
        return f"{value:,.{1 if size >= 100 else 2 if size >= 1 else 3}f}"
    return f"{value:.3g}"
