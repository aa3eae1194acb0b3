"""The clip line of the calibration panel, dragged with the pointer in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_driver import cell_errors, chromium, lab, open_notebook, run_cell, write_notebook
from playwright.sync_api import Page, expect

ROOT = Path(__file__).parents[2]
PATIENCE_MS = 120_000
PANEL = """
import numpy as np
import workbench as wb
from widgets.panels import CalibrationPanel
from workbench.session import SetDefaultPrecision, SetOption
data = np.load(wb.bundled("datasets", "digits.npz"))["calibration_images"][:64]
model = wb.bundled("datasets", "digits_cnn_rescaled.onnx")
session = wb.Session(model, calibration={"image": data})
session.do(*session.suggested_profile(), SetDefaultPrecision(wb.DataType.INT8))
session.do(SetOption("tactic_sources", ("NUMPY",)), SetOption("builder_optimization_level", 0))
panel = CalibrationPanel(session)
panel.runner.session.run(panel.stage)
panel.refresh()
panel.show_tensor("relu_1")
panel
"""


@pytest.mark.browser
@pytest.mark.slow
def test_a_dragged_line_answers_and_the_finding_is_mended_by_its_button(tmp_path: Path) -> None:
    complaints: list[str] = []
    asked = "print(panel.clip.threshold < 0.8 * panel.clip.found.threshold)"
    write_notebook(tmp_path / "panel.ipynb", [PANEL, asked])
    with lab(tmp_path, python_path=ROOT) as address, chromium(height=1400) as page:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        open_notebook(page, address, "panel.ipynb")
        assert run_cell(page, 0)
        line = page.locator(".shapelayer path").first
        line.wait_for(state="attached", timeout=PATIENCE_MS)
        expect(page.get_by_text("Finding: one scale for channels")).to_be_visible()
        _drag(page, -300)
        expect(page.get_by_text("SQNR of the outputs")).to_be_visible(timeout=PATIENCE_MS)
        assert run_cell(page, 1)
        expect(page.locator(".jp-Cell").nth(1).get_by_text("True")).to_be_visible()
        page.get_by_role("button", name="config.equalize_channels = True").click()
        finding = page.get_by_text("Finding: one scale for channels")
        expect(finding).to_have_count(0, timeout=PATIENCE_MS)
        assert cell_errors(page) == []
    assert complaints == []


def _drag(page: Page, across: int) -> None:
    """Take the clip line along by so many pixels."""
    box = page.locator(".shapelayer path").first.bounding_box()
    assert box is not None, "the line is not drawn"
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + across, y, steps=8)
    page.mouse.up()
