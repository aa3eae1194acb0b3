"""A file dropped on the model panel, in a real browser: read by the page, and sent in pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_driver import cell_errors, chromium, lab, open_notebook, run_cell, write_notebook
from playwright.sync_api import expect

from workbench.bundle import bundled

ROOT = Path(__file__).parents[2]
PANEL = """
from widgets import ModelPanel
panel = ModelPanel()
panel
"""
MOVED = """() => {
  const read = Blob.prototype.arrayBuffer;
  Blob.prototype.arrayBuffer = function () {
    Blob.prototype.arrayBuffer = read;
    return Promise.reject(new DOMException("moved", "NotFoundError"));
  };
}"""


@pytest.mark.browser
@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_named_and_can_be_given_again(tmp_path: Path) -> None:
    write_notebook(tmp_path / "panel.ipynb", [PANEL])
    model = bundled("datasets", "digits_cnn.onnx")
    with lab(tmp_path, python_path=ROOT) as address, chromium() as page:
        open_notebook(page, address, "panel.ipynb")
        assert run_cell(page, 0)
        zone, chooser = page.locator(".wb-drop"), page.locator('input[type="file"]')
        page.evaluate(MOVED)
        chooser.set_input_files(model)
        expect(zone).to_contain_text("digits_cnn.onnx did not arrive: the browser cannot read it")
        chooser.set_input_files(model)
        expect(page.get_by_text("pytorch").first).to_be_visible()
        expect(zone).to_contain_text("Drop an ONNX file here")
        assert cell_errors(page) == []
