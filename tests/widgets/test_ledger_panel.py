"""The ledger panel without a browser: attempts, remedies, replay, and the question of an edge."""

from __future__ import annotations

import pytest
from digits import samples, texts
from sketch import Sketch

from widgets.figures.arrows import DOTS
from widgets.panels import LedgerPanel
from widgets.panels.replay import BOTH
from workbench import fusions
from workbench.bundle import bundled
from workbench.datatypes import DataType
from workbench.lab import RewriteSteps
from workbench.lab.steps import edges_of
from workbench.network.remedies import MarkOutput, UnmarkOutput
from workbench.records import Remedy, Stage
from workbench.rewrite import FusionAnswers, RewriteRule
from workbench.session import EditNetwork, Session, SetDefaultPrecision


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


def buttons(widget) -> list:
    found = [widget] if hasattr(widget, "button_style") and hasattr(widget, "click") else []
    return found + [b for c in getattr(widget, "children", ()) for b in buttons(c)]


def take_back(panel: LedgerPanel) -> None:
    next(b for b in buttons(panel.edited) if b.description == "Take it back").click()


def show(panel: LedgerPanel) -> None:
    next(b for b in buttons(panel.card) if b.description == "Show it in the graph").click()


def outlined(panel: LedgerPanel) -> list[str]:
    """The layers whose boxes are outlined, by the place of the outline."""
    trace = next(t for t in panel.replay.figure.data if t.name == "highlighted")
    side = panel.replay.figure.layout.meta["sides"][0]
    places = [tuple(b) for b in side["boxes"]]
    middles = [y + h / 2 for y, h in zip(trace.base, trace.y, strict=True)]
    return [side["ids"][places.index(p)] for p in zip(trace.x, middles, strict=True)]


def click(panel: LedgerPanel, trace, index: int) -> None:
    """As the page reports a click on one point."""

    class Points:
        point_inds = (index,)

    for heard in trace._click_callbacks:
        heard(trace, Points, None)


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
    assert outlined(panel) == ["a"]
    assert "unmark &#x27;a_out&#x27; as an output" in texts(panel.edited)
    assert "a: Conv, act_a: Relu → a: Conv+Relu" in texts(panel.edited)
    take_back(panel)
    assert panel.session.actions == ()
    assert panel.edited.children == ()
    assert panel.ask("a", "act_a").layer == ""
    assert outlined(panel) == ["a", "act_a"]


def test_a_remedy_of_several_edits_is_taken_back_as_one(panel: LedgerPanel) -> None:
    panel.do(Remedy("two edits", (MarkOutput("c_out"), UnmarkOutput("a_out"))), Stage.FUSE)
    assert len(panel.session.actions) == 2
    assert panel.ask("a", "act_a").layer == "a"
    take_back(panel)
    assert panel.session.actions == ()


def test_an_edge_within_a_layer_can_be_broken_to_see_what_happens(panel: LedgerPanel) -> None:
    panel.ask("c", "act_c")
    assert outlined(panel) == ["c"]
    (press,) = buttons(panel.why_not.result)
    assert press.description == "Break it: mark 'c_out' as an output"
    press.click()
    assert panel.why_not.answer.attempts[0].code == "marked_output"
    assert "c: Conv+Relu → c: Conv, act_c: Relu" in texts(panel.edited)


def test_the_chosen_edge_is_answered_again_after_its_edit(panel: LedgerPanel) -> None:
    edge = next(e for e in panel.replay.steps.edges if str(e) == "b → act_b")
    panel.why_not.chooser.value = edge
    assert panel.why_not.answer.attempts[0].code == "second_consumer"
    buttons(panel.why_not.result)[0].click()
    assert panel.why_not.answer.layer == "b"


def test_edges_are_filtered_by_layer_tensor_and_code(panel: LedgerPanel) -> None:
    assert len(panel.why_not.chooser.options) == len(panel.replay.steps.edges)
    panel.why_not.words.value = "second_consumer"
    shown = [label for label, _ in panel.why_not.chooser.options]
    assert shown == ["b → act_b   · second_consumer, an edit joins them"]
    panel.why_not.words.value = "one layer"
    assert [str(e) for _, e in panel.why_not.chooser.options] == ["c → act_c"]
    panel.ask("b", "pool")
    assert panel.why_not.words.value == ""
    assert str(panel.why_not.chooser.value) == "b → pool"


def test_a_name_that_is_nowhere_is_explained(panel: LedgerPanel) -> None:
    assert panel.ask("nobody", "act_a") is None
    assert "no layer or node is named &#x27;nobody&#x27;" in texts(panel.why_not.result)


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
    assert outlined(panel) == list(first.created)
    old = replay.figure
    replay.step(-1)
    replay.step(1)
    assert old.comm is None
    assert len(replay.view.nodes) == 1 + 6 + 3


def test_replay_shows_a_rewrite_before_and_after(panel: LedgerPanel) -> None:
    replay = panel.replay
    replay.slider.value = 1
    replay.mode.value = BOTH
    first = replay.steps.applied[0]
    before, after = replay.views
    assert len(before.nodes) == len(after.nodes) + 1
    marks = [t for t in replay.figure.data if t.name == "highlighted"]
    assert [len(t.x) for t in marks] == [len(first.place), len(first.created)]
    replay.slider.value = 0
    assert len(replay.views) == 1


def test_a_row_is_shown_in_the_graph(panel: LedgerPanel) -> None:
    panel.replay.slider.value = 0
    panel.choose(panel.table.rows["Outcome"].tolist().index("applied"))
    show(panel)
    assert panel.replay.slider.value == 1
    panel.choose(panel.table.rows["Code"].tolist().index("marked_output"))
    show(panel)
    assert panel.replay.slider.value == panel.replay.slider.max
    assert outlined(panel) == ["a", "act_a"]


def test_a_dot_on_an_arrow_tells_its_verdict_and_asks_about_its_edge(panel: LedgerPanel) -> None:
    panel.replay.slider.value = 0
    dots = next(t for t in panel.replay.figure.data if t.name == "edges")
    names = [
        tuple(panel.replay.view.nodes[i].id for i in panel.replay.view.edges[e][:2])
        for e in dots.customdata
    ]
    colours = dict(zip(names, dots.marker.color, strict=True))
    assert colours["c", "act_c"] == DOTS["joined"][0]
    assert colours["b", "act_b"] == DOTS["mendable"][0]
    assert colours["b", "pool"] == DOTS["apart"][0]
    click(panel, dots, names.index(("b", "act_b")))
    assert (panel.why_not.answer.producer, panel.why_not.answer.reader) == ("b", "act_b")
    assert str(panel.why_not.chooser.value) == "b → act_b"
    assert outlined(panel) == ["b", "act_b"]


def test_a_box_filters_the_table_by_its_layer(panel: LedgerPanel) -> None:
    boxes = next(t for t in panel.replay.figure.data if t.type == "bar" and t.name == "Pointwise")
    click(panel, boxes, 0)
    place = panel.replay.view.nodes[boxes.customdata[0]].id
    assert panel.table.query == f'"{place}"'


def test_a_wrong_rule_is_listed_as_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    drop = RewriteRule("drop", lambda op, x: op.Relu(x), lambda network, match: match["x"])
    monkeypatch.setattr(fusions, "FUSIONS", (drop, *fusions.FUSIONS))
    session = Session(network())
    session.run(Stage.FUSE)
    panel = LedgerPanel(session, only=Stage.FUSE)
    listed = panel.table.rows.query("Outcome == 'quarantined'")
    assert set(listed["Rule"]) == {"drop"}
    assert set(listed["Code"]) == {"check_failed"}
    assert "3 quarantined" in panel.summary.value


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("digits_cnn", DataType.FLOAT),
        ("digits_inception", DataType.FLOAT),
        ("digits_vit", DataType.FLOAT),
        ("digits_cnn", DataType.BF16),  # its Casts cancel
        ("digits_inception", DataType.INT8),  # its QuantizeLinear are split and merged
    ],
)
def test_every_dot_of_every_step_has_an_answer(model: str, kind: DataType) -> None:
    session = Session(bundled("datasets", f"{model}.onnx"), calibration=samples(8))
    session.do(*session.suggested_profile(), SetDefaultPrecision(kind))
    state = session.run(Stage.FUSE)
    steps = RewriteSteps(state, Stage.FUSE)
    answers = FusionAnswers(state.networks[Stage.FUSE], state.log[Stage.FUSE].attempts)
    for count in range(len(steps.applied) + 1):
        for edge in edges_of(steps.network(count)):
            assert answers.ask(edge.producer, edge.reader).verdict in DOTS


def test_an_arrow_at_a_cast_that_cancelled_says_that_it_is_no_layer_any_more() -> None:
    session = Session(bundled("datasets", "digits_cnn.onnx"))
    session.do(*session.suggested_profile(), SetDefaultPrecision(DataType.BF16))
    session.run(Stage.FUSE)
    panel = LedgerPanel(session, only=Stage.FUSE)
    answer = panel.ask("node_Conv_81_to_fp32", "getitem_to_bf16")
    assert answer is not None
    assert answer.attempts[0].code == "absorbed"
    assert "one of them is no layer any more" in texts(panel.why_not)


def test_an_edge_that_no_rule_joins_says_so_without_a_button(panel: LedgerPanel) -> None:
    answer = panel.ask("b", "pool")
    assert answer.attempts[0].code == "no_rule"
    assert buttons(panel.why_not.result) == []


def test_a_panel_of_a_stage_that_rewrites_nothing_has_no_replay() -> None:
    session = Session(network())
    session.run(Stage.PRECISION)
    panel = LedgerPanel(session, only=Stage.PRECISION)
    assert panel.replay.steps is None
