"""Pieces of an HTML page: escaped text, sortable tables, tiles, figures as data."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from widgets.columns import column_kind, is_missing, number_text

_CLASSES = {"count": "number", "number": "number"}
_MARKS = {"applied": "yes", "chosen": "yes", "refused": "no"}


def text(value: object) -> str:
    """Escaped for HTML."""
    return html.escape(str(value))


def table(rows: pd.DataFrame, *, caption: str = "", columns: Sequence[str] | None = None) -> str:
    """A table whose headings sort it. Empty cells stay empty: nothing is invented."""
    shown = rows[list(columns)] if columns is not None else rows
    kinds = {c: column_kind(shown[c]) for c in shown.columns}
    heads = "".join(
        f'<th scope="col" class="{_CLASSES.get(kinds[c], kinds[c])}">'
        f'<button type="button">{text(c)}</button></th>'
        for c in shown.columns
    )
    lines = [
        "<tr>"
        + "".join(_cell(v, kinds[c]) for c, v in zip(shown.columns, row, strict=True))
        + "</tr>"
        for row in shown.itertuples(index=False, name=None)
    ]
    body = "".join(lines) or f'<tr><td colspan="{len(shown.columns)}">none</td></tr>'
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table data-sortable>{title}<thead><tr>{heads}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any, kind: str) -> str:
    css = _CLASSES.get(kind, kind)
    if is_missing(value):
        return f'<td class="{css}" data-value=""></td>' if kind in _CLASSES else "<td></td>"
    if kind in _CLASSES:
        shown = f"{int(value):,}" if kind == "count" else number_text(float(value))
        return f'<td class="{css}" data-value="{float(value)!r}">{shown}</td>'
    return f'<td class="{_MARKS.get(str(value), css)}">{text(value)}</td>'


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
