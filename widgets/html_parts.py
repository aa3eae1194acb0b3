"""Pieces of an HTML page: escaped text, sortable tables, tiles, figures as data."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import pandas as pd
import plotly.graph_objects as go

WIDE = {"Reason", "Remedy", "Why not", "Summary", "Note", "Blocker", "Created", "Place", "Kernel"}
_MARKS = {"applied": "yes", "chosen": "yes", "refused": "no"}


def text(value: object) -> str:
    """Escaped for HTML."""
    return html.escape(str(value))


def table(rows: pd.DataFrame, *, caption: str = "", columns: Sequence[str] | None = None) -> str:
    """A table whose headings sort it. Empty cells stay empty: nothing is invented."""
    shown = rows[list(columns)] if columns is not None else rows
    numeric = {c for c in shown.columns if pd.api.types.is_numeric_dtype(shown[c])}
    heads = "".join(
        f'<th scope="col"{" class=number" if c in numeric else ""}>'
        f'<button type="button">{text(c)}</button></th>'
        for c in shown.columns
    )
    lines = [
        "<tr>"
        + "".join(_cell(c, v, c in numeric) for c, v in zip(shown.columns, row, strict=True))
        + "</tr>"
        for row in shown.itertuples(index=False)
    ]
    body = "".join(lines) or f'<tr><td colspan="{len(shown.columns)}">none</td></tr>'
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table data-sortable>{title}<thead><tr>{heads}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _cell(column: str, value: Any, numeric: bool) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '<td class="number" data-value=""></td>' if numeric else "<td></td>"
    if numeric:
        return f'<td class="number" data-value="{float(value)!r}">{number(value)}</td>'
    mark = _MARKS.get(str(value), "wide" if column in WIDE else "name")
    return f'<td class="{mark}">{text(value)}</td>'


def number(value: Any) -> str:
    """Integers in full, other numbers with about four digits."""
    if float(value) == int(value) and abs(value) < 1e15 and not isinstance(value, float):
        return f"{int(value):,}"
    size = abs(float(value))
    if size == 0 or 0.1 <= size < 1e6:
        return f"{float(value):,.{1 if size >= 100 else 2 if size >= 1 else 3}f}"
    return f"{float(value):.3g}"


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Large values with what they are: (value, meaning)."""
    cells = "".join(
        f'<div class="tile"><b>{text(v)}</b><span>{text(m)}</span></div>' for v, m in pairs
    )
    return f'<div class="tiles">{cells}</div>'


class Figures:
    """Figures of one page as data beside their places; the page's script draws them."""

    def __init__(self) -> None:
        self._numbers = count()

    def place(self, figure: go.Figure, description: str) -> str:
        """A place for the figure, with a description for those who cannot see it."""
        name = f"figure-{next(self._numbers)}"
        # "</" would end the script element.
        data = str(figure.to_json()).replace("</", "<\\/")
        height = int(figure.layout.height or 400)
        return (
            f'<div class="figure" data-figure="{name}" role="img" style="min-height:{height}px" '
            f'aria-label="{text(description)}"></div>'
            f'<script type="application/json" id="{name}">{data}</script>'
        )
