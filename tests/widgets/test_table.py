"""The table widget: what it sends to the page, and what edits do."""

from __future__ import annotations

import time

import pandas as pd
import pytest

from widgets.table import Table
from workbench.errors import SessionError

ROWS = pd.DataFrame(
    {
        "Layer": ["stem", "head"],
        "Precision": ["FP32", "INT8"],
        "Median (µs)": [12.5, None],
        "Values": [3, 4],
    }
)
CHOICES = {"Precision": ("FP32", "BF16", "INT8")}


def test_rows_are_sent_as_plain_values_and_missing_ones_stay_empty():
    table = Table(ROWS, label="layers")
    assert table._rows == [["stem", "FP32", 12.5, 3], ["head", "INT8", None, 4]]


def test_columns_know_how_they_are_written():
    table = Table(ROWS, label="layers", choices=CHOICES, facets=("Precision",))
    kinds = {c["name"]: c["kind"] for c in table._columns}
    assert kinds == {
        "Layer": "short",
        "Precision": "short",
        "Median (µs)": "number",
        "Values": "count",
    }
    assert table._columns[1]["choices"] == list(CHOICES["Precision"])
    assert table._columns[1]["facet"]


def test_an_edit_on_the_page_is_heard_with_all_its_rows():
    heard: list[tuple[tuple[int, ...], str, str]] = []
    table = Table(
        ROWS,
        label="layers",
        selection="many",
        choices=CHOICES,
        on_edit=lambda *edit: heard.append(edit),
    )
    message = {"kind": "edit", "rows": [0, 1], "column": "Precision", "value": "BF16"}
    table._handle_custom_msg(message, [])
    assert heard == [((0, 1), "Precision", "BF16")]


def test_a_value_that_is_no_choice_is_refused():
    table = Table(ROWS, label="layers", choices=CHOICES)
    with pytest.raises(SessionError, match="not a choice"):
        table.edit([0], "Precision", "FP7")
    with pytest.raises(SessionError, match="cannot be edited"):
        table.edit([0], "Layer", "other")
    with pytest.raises(SessionError, match="rows"):
        table.edit([2], "Precision", "BF16")


def test_new_rows_keep_a_selection_that_still_exists():
    table = Table(ROWS, label="layers", selection="many")
    table.selected = [0, 1]
    table.rows = ROWS.iloc[:1]
    assert table.selected == [0]


def test_an_unknown_keyword_is_refused():
    with pytest.raises(TypeError, match="colour"):
        Table(ROWS, label="layers", colour="red")  # pyright: ignore[reportCallIssue]


def test_200_rows_are_made_within_300_ms():
    rows = pd.DataFrame({c: [f"{c}{i}" for i in range(200)] for c in "abcdef"})
    start = time.perf_counter()
    Table(rows, label="many", choices={"a": ("x", "y")})
    assert time.perf_counter() - start < 0.3
