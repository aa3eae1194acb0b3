"""Figures on a page that takes long to read plotly.js, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_driver import (
    cell_errors,
    chromium,
    complaints_of,
    lab,
    open_notebook,
    run_cell,
    write_notebook,
)
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
EARLY = """
import time
import plotly.graph_objects as go
from widgets import plotly_once
bring = plotly_once._load
plotly_once._load = lambda: None
figure = plotly_once.Figure(go.Figure(go.Bar(x=[1, 2], y=[3, 4])))
figure
"""
CHANGED = """
time.sleep(4)
figure.data[0].y = [5, 6]
figure.add_bar(x=[1], y=[2])
figure.layout.title.text = "after one"
figure.layout.title.text = "after both"
"""
LATE = "bring()"
AGAIN = """
plotly_once._loaders.clear()
bring()
plotly_once.Figure(go.Figure(go.Bar(x=[1], y=[1])))
"""
BROKEN = "plotly_once._loaders = [plotly_once.Loader(source='throw new Error(\"cut off\")')]"


@pytest.mark.browser
@pytest.mark.slow
def test_a_figure_shows_what_changed_while_plotly_was_still_on_its_way(tmp_path: Path) -> None:
    write_notebook(tmp_path / "late.ipynb", [EARLY, CHANGED, LATE])
    with lab(tmp_path, python_path=ROOT) as address, chromium() as page:
        complaints = complaints_of(page)
        open_notebook(page, address, "late.ipynb")
        assert run_cell(page, 0)
        assert run_cell(page, 1)
        assert page.locator(".plotly").count() == 0
        assert run_cell(page, 2)
        expect(page.locator(".bars .point")).to_have_count(3)
        expect(page.locator(".gtitle")).to_have_text("after both")
        heights = page.evaluate(
            "document.querySelector('.js-plotly-plot').data.map((trace) => Array.from(trace.y))"
        )
        assert heights == [[5, 6], [2]]
        assert cell_errors(page) == []
    assert complaints == []


@pytest.mark.browser
@pytest.mark.slow
def test_a_figure_says_why_plotly_cannot_be_loaded_and_a_later_one_is_drawn(tmp_path: Path) -> None:
    write_notebook(tmp_path / "broken.ipynb", [EARLY, BROKEN, AGAIN])
    with lab(tmp_path, python_path=ROOT) as address, chromium() as page:
        open_notebook(page, address, "broken.ipynb")
        assert run_cell(page, 0)
        assert run_cell(page, 1)
        shown = page.get_by_text("plotly.js cannot be loaded: cut off", exact=True)
        expect(shown).to_be_visible()
        assert run_cell(page, 2)
        expect(page.locator(".bars .point")).to_have_count(1)
