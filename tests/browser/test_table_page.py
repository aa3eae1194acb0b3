"""The table's own page: what a person has open or is typing in outlives new rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import chromium
from playwright.sync_api import Page, expect

SOURCE = Path(__file__).parents[2] / "widgets" / "table.js"
SHOWN = """async (source) => {
  const { default: table } = await import("data:text/javascript;base64," + btoa(
    String.fromCharCode(...new TextEncoder().encode(source))));
  const column = (name, more) => ({ name, kind: "text", choices: null, facet: false, ...more });
  const values = {
    _columns: [column("Layer"), column("Requested", { choices: ["FP32", "BF16", "INT8"] }),
      column("Built as", { facet: true })],
    _rows: Array.from({ length: 9 }, (_, i) => [`conv${i}`, "FP32", "FP32"]),
    label: "layers", marks: {}, height: 300, query: "", facets: {}, selection: "many",
    selected: [],
  };
  const heard = {};
  globalThis.sent = [];
  globalThis.model = {
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; heard[`change:${name}`]?.(); },
    on: (event, f) => { heard[event] = f; },
    off: () => {},
    save_changes: () => {},
    send: (message) => sent.push(message),
  };
  globalThis.give = (id, ...cells) => {
    const rows = values._rows.map((r, i) => (i === id ? [r[0], ...cells] : r));
    model.set("_rows", rows);
  };
  table.render({ model, el: document.body });
}"""
CELL = "Requested of conv"


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as opened:
        opened.set_content("<!doctype html><body></body>")
        opened.evaluate(SHOWN, SOURCE.read_text())
        yield opened


@pytest.mark.browser
def test_a_table_keeps_what_a_person_works_with_when_it_gets_new_rows(page: Page) -> None:
    other = page.get_by_label(f"{CELL}5", exact=True)
    other.evaluate("e => { globalThis.open = e; e.focus(); }")
    page.evaluate("give(2, 'INT8', 'INT8')")  # a facet appears, too
    expect(page.get_by_label(f"{CELL}2", exact=True)).to_have_value("INT8")
    expect(page.get_by_label("show only this Built as")).to_be_visible()
    assert page.evaluate("document.activeElement === globalThis.open"), "an open list stays open"

    page.get_by_label(f"{CELL}5", exact=True).select_option("BF16")
    assert page.evaluate("sent.at(-1).rows") == [5]
    page.evaluate("give(5, 'BF16', 'BF16')")  # the answer draws that row anew
    expect(page.get_by_label(f"{CELL}5", exact=True)).to_be_focused()

    page.get_by_label(f"{CELL}6", exact=True).select_option("INT8")
    page.evaluate("give(7, 'BF16', 'BF16')")  # the answer leaves row 6 as it was
    expect(page.get_by_label(f"{CELL}6", exact=True)).to_have_value("FP32")

    search = page.get_by_label("filter rows of layers")
    search.focus()
    page.keyboard.type("cnv")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.evaluate("give(1, 'INT8', 'FP8')")  # another value of the facet: the bar is drawn anew
    page.keyboard.type("o")
    expect(search).to_have_value("conv")
    expect(page.locator("tbody tr")).to_have_count(9)

    many = page.get_by_label("Requested for the selected rows")
    many.select_option("INT8")
    page.evaluate("give(1, 'FP32', 'FP32')")
    expect(many).to_have_value("INT8")
    page.get_by_role("button", name="Select shown").click()
    page.get_by_role("button", name="Set selected").click()
    assert page.evaluate("[sent.at(-1).value, sent.at(-1).rows.length]") == ["INT8", 9]


@pytest.mark.browser
def test_a_table_follows_its_columns_its_selection_and_its_filter(page: Page) -> None:
    rows = page.locator("tbody tr")
    page.evaluate("model.set('selected', [3])")
    expect(page.get_by_label("select conv3")).to_be_checked()
    page.evaluate("give(3, 'BF16', 'BF16')")
    expect(page.get_by_label("select conv3")).to_be_checked()
    page.evaluate("model.set('query', 'conv3')")
    expect(rows).to_have_count(1)
    expect(page.get_by_label("filter rows of layers")).to_have_value("conv3")
    page.evaluate("model.set('query', '')")
    page.get_by_role("button", name="Layer").click()
    page.get_by_role("button", name="Layer").click()
    expect(rows.first).to_contain_text("conv8")
    page.evaluate("give(8, 'INT8', 'INT8')")
    expect(rows.first).to_contain_text("INT8")
    page.evaluate("model.set('_rows', [])")
    expect(rows).to_have_text("no row to show")
    page.evaluate("model.set('_rows', [['one', 'FP32', 'FP32']])")
    expect(rows).to_contain_text("one")
