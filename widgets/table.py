"""A table in the notebook: sorted, filtered, selected and edited with mouse or keyboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import pandas as pd
import traitlets

from widgets.columns import column_kind, is_missing
from widgets.patience import patient
from workbench.errors import SessionError

_HERE = Path(__file__).parent
MARKS = {
    **{"applied": "good", "chosen": "good"},
    **{"refused": "bad", "near miss": "bad", "quarantined": "bad"},
}

Edit = Callable[[tuple[int, ...], str, str], None]


class Table(anywidget.AnyWidget):
    """Rows with units. ``selected`` are row numbers of the table as it was given.

    choices: column -> the values that its cells can take; such a cell is a select, and with
    ``selection="many"`` all selected rows can be set at once. facets: columns to filter by value.
    An edit changes nothing here: ``on_edit`` hears (rows, column, value) and gives new rows.
    """

    _esm = patient(_HERE / "table.js")
    _css = _HERE / "table.css"
    _columns = traitlets.List().tag(sync=True)
    _rows = traitlets.List().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    marks = traitlets.Dict().tag(sync=True)
    height = traitlets.Int(420).tag(sync=True)
    query = traitlets.Unicode().tag(sync=True)
    facets = traitlets.Dict().tag(sync=True)
    selection = traitlets.Enum(["none", "one", "many"], "none").tag(sync=True)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(
        self,
        rows: pd.DataFrame,
        *,
        label: str,
        selection: str = "none",
        choices: Mapping[str, Sequence[str]] | None = None,
        facets: Sequence[str] = (),
        height: int = 420,
        on_edit: Edit | None = None,
    ) -> None:
        self._choices = {k: list(v) for k, v in (choices or {}).items()}
        self._faceted = tuple(facets)
        self._on_edit = on_edit
        super().__init__(label=label, selection=selection, height=height, marks=MARKS)
        self.rows = rows
        self.on_msg(self._hear)

    @property
    def rows(self) -> pd.DataFrame:
        """What the table shows, before filter and order."""
        return self._frame

    @rows.setter
    def rows(self, rows: pd.DataFrame) -> None:
        self._frame = rows
        columns = [self._column(str(c), rows[c]) for c in rows.columns]
        values = [[_plain(v) for v in row] for row in rows.itertuples(index=False, name=None)]
        with self.hold_sync():
            self._columns = columns
            self._rows = values
            self.selected = [i for i in self.selected if i < len(values)]

    def edit(self, rows: Sequence[int], column: str, value: str) -> None:
        """What the select of a cell, or the bulk editor, does. Raises SessionError."""
        if value not in self._choices.get(column, ()):
            known = ", ".join(self._choices.get(column, ())) or "none: it cannot be edited"
            raise SessionError(f"'{value}' is not a choice", place=column, remedy=f"use {known}")
        if any(not 0 <= r < len(self._rows) for r in rows):
            raise SessionError(f"rows {list(rows)} of {len(self._rows)}", place=self.label)
        if self._on_edit is not None and rows:
            self._on_edit(tuple(rows), column, value)

    def _hear(self, _: object, content: Any, buffers: object) -> None:
        if isinstance(content, dict) and content.get("kind") == "edit":
            self.edit(content["rows"], content["column"], content["value"])

    def _column(self, name: str, values: Any) -> dict[str, Any]:
        return {
            "name": name,
            "kind": column_kind(values),
            "choices": self._choices.get(name),
            "facet": name in self._faceted,
        }


def _plain(value: Any) -> Any:
    """A JSON value; None for what is missing."""
    if is_missing(value):
        return None
    if hasattr(value, "item"):
        return value.item()
    return value if isinstance(value, str | int | float | bool) else str(value)
