"""The precision and accuracy panels in a real browser: requests, divergence, search, mend."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_driver import cell_errors, chromium, lab, open_notebook, run_cell, write_notebook
from playwright.sync_api import Page, expect

ROOT = Path(__file__).parents[2]
PATIENCE_MS = 120_000
SESSION = """
import numpy as np
import workbench as wb
from widgets import AccuracyPanel, PrecisionPanel
from workbench.session import SetDefaultPrecision, SetOption
data = np.load(wb.bundled("datasets", "digits.npz"))
model = wb.bundled("datasets", "digits_cnn_rescaled.onnx")
session = wb.Session(model, calibration={"image": data["calibration_images"][:64]})
session.do(*session.suggested_profile(), SetDefaultPrecision(wb.DataType.INT8))
session.do(SetOption("verify", "none"), SetOption("builder_optimization_level", 0))
session.run(wb.records.Stage.PRECISION)
PrecisionPanel(session)
"""
ACCURACY = """
tests = {"image": data["test_images"][:64]}
AccuracyPanel(session, samples=tests, labels=data["test_labels"][:64])
"""
ASKED = "print(session.config.default_precision, len(session.config.precisions) > 0)"


@pytest.mark.browser
@pytest.mark.slow
def test_precision_is_asked_for_and_a_broken_build_is_mended_by_clicks(tmp_path: Path) -> None:
    complaints: list[str] = []
    write_notebook(tmp_path / "panels.ipynb", [SESSION, ACCURACY, ASKED])
    with lab(tmp_path, python_path=ROOT) as address, chromium(height=1500) as page:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        open_notebook(page, address, "panels.ipynb")
        assert run_cell(page, 0)
        ask(page)
        assert run_cell(page, 1)
        mend(page)
        assert run_cell(page, 2)
        expect(page.locator(".jp-Cell").nth(2).get_by_text("INT8 True")).to_be_visible()
        assert cell_errors(page) == []
    assert complaints == []


def ask(page: Page) -> None:
    """Filter by a regular expression, set what is shown at once, take it back in one step."""
    panel = page.locator(".jp-Cell").nth(0)
    rows = panel.get_by_role("table", name="precision of each layer").locator("tbody tr")
    expect(rows).to_have_count(14, timeout=PATIENCE_MS)
    panel.get_by_label("filter rows of precision of each layer").fill("/Conv_8[234]/")
    expect(rows).to_have_count(3)
    panel.get_by_role("button", name="Select shown").click()
    panel.get_by_label("Requested for the selected rows").select_option("BF16")
    panel.get_by_role("button", name="Set selected").click()
    built = rows.get_by_role("cell", name="BF16", exact=True)
    expect(built).to_have_count(6, timeout=PATIENCE_MS)  # requested and built as, of each
    panel.get_by_role("button", name="Undo").click()
    expect(panel.get_by_role("button", name="Redo")).to_be_enabled(timeout=PATIENCE_MS)
    panel.get_by_label("filter rows of precision of each layer").fill("")
    expect(rows).to_have_count(14)


def mend(page: Page) -> None:
    """The first divergence is named; the search finds what to keep; a button requests it."""
    panel = page.locator(".jp-Cell").nth(1)
    panel.get_by_role("button", name="Compare and find the first divergence").click()
    first = panel.locator(".wb-note").filter(has_text="First beyond 10%: node_Conv_8")
    expect(first).to_be_visible(timeout=PATIENCE_MS)
    expect(panel.get_by_role("cell", name="this build beside ONNX Runtime")).to_be_visible()
    panel.get_by_role("button", name="Find the smallest fix").click()
    request = panel.get_by_role("button", name="Request this")
    expect(request).to_be_visible(timeout=PATIENCE_MS)
    expect(panel.locator(".wb-answer")).to_contain_text("products in INT8")
    request.click()
    expect(panel.get_by_text("requested here: FP32, INT8")).to_be_visible(timeout=PATIENCE_MS)
