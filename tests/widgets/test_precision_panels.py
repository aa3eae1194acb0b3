"""The precision and accuracy panels: requests, the contract, sensitivity, divergence, the fix."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from digits import MODEL, quick_session, texts

import workbench as wb
from widgets.figures.accuracy import divergence_figure, noise_percent, sensitivity_figure
from widgets.panels import PrecisionPanel
from widgets.panels.accuracy import BETWEEN, OURS, PEER, AccuracyPanel
from widgets.panels.base import within
from workbench.config import BuilderFlag
from workbench.datatypes import DataType
from workbench.lab import PrecisionTrials
from workbench.records import CallbackMonitor, Stage
from workbench.session import Session, SetDefaultPrecision, SetFlag, SetOption

DIGITS = np.load(wb.bundled("datasets", "digits.npz"))


@pytest.fixture
def session() -> Session:
    return quick_session()


def rescaled(kind: DataType = DataType.INT8) -> Session:
    """Channels that differ 1 to 1024: plain INT8 loses most of its answers."""
    opened = Session(
        wb.bundled("datasets", "digits_cnn_rescaled.onnx"),
        calibration={"image": DIGITS["calibration_images"][:64]},
    )
    opened.do(*opened.suggested_profile(), SetDefaultPrecision(kind))
    opened.do(SetOption("builder_optimization_level", 0), SetOption("verify", "none"))
    return opened


# -- precision ------------------------------------------------------------------------------
def test_a_regular_expression_names_the_nodes_it_finds(session: Session):
    panel = PrecisionPanel(session)
    session.run(Stage.PRECISION)
    panel.refresh()
    panel.pattern.value = "/Conv_8[23]$/"
    panel.kind.value = "BF16"
    panel.set_pattern()
    asked = session.actions[-1]
    assert [p for p, _ in asked.requests] == ["node_Conv_82", "node_Conv_83"]
    rows = panel.table.rows.set_index("Layer")
    assert rows.loc["node_Conv_82", "Built as"] == "BF16"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/(/", "is no regular expression"),
        ("/nowhere/", "no node&#x27;s name matches /nowhere/"),
        ("node_Conv_8[12", "near: node_Conv_82, node_Conv_81, node_Conv_85"),
    ],
)
def test_a_wrong_pattern_is_explained_and_changes_nothing(session: Session, pattern, message):
    panel = PrecisionPanel(session)
    session.run(Stage.PRECISION)
    panel.refresh()
    before = session.actions
    panel.pattern.value = pattern
    panel.set_pattern()
    assert message in panel.bar.error.value
    assert session.actions == before
    assert panel.table in panel._content.children, "it can be mended where it was written"


def test_a_request_that_fails_the_stage_is_taken_back_in_the_panel(session: Session):
    session.do(SetDefaultPrecision(DataType.INT8))
    session.run(Stage.PRECISION)
    panel = PrecisionPanel(session)
    panel.weak[BuilderFlag.FP16].value = True
    assert "flags leave the choice to the tuner" in panel.bar.error.value
    assert panel.undo_button in within(panel._content)
    panel.undo_button.click()
    assert panel.bar.error.value == ""
    assert panel.table in panel._content.children


def test_a_request_is_undone_and_brought_back_in_the_panel(session: Session):
    panel = PrecisionPanel(session)
    session.run(Stage.PRECISION)
    panel.refresh()
    panel.set_layers([0], "INT8")
    assert panel.table.rows["Requested"][0] == "INT8"
    panel.undo_button.click()
    assert panel.table.rows["Requested"][0] == "FP32"
    assert not panel.redo_button.disabled
    panel.redo_button.click()
    assert panel.table.rows["Requested"][0] == "INT8"


def test_controls_outlive_a_redrawing_and_show_what_is_asked_for(session: Session):
    session.run(Stage.PRECISION)
    panel = PrecisionPanel(session)
    controls = [panel.everything, *panel.weak.values(), panel.pattern, panel.lowered, panel.table]
    panel.everything.value = "BF16"
    assert session.actions[-1] == SetDefaultPrecision(DataType.BF16)
    count = len(session.actions)
    panel.undo_button.click()
    assert panel.everything.value == "FP32"
    assert len(session.actions) == count - 1, "showing a request is none"
    shown = [w for c in panel.children for w in within(c)]
    assert all(any(w is x for x in shown) and w.comm is not None for w in controls)


def test_the_contract_shows_what_executed_and_counts_what_is_emulated(session: Session):
    session.do(SetDefaultPrecision(DataType.FP8))
    session.run()
    panel = PrecisionPanel(session)
    rows = panel.table.rows.set_index("Layer")
    assert rows.loc["node_Conv_82", "Executed"] == "FP8 (emulated)"
    said = texts(panel)
    assert "requests below FP32 kept" in said
    assert "layers emulated on this device" in said


def test_measured_sensitivity_is_a_column_and_bars(session: Session):
    session.run(Stage.PRECISION)
    panel = PrecisionPanel(session)
    panel.measure()
    assert panel.runner.failure is None
    rows = panel.table.rows.set_index("Layer")
    found = {r.layer: noise_percent(r.alone.sqnr_db) for r in panel.sensitivity.rows}
    assert len(found) == 6
    assert rows.loc["node_Conv_82", "Noise alone (%)"] == pytest.approx(found["node_Conv_82"])
    assert np.isnan(rows.loc["node_max_pool2d", "Noise alone (%)"])
    bars = next(t for t in panel.figure.data if t.type == "bar")
    assert len(bars.y) == 6
    assert list(bars.x) == pytest.approx(sorted(bars.x))  # the most sensitive on top


def test_sensitivity_without_data_says_what_is_missing():
    session = Session(MODEL)
    session.do(*session.suggested_profile())
    session.run(Stage.PRECISION)
    panel = PrecisionPanel(session)
    panel.measure()
    assert "no samples to measure on" in panel.bar.error.value


def test_weak_typing_shows_what_the_tuner_would_choose_and_is_labelled_as_of_old():
    session = quick_session()
    session.run(Stage.PRECISION)
    panel = PrecisionPanel(session)
    assert "TensorRT ≤ 10, removed in 11" in texts(panel)
    panel.weak[BuilderFlag.INT8].value = True
    assert panel.runner.failure is None
    chosen = panel.chosen.rows
    assert {"Nodes", "Chosen", "FP32 (µs)", "INT8 (µs)"} <= set(chosen.columns)
    asked = set(panel.table.rows.query("Operator == 'Conv'")["Requested"])
    assert asked <= {"FP32", "INT8"}
    assert "config.set_flag(wb.BuilderFlag.INT8)" in session.code()
    panel.undo_button.click()
    assert not panel.weak[BuilderFlag.INT8].value


def test_sensitivity_is_marked_when_the_settings_that_it_was_measured_with_change(session: Session):
    session.run(Stage.PRECISION)
    panel = PrecisionPanel(session)
    panel.measure()
    panel.set_default("INT8")
    assert "measured with other settings" not in texts(panel), "a request decides nothing of it"
    panel.request(SetOption("weight_scales", "tensor"))
    assert "measured with other settings" in texts(panel)


# -- accuracy -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def compared() -> AccuracyPanel:
    session = rescaled()
    session.run(Stage.PRECISION)
    panel = AccuracyPanel(session)
    panel.compare()
    assert panel.runner.failure is None
    return panel


def test_the_build_stands_beside_the_float_model_and_onnx_runtime(compared: AccuracyPanel):
    assert list(compared.quality) == [OURS, PEER, BETWEEN]
    assert compared.quality[PEER].relative_l2 < 1e-5
    assert compared.quality[OURS].agreement < 60
    assert "6 of 6 products in INT8" in texts(compared)


def test_the_first_divergence_is_named_and_drawn(compared: AccuracyPanel):
    first = compared.divergence.first
    assert first is not None
    assert f"First beyond 10%: {first.layer}" in texts(compared)
    ring = next(t for t in compared.divergence_figure.data if "first beyond" in t.name)
    assert list(ring.x) == [first.layer]


def test_a_comparison_builds_its_config_once(monkeypatch: pytest.MonkeyPatch):
    built = []
    original = PrecisionTrials.build

    def counted(self, config, **options):
        built.append(config.default_precision)
        return original(self, config, **options)

    monkeypatch.setattr(PrecisionTrials, "build", counted)
    session = rescaled()
    session.run(Stage.PRECISION)
    panel = AccuracyPanel(session)
    panel.compare()
    assert list(panel.quality) == [OURS, PEER, BETWEEN]
    assert built == [DataType.INT8]


PHASES = ("Build", "Reference", "Taps", "Samples", "ONNX Runtime", "This build")


@pytest.mark.parametrize("phase", PHASES)
def test_a_comparison_hears_cancel_in_every_part_of_its_work(
    compared: AccuracyPanel, monkeypatch: pytest.MonkeyPatch, phase: str
):
    panel, before = AccuracyPanel(compared.session), []
    original = CallbackMonitor.phase_start

    def phase_start(self, phase_name, *given):
        before.append(phase_name)
        if phase_name == phase:
            panel.runner.cancel()
        original(self, phase_name, *given)

    monkeypatch.setattr(CallbackMonitor, "phase_start", phase_start)
    panel.compare()
    assert panel.runner.failure is not None and panel.runner.failure.cancelled
    assert max(map(PHASES.index, set(PHASES) & set(before))) == PHASES.index(phase)
    assert not panel.quality and panel.divergence is None
    monkeypatch.undo()
    panel.compare()
    assert panel.runner.failure is None
    assert panel.quality[OURS].to_json() == compared.quality[OURS].to_json()


def test_what_is_not_finite_is_drawn_at_the_edge_and_told_as_it_is():
    columns = ["Layer", "Built as", "Difference (%)", "Added (%)", "Note"]
    rows = pd.DataFrame(
        [("a", "FP16", 20.0, 20.0, "first beyond 10%"), ("b", "FP16", np.inf, np.inf, "")],
        columns=columns,
    )
    bars, line, _ = divergence_figure(rows, 0.1, "here").data
    assert list(line.customdata) == ["20", "inf"]
    assert [kind for _, kind in bars.customdata] == ["20", "inf"]
    assert list(line.y) == [20.0, pytest.approx(23.0)]
    noise = pd.DataFrame(
        [("a", 20.0, 40.0), ("b", -np.inf, np.nan)],
        columns=["Layer", "Output SQNR (dB)", "Own SQNR (dB)"],
    )
    bars, ticks = sensitivity_figure(noise, "FP16", "here").data
    assert list(bars.customdata) == ["inf", "10"]
    assert np.isfinite(bars.x).all()
    assert list(ticks.customdata) == ["nan", "1"]


def test_a_comparison_says_when_it_is_of_earlier_requests(compared: AccuracyPanel):
    assert "compare again" not in texts(compared)
    compared.request(SetDefaultPrecision(DataType.FLOAT))
    assert "compare again" in texts(compared)
    compared.session.undo()
    compared.refresh()
    assert "compare again" not in texts(compared)


def test_without_onnx_runtime_the_comparison_says_why_it_has_no_peer(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("workbench.lab.peer.peer_installed", lambda: False)
    session.run(Stage.PRECISION)
    panel = AccuracyPanel(session)
    panel.compare()
    assert list(panel.quality) == [OURS]
    assert "ONNX Runtime is not installed" in texts(panel)


def test_weak_typing_is_compared_by_what_it_chose_and_no_search_starts_from_it(session: Session):
    session.do(SetFlag(BuilderFlag.INT8))
    state = session.run(Stage.PRECISION)
    panel = AccuracyPanel(session)
    panel.compare()
    assert panel.runner.failure is None
    chosen = {d.layer: d.precision for d in state.decisions}
    assert all(r.built is chosen[r.layer] for r in panel.divergence.rows if r.layer in chosen)
    sensitivity = PrecisionPanel(session)
    sensitivity.measure()
    assert sensitivity.runner.failure is None
    panel.tolerance.value = 1.0
    panel.search()
    assert panel.runner.failure is None
    panel.apply()
    assert BuilderFlag.INT8 not in session.config.flags
    assert panel.runner.failure is None


def test_the_search_finds_a_fix_shows_its_code_and_applies_it():
    session = rescaled(DataType.FLOAT)
    session.run(Stage.PRECISION)
    panel = AccuracyPanel(
        session,
        samples={"image": DIGITS["test_images"][:100]},
        labels=DIGITS["test_labels"][:100],
    )
    panel.tolerance.value = 2.0
    panel.search()
    assert panel.runner.failure is None
    fix = panel.fix
    assert 0 < len(fix.layers) < 6
    assert fix.loss <= 2.0 < fix.lowered.quality.loss("accuracy", fix.reference)
    assert panel.code.code == fix.code
    panel.apply()
    assert "requested here: FP32, INT8" in texts(panel), "Precision has run for what was asked"
    config = session.config
    assert config.default_precision is DataType.INT8
    assert [p for p, _ in config.precisions] == list(fix.nodes)
    assert all(k is DataType.FLOAT for _, k in config.precisions)


def test_the_front_is_drawn_and_a_chosen_point_becomes_requests(session: Session):
    session.run(Stage.PRECISION)
    panel = AccuracyPanel(session)
    panel.search_front()
    assert panel.runner.failure is None
    rows = panel.front.rows
    assert (rows["On the front"] == "yes").any()
    assert all("products in INT8" in t for t in rows["Coverage"])
    panel._take_chosen()
    assert "no point is chosen" in panel.bar.error.value
    panel.front.selected = [0]
    point = panel.fix.front[0]
    panel._take_chosen()
    assert session.config.to_json()["precisions"] == point.config["precisions"]


def test_a_search_can_be_cancelled_and_goes_on_with_what_it_has():
    session = rescaled(DataType.FLOAT)
    session.run(Stage.PRECISION)
    panel = AccuracyPanel(session)
    seen = []

    class Stop:
        def started(self):
            pass

        def finished(self):
            pass

        def progressed(self, progress):
            seen.append(progress.message)
            if "Search" in progress.message:
                panel.runner.cancel()

    panel.runner.listen(Stop())
    panel.search()
    assert panel.runner.failure is not None
    assert panel.runner.failure.cancelled
    (trials,) = panel._known.values()
    built = trials.evaluations
    panel.runner._listeners.pop()
    panel.search()
    assert panel.fix is not None
    assert panel.fix.evaluations >= built
    assert list(panel._known.values()) == [trials]
