"""What nbval does not look at: how each lesson was saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOTEBOOKS = sorted(Path(__file__).parents[2].glob("notebooks/*.ipynb"))


def lessons() -> list[tuple[str, dict[str, Any]]]:
    return [(path.name, json.loads(path.read_text())) for path in NOTEBOOKS]


def code_cells() -> list[tuple[str, dict[str, Any]]]:
    """Each code cell with text in it, named by notebook and id."""
    return [
        (f"{name}, cell {cell.get('id', '?')}", cell)
        for name, notebook in lessons()
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "".join(cell["source"]).strip()
    ]


def test_each_lesson_says_what_it_requires() -> None:
    wrong = [n for n, nb in lessons() if nb["metadata"].get("requires") not in ("cpu", "gpu")]
    assert not wrong, 'set the metadata "requires" to "cpu" or "gpu"'


def test_each_cell_was_run_before_saving() -> None:
    wrong = [name for name, cell in code_cells() if cell["execution_count"] is None]
    assert not wrong, "nbval compares nothing for a cell that was never run"


def test_no_widget_state_is_saved() -> None:
    assert not [name for name, notebook in lessons() if "widgets" in notebook["metadata"]]


def test_each_saved_figure_has_a_picture_beside_it() -> None:
    wrong = [
        name
        for name, cell in code_cells()
        for output in cell["outputs"]
        if "application/vnd.plotly.v1+json" in (data := output.get("data", {}))
        and "image/png" not in data
    ]
    assert not wrong, "viewers that run no JavaScript show only the PNG"


def test_a_cell_has_at_most_ten_lines() -> None:
    wrong = [n for n, cell in code_cells() if "".join(cell["source"]).strip().count("\n") >= 10]
    assert not wrong
