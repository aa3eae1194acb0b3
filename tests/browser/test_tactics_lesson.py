"""Lesson 6 as a person uses it: live tactics filtered and tuned again, a recording replayed."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_driver import cell_errors, chromium, complaints_of, lab, open_notebook, run_all
from playwright.sync_api import Locator, Page, expect

ROOT = Path(__file__).parents[2]
LESSON = "06_tactics_formats_and_the_timing_cache.ipynb"
PATIENCE_MS = 120_000


@pytest.mark.browser
@pytest.mark.slow
def test_the_tactics_lesson_runs_and_its_panels_filter_restrict_and_replay(tmp_path: Path) -> None:
    (tmp_path / LESSON).write_bytes((ROOT / "notebooks" / LESSON).read_bytes())
    with lab(tmp_path, python_path=ROOT) as address, chromium(height=1500) as page:
        complaints = complaints_of(page)
        open_notebook(page, address, LESSON)
        assert run_all(page)
        live, recorded = page.locator(".wb-panel").first, page.locator(".wb-panel").last
        filter_by_source(live)
        tune_without_onednn(page, live)
        look_through(recorded)
        assert cell_errors(page) == []
    assert complaints == []


def filter_by_source(panel: Locator) -> None:
    """Choose NUMPY: the table of one layer's tactics has that source's alone."""
    panel.get_by_label("Source").select_option("NUMPY")
    table = panel.get_by_role("table", name="tactics of")
    expect(table.locator("tbody tr").first).to_contain_text("NUMPY")
    rows = table.locator("tbody tr").all_text_contents()
    assert rows and all("NUMPY" in r for r in rows)


def tune_without_onednn(page: Page, panel: Locator) -> None:
    """Untick oneDNN, read what that would cost, and tune with what is left."""
    panel.get_by_label("ONEDNN").uncheck()
    # The depthwise layer is oneDNN's by far on every machine; others may be another source's.
    expect(panel.get_by_role("table", name="what if")).to_contain_text("node_Conv_84")
    panel.get_by_role("button", name="Tune with these").click()
    expect(panel.get_by_label("ONEDNN")).not_to_be_checked()
    layers = panel.get_by_role("table", name="layers and their tactics")
    tactics = layers.locator("tbody tr").first
    expect(tactics).not_to_contain_text("ONEDNN", timeout=PATIENCE_MS)


def look_through(panel: Locator) -> None:
    """Each page of the recorded build is labelled with device and date."""
    expect(panel.get_by_role("note")).to_contain_text("not measured on this machine")
    for page in ("Waterfall", "Roofline", "Tactics"):
        panel.get_by_role("tab", name=page).click()
        figure = panel.locator(".js-plotly-plot:visible").first
        expect(figure).to_contain_text("recorded on NVIDIA H200")
