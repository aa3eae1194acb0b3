"""Pieces of an HTML page: escaped text, sortable tables, tiles, figures as data."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import pandas as pd
import plotly.graph_objects as go

SHORT = 24
"""Characters of a text that is never wrapped."""
_MARKS = {"applied": "yes", "chosen": "yes", "refused": "no"}


def text(value: object) -> str:
    """Escaped for HTML."""
    return html.escape(str(value))


def table(rows: pd.DataFrame, *, caption: str = "", columns: Sequence[str] | None = None) -> str:
    """A table whose headings sort it. Empty cells stay empty: nothing is invented."""
    shown = rows[list(columns)] if columns is not None else rows
    kinds = {c: _kind(shown[c]) for c in shown.columns}
    heads = "".join(
        f'<th scope="col" class="{kinds[c]}"><button type="button">{text(c)}</button></th>'
        for c in shown.columns
    )
    lines = [
        "<tr>"
        + "".join(_cell(v, kinds[c]) for c, v in zip(shown.columns, row, strict=True))
        + "</tr>"
        for row in shown.itertuples(index=False)
    ]
    body = "".join(lines) or f'<tr><td colspan="{len(shown.columns)}">none</td></tr>'
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table data-sortable>{title}<thead><tr>{heads}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _kind(column: pd.Series) -> str:
    """The class of a column: count, number, short (never wrapped), name or wide text."""
    if pd.api.types.is_numeric_dtype(column):
        whole = all(float(v).is_integer() for v in column.dropna())
        return "number count" if whole else "number"
    longest = max((len(str(v)) for v in column.dropna()), default=0)
    return "short" if longest <= SHORT else "name" if longest <= 2 * SHORT else "wide"


def _cell(value: Any, kind: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return f'<td class="{kind}" data-value=""></td>' if "number" in kind else "<td></td>"
    if "number" in kind:
        shown = f"{int(value):,}" if "count" in kind else number(value)
        return f'<td class="{kind}" data-value="{float(value)!r}">{shown}</td>'
    return f'<td class="{_MARKS.get(str(value), kind)}">{text(value)}</td>'


def number(value: float) -> str:
    """A measured number with about four digits."""
    size = abs(value)
    if size == 0 or 0.1 <= size < 1e6:
        return f"{value:,.{1 if size >= 100 else 2 if size >= 1 else 3}f}"
    return f"{value:.3g}"


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
