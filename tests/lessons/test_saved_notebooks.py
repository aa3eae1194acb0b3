"""What nbval does not look at: how each lesson was saved."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
OURS = {"workbench", "widgets"}


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


def test_what_a_lesson_imports_comes_with_the_workbench() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = {re.split(r"[^\w]", d)[0].lower() for d in project["dependencies"]}
    wrong = [
        f"{name}: {imported}"
        for name, cell in code_cells()
        for imported in imports("".join(cell["source"]))
        if imported not in OURS | installed | set(sys.stdlib_module_names)
    ]
    assert not wrong, "the README installs no extra"


def imports(source: str) -> set[str]:
    """The packages that a cell imports, by their first name."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    of = {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
    return {name.split(".")[0] for name in plain | of}


def test_lessons_lead_from_one_to_the_next() -> None:
    """Each names the lesson before it at its top, and the one after it at top and end."""
    files = [path.name for path in NOTEBOOKS]
    for number, (name, notebook) in enumerate(lessons()):
        texts = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"]
        if number:
            assert f"]({files[number - 1]})" in texts[0].split("Next:")[0], name
        if number + 1 < len(files):
            assert f"]({files[number + 1]})" in texts[0].partition("Next:")[2], name
            assert f"]({files[number + 1]})" in texts[-1].partition("*Next:")[2], name
