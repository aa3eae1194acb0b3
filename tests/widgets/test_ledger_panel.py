"""The ledger panel without a browser: attempts, remedies, replay, and the question of an edge."""

from __future__ import annotations

import pytest
from sketch import Sketch

from widgets.panels import LedgerPanel
from workbench.network.remedies import UnmarkOutput
from workbench.records import Stage
from workbench.session import EditNetwork, Session


def network():
    """A convolution that a mark, and one whose second reader, keeps from its activation."""
    s = Sketch()
    x = s.input(2, 4, 6, 6)
    a = s.conv(x, 4, name="a")
    b = s.conv(s("Relu", a, name="act_a"), 4, name="b")
    pool = s("MaxPool", b, name="pool", kernel_shape=(2, 2))
    c = s("Relu", s.conv(pool, 4, name="c"), name="act_c")
    s.output(a, s("Relu", b, name="act_b"), c)
    s.network.model_nodes = tuple(x.name for x in s.network.layers)
    return s.network


@pytest.fixture
def panel() -> LedgerPanel:
    session = Session(network())
    session.run(Stage.FUSE)
    return LedgerPanel(session, only=Stage.FUSE)


def texts(widget) -> str:
    own = " ".join(str(getattr(widget, name, "")) for name in ("value", "description", "code"))
    return " ".join([own, *(texts(c) for c in getattr(widget, "children", ()))])


def buttons(widget) -> list:
    found = [widget] if hasattr(widget, "button_style") and hasattr(widget, "click") else []
    return found + [b for c in getattr(widget, "children", ()) for b in buttons(c)]


def test_every_attempt_is_a_row_with_its_code_and_its_edit(panel: LedgerPanel) -> None:
    rows = panel.table.rows
    assert len(rows) == len(panel.attempts)
    refused = rows.query("Outcome == 'refused'")
    assert set(refused["Code"]) == {"marked_output", "second_consumer"}
    assert "unmark 'a_out' as an output" in set(refused["Remedy"])
    assert {"Outcome", "Rule", "Code"} == {c["name"] for c in panel.table._columns if c["facet"]}


def test_a_chosen_row_shows_the_attempt_and_the_python_of_its_edit(panel: LedgerPanel) -> None:
    panel.choose(panel.table.rows["Code"].tolist().index("marked_output"))
    said = texts(panel.card)
    assert "&#x27;a_out&#x27; is a network output" in said
    assert "UnmarkOutput(tensor='a_out').apply(network)" in said


def test_the_edits_button_appends_actions_and_the_fusion_happens(panel: LedgerPanel) -> None:
    answer = panel.ask("a", "act_a")
    assert (answer.layer, answer.attempts[0].code) == ("", "marked_output")
    (press,) = buttons(panel.why_not.result)
    press.click()
    assert panel.session.actions == (EditNetwork(UnmarkOutput("a_out"), Stage.FUSE),)
    assert panel.ask("a", "act_a").layer == "a"
    assert "are one layer" in texts(panel.why_not.result)
    back = next(b for b in buttons(panel) if b.description.startswith("Take the last edit back"))
    back.click()
    assert panel.session.actions == ()
    assert panel.ask("a", "act_a").layer == ""


def test_the_chosen_edge_is_answered_again_after_its_edit(panel: LedgerPanel) -> None:
    edge = next(e for e in panel.replay.steps.edges if str(e) == "b → act_b")
    panel.why_not.chooser.value = edge
    assert panel.why_not.answer.attempts[0].code == "second_consumer"
    buttons(panel.why_not.result)[0].click()
    assert panel.why_not.answer.layer == "b"


def test_an_edit_that_does_not_fit_is_explained(panel: LedgerPanel) -> None:
    remedy = panel.ask("a", "act_a").remedies[0]
    panel.do(remedy, Stage.FUSE)
    panel.do(remedy, Stage.FUSE)
    assert "UnmarkOutput" in panel.bar.error.value
    assert "does not fit" in panel.bar.error.value


def test_replay_walks_through_the_rewrites_and_outlines_the_last(panel: LedgerPanel) -> None:
    replay, count = panel.replay, len(panel.replay.steps.applied)
    assert replay.slider.value == count
    replay.slider.value = 0
    assert "nothing is rewritten yet" in replay.said.value
    assert len(replay.view.nodes) == 1 + 7 + 3
    replay.step(1)
    first = replay.steps.applied[0]
    assert first.rule in replay.said.value
    outline = next(t for t in replay.figure.data if t.name == "highlighted")
    assert len(outline.x) == len(first.created)
    old = replay.figure
    replay.step(-1)
    replay.step(1)
    assert old.comm is None  # it has left the page by now
    replay.step(-1)
    assert len(replay.view.nodes) == 1 + 7 + 3


def test_a_dot_on_an_arrow_asks_about_its_edge(panel: LedgerPanel) -> None:
    panel.replay.slider.value = 0
    dots = next(t for t in panel.replay.figure.data if t.name == "edges")
    ids = [n.id for n in panel.replay.view.nodes]
    names = [(ids[a], ids[b]) for a, b, _ in panel.replay.view.edges]
    place = [names[i] for i in dots.customdata].index(("b", "act_b"))

    class Points:
        point_inds = (place,)

    panel.replay._clicked(dots, Points, None)
    assert (panel.why_not.answer.producer, panel.why_not.answer.reader) == ("b", "act_b")
    assert str(panel.why_not.chooser.value) == "b → act_b"


def test_an_edge_that_no_rule_joins_says_so_without_a_button(panel: LedgerPanel) -> None:
    answer = panel.ask("b", "pool")
    assert answer.attempts[0].code == "no_rule"
    assert buttons(panel.why_not.result) == []


def test_a_panel_of_a_stage_that_rewrites_nothing_has_no_replay() -> None:
    session = Session(network())
    session.run(Stage.PRECISION)
    panel = LedgerPanel(session, only=Stage.PRECISION)
    assert panel.replay.steps is None
