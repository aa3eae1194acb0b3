"""Lesson 3 as a person uses it: a dot on an arrow is clicked, and its remedy's button pressed."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_driver import cell_errors, chromium, click_mark, lab, open_notebook, run_all
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
LESSON = "03_fusion_and_the_ledger.ipynb"
PATIENCE_MS = 60_000


@pytest.mark.browser
@pytest.mark.slow
def test_the_ledger_lesson_runs_and_a_remedy_is_pressed(tmp_path: Path) -> None:
    (tmp_path / LESSON).write_bytes((ROOT / "notebooks" / LESSON).read_bytes())
    complaints: list[str] = []
    with lab(tmp_path, python_path=ROOT) as address, chromium(height=1500) as page:
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        open_notebook(page, address, LESSON)
        assert run_all(page)
        panel = page.locator(".wb-panel")
        panel.locator(".wb-replay").scroll_into_view_if_needed()
        dots = panel.locator(".wb-replay .scatterlayer .points path")
        expect(dots.first).to_be_visible(timeout=PATIENCE_MS)
        page.wait_for_timeout(500)  # the figure takes its final size
        click_mark(page, dots.first)
        answer = panel.locator(".wb-why")
        expect(answer).to_contain_text("are two layers", timeout=PATIENCE_MS)
        expect(answer).to_contain_text("marked_output")
        answer.get_by_role("button", name="Do it").click()
        expect(answer).to_contain_text("are one layer", timeout=PATIENCE_MS)
        panel.get_by_role("button", name="Take the last edit back").first.click()
        expect(answer).to_contain_text("are two layers", timeout=PATIENCE_MS)
        assert cell_errors(page) == []
    assert complaints == []
