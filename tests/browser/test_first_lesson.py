"""Lesson 1 as a person uses it: in JupyterLab, in a browser, down to a plan that runs elsewhere.

``pytest tests/browser/test_first_lesson.py --update-pictures`` also writes docs/studio.png.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lab_driver import (
    cell_errors,
    chromium,
    complaints_of,
    lab,
    open_notebook,
    run_all,
    run_cell,
    scroll_to,
    wait_for_kernel,
)
from playwright.sync_api import Locator, Page, expect

ROOT = Path(__file__).parents[2]
LESSON = "01_first_engine.ipynb"
LAYER = "node_Conv_83"
BATCH = 64
PATIENCE_MS = 120_000
EXPECTED = f"""
inputs = {{"image": images[:{BATCH}]}}
np.savez("inputs.npz", **inputs)
np.savez("expected.npz", **studio.session.run().engine().create_execution_context().run(inputs))
"""
"""A cell that writes what the engine of the Studio's kernel gives."""
BARE = """
import sys
for name in ("onnx", "pandas", "plotly", "ipywidgets", "IPython"):
    sys.modules[name] = None
from workbench.runtime.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.browser
@pytest.mark.slow
def test_the_first_lesson_runs_and_its_studio_changes_a_precision_builds_and_exports(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    last = copy_lesson(tmp_path / LESSON)
    with lab(tmp_path, python_path=ROOT) as address, chromium(height=1300) as page:
        complaints = complaints_of(page)
        open_notebook(page, address, LESSON)
        assert run_all(page)
        assert cell_errors(page) == []
        wait_for_kernel(page)

        assert executed(page, LAYER) == "INT8"
        request(page, LAYER, "BF16")
        build(page)
        export(page, "from_studio.plan")
        assert executed(page, LAYER).split(" ")[0] == "BF16"

        assert run_cell(page, last)
        picture = tmp_path / "studio.png"
        show_fusion(page)
        take_picture(page, picture)
        assert cell_errors(page) == []
    assert complaints == []
    runs_in_a_bare_process(tmp_path)
    assert picture.stat().st_size > 20_000
    if pytestconfig.getoption("--update-pictures"):
        (ROOT / "docs" / "studio.png").write_bytes(picture.read_bytes())


def copy_lesson(path: Path) -> int:
    """A person's copy of the lesson, not yet run, with a cell more; the index of that cell."""
    lesson = json.loads((ROOT / "notebooks" / LESSON).read_text())
    more = {"cell_type": "code", "id": "expected", "metadata": {}, "source": EXPECTED}
    lesson["cells"].append(more)
    for cell in lesson["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    path.write_text(json.dumps(lesson))
    return len(lesson["cells"]) - 1


def show(page: Page, stage: str) -> None:
    """Click a stage of the stepper."""
    scroll_to(page, ".wb-studio")
    page.locator(".wb-step", has_text=stage).click()
    expect(page.locator(".wb-step.wb-shown")).to_contain_text(stage)


def executed(page: Page, layer: str) -> str:
    """The cell of a layer in the column Executed of the layer table."""
    show(page, "Tune")
    table = page.get_by_role("table", name="layers and their tactics")
    columns = table.locator("thead th").all_text_contents()
    row = table.locator("tbody tr", has=page.get_by_role("cell", name=layer, exact=True))
    return row.locator("td").nth(columns.index("Executed")).text_content() or ""


def request(page: Page, layer: str, precision: str) -> None:
    """Choose a precision in the row of a layer."""
    show(page, "Precision")
    page.get_by_label(f"Requested of {layer}").select_option(precision)
    # The later stages aren't built for the new request.
    expect(page.locator(".wb-step.wb-done")).to_have_count(4)


def build(page: Page) -> None:
    """Press the button that builds, and wait."""
    page.get_by_role("button", name="Build all").click()
    expect(page.locator(".wb-step.wb-done")).to_have_count(9, timeout=PATIENCE_MS)


def export(page: Page, name: str) -> None:
    """Write the plan with the Studio's button."""
    show(page, "Serialize")
    page.locator(".wb-panel").get_by_role("textbox").fill(name)
    page.get_by_role("button", name="Export plan").click()
    expect(page.get_by_role("status").filter(has_text=f"{name}: ")).to_be_visible()


def show_fusion(page: Page) -> None:
    """The graph before and after Fuse, one fused layer outlined on both sides, and the refusals."""
    show(page, "Fuse")
    dropdown(page, "Compare with").select_option(label="Fold")
    outline = dropdown(page, "Outline")
    label = next(x for x in outline.locator("option").all_text_contents() if LAYER in x)
    outline.select_option(label=label)
    page.get_by_label("show only this Outcome").select_option("refused")


def dropdown(page: Page, label: str) -> Locator:
    """A select of the Studio, by the text before it."""
    return page.locator(".wb-studio .widget-dropdown", has_text=label).locator("select")


def take_picture(page: Page, path: Path) -> None:
    """The Studio alone."""
    scroll_to(page, ".wb-studio")
    page.mouse.move(5, 5)
    page.wait_for_timeout(1500)  # figures fit themselves to their room
    box = page.locator(".wb-studio").bounding_box()
    assert box is not None
    edge = 5
    size = {"width": box["width"] + 2 * edge, "height": box["height"] + 2 * edge}
    page.screenshot(path=path, clip={"x": box["x"] - edge, "y": box["y"] - edge, **size})


def runs_in_a_bare_process(folder: Path) -> None:
    """Where only the runtime can be imported, the plan gives the Studio's outputs to the bit."""
    command = [sys.executable, "-c", BARE, "from_studio.plan", "--inputs", "inputs.npz"]
    command += ["--expect", "expected.npz", "--save", "outputs.npz"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit-equal" in done.stdout
    logits = np.load(folder / "outputs.npz")["logits"]
    labels = np.load(ROOT / "datasets" / "digits.npz")["test_labels"][:BATCH]
    assert np.mean(logits.argmax(axis=1) == labels) >= 0.95
