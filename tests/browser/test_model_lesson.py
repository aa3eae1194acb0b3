"""Lesson 2 as a person uses it: its panel shows refusals, opens a subgraph, and takes files.

``pytest tests/browser/test_model_lesson.py --update-pictures`` also writes docs/model_panel.png.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab_driver import cell_errors, chromium, complaints_of, lab, open_notebook, run_all, scroll_to
from playwright.sync_api import Locator, Page, expect

ROOT = Path(__file__).parents[2]
LESSON = "02_the_network_and_the_parser.ipynb"
HUGE = 9_000_000
"""Bytes: more than one message of a notebook's connection may hold."""


@pytest.mark.browser
@pytest.mark.slow
def test_the_lesson_runs_and_its_panel_takes_refused_broken_and_good_files(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    copy_lesson(tmp_path / LESSON)
    model = (ROOT / "datasets" / "digits_cnn.onnx").read_bytes()
    (tmp_path / "mine.onnx").write_bytes(model)
    (tmp_path / "broken.onnx").write_bytes(model[:500])
    (tmp_path / "padded.onnx").write_bytes(model + b"\x00" * HUGE)
    with lab(tmp_path, python_path=ROOT) as address, chromium(width=1300, height=1300) as page:
        complaints = complaints_of(page)
        open_notebook(page, address, LESSON)
        assert run_all(page)
        assert cell_errors(page) == []
        scroll_to(page, ".wb-panel")
        refused, panel = page.locator(".wb-panel").first, page.locator(".wb-panel").last
        expect(tab(refused, "Refusals (3)")).to_be_visible()
        expect(tab(panel, "Operators (7)")).to_be_visible()

        upload(panel, tmp_path / "mine.onnx")
        expect(panel.locator(".wb-head")).to_contain_text("mine")
        tab(panel, "Weights").click()
        weights = panel.get_by_role("table", name="weights")
        expect(weights.get_by_role("row").nth(1)).to_contain_text("residual.first.conv.weight")
        expect(weights).to_contain_text("NaN")

        upload(panel, tmp_path / "broken.onnx")
        alert = panel.locator(".wb-refused")
        expect(alert).to_contain_text("broken cannot be opened. mine is still open.")
        expect(panel.locator(".wb-error")).to_contain_text("500 bytes are not one whole ONNX")
        expect(panel.locator(".wb-head")).to_contain_text("mine")

        upload(panel, tmp_path / "padded.onnx")
        expect(alert).to_contain_text("padded cannot be opened")

        write_refused(page, tmp_path / "refused.onnx")
        upload(panel, tmp_path / "refused.onnx")
        expect(alert).to_contain_text("refused is refused, for 3 reasons. mine is still open.")
        reason = panel.locator(".wb-refusal").first
        for text in ("my::Swirl", "'Swirl_1' (node 1)", "UNSUPPORTED_NODE (8)", "remedy"):
            expect(reason).to_contain_text(text)
        picture = tmp_path / "model_panel.png"
        take_picture(page, panel, picture)

        tab(panel, "Subgraphs").click()
        boxes = panel.locator(".js-plotly-plot .barlayer .point")
        expect(boxes.first).to_be_visible()
        panel.get_by_role("button", name="Open it as a model").click()
        expect(panel.locator(".wb-head")).to_contain_text("refused_subgraph")
        assert cell_errors(page) == []
    assert complaints == []
    if pytestconfig.getoption("--update-pictures"):
        (ROOT / "docs" / "model_panel.png").write_bytes(picture.read_bytes())


def copy_lesson(path: Path) -> None:
    """A person's copy of the lesson, not yet run."""
    lesson = json.loads((ROOT / "notebooks" / LESSON).read_text())
    for cell in lesson["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    path.write_text(json.dumps(lesson))


def write_refused(page: Page, path: Path) -> None:
    """The lesson's faulty model as a file, written by its own kernel."""
    code = f"open({path.name!r}, 'wb').write(faulty.SerializeToString())"
    page.evaluate(
        """async (code) => {
          const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
          await kernel.requestExecute({ code }).done;
        }""",
        code,
    )
    assert path.exists()


def tab(panel: Locator, name: str) -> Locator:
    """A tab of the panel."""
    return panel.get_by_role("tab", name=name)


def upload(panel: Locator, path: Path) -> None:
    """Choose a file in the person's file chooser."""
    panel.locator("input[type=file]").set_input_files(str(path))


def take_picture(page: Page, panel: Locator, path: Path) -> None:
    """The panel alone."""
    panel.evaluate("e => e.scrollIntoView({block: 'start'})")
    page.mouse.move(5, 5)
    page.wait_for_timeout(800)
    panel.screenshot(path=path)
