"""Panels without a browser: they append Actions, draw what was built, and show what went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from digits import MODEL, QUICK, quick_session, samples, texts

from widgets.panels import (
    PANELS,
    CalibrationPanel,
    GraphPanel,
    LedgerPanel,
    MemoryPanel,
    PrecisionPanel,
    ProfilePanel,
    TacticPanel,
    calibration,
)
from workbench.bundle import bundled
from workbench.config import Calibrator
from workbench.datatypes import DataType
from workbench.errors import SessionError
from workbench.records import Stage
from workbench.session import (
    Session,
    SetCalibrator,
    SetDefaultPrecision,
    SetOption,
    SetPrecisions,
    SetThreshold,
)


@pytest.fixture
def session() -> Session:
    return quick_session()


@pytest.mark.parametrize("kind", PANELS)
def test_every_panel_stands_alone_before_and_after_its_stage_ran(kind, session: Session):
    panel = kind(session)
    assert panel.children
    session.run()
    panel.refresh()
    assert "has not run" not in texts(panel)
    assert repr(panel) == f"{kind.__name__}(digits_cnn)"


@pytest.mark.parametrize("kind", PANELS)
def test_every_panel_refuses_unknown_keywords(kind, session: Session):
    with pytest.raises(TypeError, match="colour"):
        kind(session, colour="red")


def test_a_panel_whose_stage_has_not_run_offers_to_run_it(session: Session):
    panel = TacticPanel(session)
    assert "Tune has not run" in texts(panel)
    run = next(w for w in _buttons(panel) if w.description == "Run up to Tune")
    run.click()
    assert panel.view.layers.rows["Layer"].iloc[0] == "node_Conv_81"


def _buttons(widget) -> list:
    found = [widget] if hasattr(widget, "button_style") and hasattr(widget, "click") else []
    return found + [b for c in getattr(widget, "children", ()) for b in _buttons(c)]


def test_closing_what_a_panel_redraws_leaves_no_widget_behind(session: Session):
    session.run()
    panel = TacticPanel(session)
    old = panel.view.figure
    panel.refresh()
    assert old.comm is None
    assert panel.view.figure.comm is not None


# -- graph and ledger -----------------------------------------------------------------------
def test_choosing_a_fused_layer_outlines_its_model_nodes(session: Session):
    state = session.run(Stage.FUSE)
    panel = GraphPanel(session, before=Stage.PARSE, after=Stage.FUSE)
    nodes = panel.views[1].nodes
    index = next(i for i, n in enumerate(nodes) if n.id == "node_Conv_83")
    panel.chooser.value = index
    left, right = panel.select(1, index)
    assert right == (index,)
    assert {panel.views[0].nodes[i].id for i in left} == set(
        state.network.layer("node_Conv_83").origin
    )
    outlines = [t for t in panel.figure.data if t.name == "highlighted"]
    assert [len(t.x) for t in outlines] == [len(left), 1]


def test_a_click_on_an_original_node_outlines_the_layer_it_became(session: Session):
    session.run(Stage.FUSE)
    panel = GraphPanel(session, before=Stage.PARSE, after=Stage.FUSE)
    trace = next(t for t in panel.figure.data if t.name == "Normalization")

    class Points:
        point_inds = (0,)

    panel._clicked(trace, Points, None)
    assert panel.selected == (0, trace.customdata[0])


def test_the_graph_compares_with_an_earlier_stage_only(session: Session):
    with pytest.raises(SessionError, match="does not come before"):
        GraphPanel(session, before=Stage.FUSE, after=Stage.FOLD)


def test_the_ledger_lists_every_attempt_of_a_stage(session: Session):
    session.do(SetDefaultPrecision(DataType.INT8))
    state = session.run()
    panel = LedgerPanel(session, only=Stage.FUSE)
    attempts = state.log[Stage.FUSE].attempts
    assert len(panel.table.rows) == len(attempts)
    whole = LedgerPanel(session)
    assert len(whole.table.rows) == len(state.log.attempts)
    refused = [a for a in state.log.attempts if not a.applied]
    shown = whole.table.rows.query("Outcome == 'refused'")
    assert shown["Reason"].tolist() == [a.reason for a in refused]


# -- profiles -------------------------------------------------------------------------------
def test_a_suggested_profile_becomes_an_action_only_when_confirmed():
    session = Session(MODEL)
    panel = ProfilePanel(session)
    assert "a suggestion" in panel.status.value
    assert session.actions == ()
    panel.confirm()
    assert session.actions == session.suggested_profile()
    assert "in use" in panel.status.value
    assert panel.use.disabled


def test_sizes_out_of_order_are_explained_and_cannot_be_used():
    session = Session(MODEL)
    panel = ProfilePanel(session)
    panel.set_sizes("batch", 8, 4, 2)
    assert "not in order" in panel.status.value
    assert panel.use.disabled
    panel.confirm()
    assert session.actions == ()
    panel.set_sizes("batch", 2, 4, 8)
    panel.confirm()
    assert session.config.optimization_profiles[0].get_shape("image")[2] == (8, 1, 8, 8)
    assert session.state().done[-1] is Stage.PROFILES


# -- precision ------------------------------------------------------------------------------
def test_a_precision_in_the_table_becomes_an_action_and_the_table_follows(session: Session):
    session.run(Stage.PRECISION)
    panel = PrecisionPanel(session)
    row = panel.table.rows["Layer"].tolist().index("node_Conv_83")
    panel.table.edit([row], "Requested", "BF16")
    asked = session.actions[-1]
    assert isinstance(asked, SetPrecisions)
    assert ("node_Conv_83", DataType.BF16) in asked.requests
    assert panel.table.rows["Requested"].tolist().count("BF16") == 1
    assert panel.table.rows["Built as"].iloc[row] == "BF16"


def test_a_row_wins_over_a_pattern_that_names_its_folded_nodes(session: Session):
    session.run(Stage.PRECISION)
    panel = PrecisionPanel(session)
    panel.pattern.value, panel.kind.value = "node_*", "INT8"
    panel.set_pattern()
    panel.table.edit([0], "Requested", "FP32")
    assert panel.table.rows["Requested"].iloc[0] == "FP32"


def test_several_rows_are_set_at_once(session: Session):
    session.run(Stage.PRECISION)
    panel = PrecisionPanel(session)
    panel.table.edit([0, 2, 4], "Requested", "BF16")
    assert panel.table.rows["Requested"].tolist().count("BF16") == 3


def test_a_pattern_sets_every_node_that_it_names_and_clearing_forgets_it(session: Session):
    session.run(Stage.PRECISION)
    panel = PrecisionPanel(session)
    panel.pattern.value, panel.kind.value = "node_Conv_*", "INT8"
    panel.set_pattern()
    convolutions = panel.table.rows.query("Operator == 'Conv'")
    assert set(convolutions["Built as"]) == {"INT8"}
    panel.clear()
    assert set(panel.table.rows["Requested"]) == {"FP32"}


def test_a_layer_that_cannot_run_as_requested_names_its_blocker(session: Session):
    session.do(SetDefaultPrecision(DataType.INT8))
    session.run(Stage.PRECISION)
    blocked = PrecisionPanel(session).table.rows.query("Operator == 'MaxPool'").iloc[0]
    assert blocked["Built as"] == "FP32"
    assert "no INT8 kernel" in blocked["Blocker"]


# -- calibration ----------------------------------------------------------------------------
def test_another_calibrator_is_an_action_and_moves_the_clip_line(session: Session):
    session.run(Stage.CALIBRATE)
    panel = CalibrationPanel(session)
    name = panel.tensor
    before = panel.result.ranges[name].threshold
    panel.set_calibrator(Calibrator.MINMAX)
    assert session.actions[-1] == SetCalibrator(Calibrator.MINMAX)
    assert panel.result.ranges[name].threshold > before
    panel.show_tensor(name)
    assert panel.figure.layout.shapes[0].x0 == panel.result.ranges[name].threshold


def test_choosing_a_row_draws_that_tensor(session: Session):
    session.run(Stage.CALIBRATE)
    panel = CalibrationPanel(session)
    panel.table.selected = [2]
    assert panel.chooser.value == list(panel.result.ranges)[2]


def test_the_calibration_panels_controls_outlive_a_redrawing_and_each_choice_is_one_action(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    session.run(Stage.CALIBRATE)
    panel = CalibrationPanel(session)
    drawn: list[str] = []
    make = calibration.ClipControl
    monkeypatch.setattr(
        calibration,
        "ClipControl",
        lambda found, **how: drawn.append(found.tensor) or make(found, **how),
    )
    panel.table.query, panel.table.selected = "relu", [2]
    assert drawn == [panel.chooser.value], "a histogram is drawn once"
    controls = (panel.calibrator, panel.chooser, panel.equalize, panel.smooth, panel.table)
    count = len(session.actions)
    panel.calibrator.value = Calibrator.MINMAX
    panel.equalize.value = True
    panel.smooth.value = 0.5
    asked = [
        SetCalibrator(Calibrator.MINMAX),
        *(SetOption(n, v) for n, v in (("equalize_channels", True), ("smooth_alpha", 0.5))),
    ]
    assert list(session.actions[count:]) == asked
    session.undo()
    panel.refresh()
    assert (panel.smooth.value, len(session.actions)) == ("off", count + 2)
    assert all(w.comm is not None for w in controls)
    assert (panel.table.query, panel.table.selected) == ("relu", [2])


def int8_panel(**options) -> CalibrationPanel:
    session = quick_session(DataType.INT8)
    session.do(*(SetOption(n, v) for n, v in options.items()))
    session.run(Stage.CALIBRATE)
    return CalibrationPanel(session)


def test_a_dragged_clip_line_changes_scale_share_sqnr_and_outputs_but_builds_nothing():
    panel = int8_panel()
    panel.show_tensor("relu_1")
    before, actions = panel.clip.numbers.value, panel.session.actions
    line = panel.figure.layout.shapes[0]
    assert panel.figure._config["edits"]["shapePosition"]
    # What the browser sends when the line is let go.
    line.x0 = line.x1 = 0.25
    assert panel.clip.threshold == 0.25
    assert panel.clip.slider.value == pytest.approx(0.25)
    assert panel.clip.numbers.value != before
    assert f"{0.25 / 127:.4g}" in panel.clip.numbers.value
    for said in ("SQNR of this tensor", "SQNR of the outputs", "same answer as float"):
        assert said in panel.clip.numbers.value
    assert panel.figure.layout.shapes[0].x0 == panel.figure.layout.shapes[0].x1 == 0.25
    assert "clip at 0.25" in panel.figure.layout.annotations[0].text
    clipped = next(t for t in panel.figure.data if t.name == "clipped")
    assert min(clipped.x) > 0.25
    assert panel.session.actions == actions


def test_a_typed_threshold_answers_as_a_dragged_one_and_a_bad_one_is_explained():
    panel = int8_panel()
    panel.show_tensor("relu_1")
    panel.clip.number.value = 1.5
    assert panel.clip.threshold == 1.5
    assert "SQNR of the outputs" in panel.clip.numbers.value
    assert panel.clip.slider.value == pytest.approx(1.5, rel=0.01)
    panel.clip.number.value = -2.0
    assert "gives no usable scale" in panel.clip.words.value
    assert panel.clip.threshold == 1.5


def test_a_threshold_is_used_and_given_back_to_calibration():
    panel = int8_panel()
    panel.show_tensor("relu_1")
    calibrated = panel.clip.threshold
    panel.clip.slider.value = 1.0
    panel.clip.apply_button.click()
    assert panel.session.actions[-1] == SetThreshold("relu_1", panel.clip.threshold)
    assert panel.result.ranges["relu_1"].threshold == pytest.approx(1.0, rel=0.01)
    assert "threshold set by hand" in panel.table.rows["Note"].tolist()
    assert "clipped by hand, " in panel.figure.layout.title.text
    panel.clip.reset_button.click()
    assert panel.result.ranges["relu_1"].threshold == calibrated


def test_every_other_calibrators_line_is_on_the_histogram():
    panel = int8_panel()
    names = [t.name.split(" ")[0] for t in panel.figure.data if t.type == "scatter"]
    assert names == [c.value for c in Calibrator if c is not panel.result.calibrator]


def test_a_finding_names_its_remedy_and_the_button_applies_it():
    session = Session(bundled("datasets", "digits_cnn_rescaled.onnx"), calibration=samples())
    session.do(*QUICK, *session.suggested_profile(), SetDefaultPrecision(DataType.INT8))
    session.run(Stage.CALIBRATE)
    panel = CalibrationPanel(session)
    assert "one scale for channels of very different range" in texts(panel)
    mend = next(b for b in _buttons(panel) if b.description == "config.equalize_channels = True")
    mend.click()
    assert session.config.equalize_channels
    assert panel.equalize.value
    assert "Finding" not in texts(panel)
    panel.smooth.value = 0.5
    assert session.config.smooth_alpha == 0.5


def test_what_the_editor_cannot_answer_is_explained_under_the_figure():
    panel = int8_panel()
    before = panel.clip.threshold
    panel.clip.set_threshold(float("nan"))
    assert "no usable scale" in panel.clip.words.value
    assert panel.clip.threshold == before


def test_unreadable_data_is_explained_and_random_data_is_labelled(tmp_path: Path):
    session = Session(MODEL)
    session.do(*QUICK, *session.suggested_profile(), SetDefaultPrecision(DataType.INT8))
    panel = CalibrationPanel(session)
    panel.use_data(str(tmp_path / "absent.npz"))
    assert "CalibrationError" in panel.bar.error.value
    panel.use_data("random")
    assert panel.bar.error.value == ""
    assert panel.result.label == "random"
    assert "random" in texts(panel)
    assert " random samples · " in panel.figure.layout.title.text


# -- tactics, memory, plan ------------------------------------------------------------------
def test_every_tactic_of_the_chosen_layer_is_listed_with_its_refusal(session: Session):
    state = session.run()
    panel = TacticPanel(session)
    choice = state.tuned.layers[1]
    panel.view.layers.selected = [1]
    assert panel.view.chooser.value == choice.layer
    assert len(panel.view.tactics.rows) == len(choice.candidates)
    refused = panel.view.tactics.rows.query("Status == 'refused'")
    assert all(refused["Why not"])


def test_another_optimization_level_waits_for_tune_to_be_asked(session: Session):
    session.run()
    panel = TacticPanel(session)
    panel.set_level(0)
    assert session.config.builder_optimization_level == 0
    assert "Tune has not run" in texts(panel)


def test_level_0_shows_layers_without_times():
    session = quick_session()
    session.do(type(QUICK[1])("builder_optimization_level", 0))
    session.run()
    panel = TacticPanel(session)
    assert panel.view.layers.rows["Median (µs)"].isna().all()


def test_the_arena_is_compared_with_separate_memory(session: Session):
    state = session.run()
    panel = MemoryPanel(session)
    memory = state.memory[0]
    assert f"{memory.arena_bytes / 1024:,.0f} KiB" in texts(panel)
    assert f"{memory.total_bytes / 1024:,.0f} KiB" in texts(panel)
