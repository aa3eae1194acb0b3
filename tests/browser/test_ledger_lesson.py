"""Lesson 3 as a person uses it: its panel driven by real clicks, and by the keyboard alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_driver import cell_errors, chromium, click_mark, complaints_of, lab, open_notebook, run_all
from playwright.sync_api import Locator, Page, expect

ROOT = Path(__file__).parents[2]
LESSON = "03_fusion_and_the_ledger.ipynb"


@pytest.mark.browser
@pytest.mark.slow
def test_the_ledger_lesson_runs_and_its_panel_answers_mends_and_takes_back(tmp_path: Path) -> None:
    (tmp_path / LESSON).write_bytes((ROOT / "notebooks" / LESSON).read_bytes())
    with lab(tmp_path, python_path=ROOT) as address, chromium(height=1500) as page:
        complaints = complaints_of(page)
        open_notebook(page, address, LESSON)
        assert run_all(page)
        panel = page.locator(".wb-panel")
        panel.locator(".wb-replay").scroll_into_view_if_needed()
        mend_by_a_click_on_a_dot(page, panel)
        mend_by_the_keyboard(page, panel)
        replay(page, panel)
        filter_the_table(page, panel)
        assert cell_errors(page) == []
    assert complaints == []


def mend_by_a_click_on_a_dot(page: Page, panel: Locator) -> None:
    """The dot on the arrow from Conv to Relu: the reason, its remedy, the fusion; and back."""
    dots = panel.locator(".wb-replay .scatterlayer .points path")
    expect(dots).to_have_count(9)
    page.wait_for_timeout(500)  # the figure takes its final size
    answer = panel.locator(".wb-why")
    click_mark(page, dots.first)
    expect(answer).to_contain_text("are two layers")
    expect(answer.locator(".wb-card")).to_contain_text("marked_output")
    answer.get_by_role("button", name="Do it").click()
    fused_and_taken_back(panel)


def mend_by_the_keyboard(page: Page, panel: Locator) -> None:
    """The same edge found by typing, chosen by an arrow key, mended by Enter."""
    answer = panel.locator(".wb-why")
    answer.get_by_placeholder("filter edges").focus()
    page.keyboard.type("marked_output")
    edges = answer.locator("select option")
    expect(edges).to_have_count(1)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    expect(answer).to_contain_text("are two layers")
    page.keyboard.press("Tab")
    expect(answer.get_by_role("button", name="Do it")).to_be_focused()
    page.keyboard.press("Enter")
    fused_and_taken_back(panel)


def fused_and_taken_back(panel: Locator) -> None:
    answer = panel.locator(".wb-why")
    expect(answer).to_contain_text("are one layer")
    changed = "node_Conv_81: Conv, node_relu: Relu → node_Conv_81: Conv+Relu"
    expect(panel).to_contain_text(changed)
    panel.get_by_role("button", name="Take it back").click()
    expect(answer).to_contain_text("are two layers")


def replay(page: Page, panel: Locator) -> None:
    """One step back, then that rewrite before and after it."""
    panel.get_by_title("one rewrite back").click()
    expect(panel).to_contain_text("4 of 5: residual at node_Conv_83, node_add_40")
    panel.get_by_role("button", name="before and after it").click()
    graph = panel.locator(".wb-replay .annotation")
    expect(graph.filter(has_text="Before: 11 layers")).to_be_visible()
    expect(graph.filter(has_text="After: 10 layers")).to_be_visible()


def filter_the_table(page: Page, panel: Locator) -> None:
    """By outcome; then by the layer of a box that is clicked."""
    rows = panel.get_by_role("table", name="ledger").locator("tbody tr")
    panel.get_by_label("show only this Outcome").select_option("refused")
    expect(rows).to_have_count(1)
    panel.get_by_label("show only this Outcome").select_option("Outcome: all")
    expect(rows).to_have_count(6)
    page.wait_for_timeout(500)  # the figure takes its final size
    text = panel.locator(".wb-replay .bartext").filter(has_text="ReduceMean").first
    click_mark(page, text)
    expect(panel.get_by_label("filter rows of ledger")).to_have_value('"node_mean"')
    expect(rows).to_have_text("no row to show")
