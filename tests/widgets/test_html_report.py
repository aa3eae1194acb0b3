"""The HTML report: one file, offline, with everything that the build decided."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from digits import quick_session

from widgets.html_report import report_html, write_report
from workbench.builder import BuildState
from workbench.datatypes import DataType
from workbench.errors import BuildError
from workbench.records import Stage
from workbench.reports import accuracy_rows

FETCHING = {"src", "href", "srcset", "data", "action", "poster", "background"}


class Page(HTMLParser):
    """What the page fetches, its sections, its text and its styles."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.sections: list[str] = []
        self.text: list[str] = []
        self.styles: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.fetched += [v for k, v in attrs if k in FETCHING and v and not v.startswith("#")]
        self.sections += [v for k, v in attrs if tag == "section" and k == "id" and v]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.styles.append(data)
        elif self._inside != "script":
            self.text.append(data)


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    return page


@pytest.fixture(scope="module")
def state() -> BuildState:
    return quick_session(DataType.INT8).run()


@pytest.fixture(scope="module")
def html(state: BuildState) -> str:
    context = state.engine().create_execution_context()
    profile = context.profile({"image": np.zeros((8, 1, 8, 8), np.float32)}, iterations=3)
    accuracy = accuracy_rows(
        {"FP32": 99.0, "INT8": 98.5}, 360, {"FP32": "all 6", "INT8": "6 of 6 layers"}
    )
    return report_html(state, accuracy=accuracy, profile=profile)


def test_coverage_stands_beside_accuracy(html: str):
    assert "6 of 6 layers" in html


def test_nothing_is_fetched_to_show_the_report(html: str):
    page = read(html)
    assert page.fetched == []
    assert not re.search(r"@import|url\(", "".join(page.styles))


def test_plotly_is_in_the_file_once(html: str):
    assert len(re.findall(r"plotly\.js v\d", html)) == 1


def test_every_section_is_there(html: str):
    wanted = "stages graph layers tactics ledger precision accuracy calibration memory profile plan"
    assert read(html).sections == wanted.split()


def test_sections_without_data_are_left_out(state: BuildState):
    sections = read(report_html(state)).sections
    assert "accuracy" not in sections
    assert "profile" not in sections


def test_device_digest_layers_and_refusals_are_told(html: str, state: BuildState):
    text = " ".join(read(html).text)
    assert state.log.device in text
    assert state.sha256 in text
    for choice in state.tuned.layers:
        assert choice.layer in text
        for candidate in choice.candidates:
            if candidate.refusal is not None:
                assert candidate.refusal.reason in text
    for decision in state.decisions:
        assert decision.blocker in text


def test_names_from_the_model_cannot_break_the_page():
    session = quick_session()
    session.name = "</script><b>model"
    html = report_html(session.run())
    assert "</script><b>model" not in html


def test_a_report_needs_a_finished_build():
    with pytest.raises(BuildError, match="run Serialize"):
        report_html(quick_session().run(Stage.FUSE))


def test_the_file_is_written_whole(state: BuildState, tmp_path: Path):
    path = write_report(state, tmp_path / "report.html")
    assert path.read_text().endswith("</html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
