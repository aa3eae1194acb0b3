"""The Studio without a browser: stages, requests, cancel, errors, undo, code."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import numpy as np
import pytest
from digits import MODEL, QUICK, samples, shared_cache

from widgets import Studio
from widgets.panels import PrecisionPanel, ProfilePanel, RunPanel, TacticPanel
from widgets.panels.base import within
from widgets.studio import GROUPS
from workbench.datatypes import DataType
from workbench.errors import CalibrationError, ConfigError, ParserError, SessionError
from workbench.network import NetworkDefinition
from workbench.records import Stage
from workbench.session import SetDefaultPrecision


@pytest.fixture
def studio() -> Studio:
    made = Studio(MODEL, calibration=samples(), timing_cache=shared_cache())
    made.session.do(*QUICK)
    return made


@pytest.fixture
def ready(studio: Studio) -> Studio:
    """With its dynamic sizes confirmed."""
    studio.session.do(*studio.session.suggested_profile())
    return studio


def done(studio: Studio) -> list[str]:
    """The stages that the stepper marks as done."""
    return [s.value for s, b in studio.steps.items() if "✓" in b.description]


def test_the_device_is_the_first_thing_that_is_said(studio: Studio):
    styles, first, *_ = studio.children
    assert styles.children[0].value.startswith("<style>")
    assert str(studio.session.device) in first.value


def test_one_click_runs_one_stage_and_shows_it(ready: Studio):
    for count, stage in enumerate(Stage, start=1):
        ready.steps[stage].click()
        assert ready.stage is stage
        assert done(ready) == [s.value for s in list(Stage)[:count]]
        assert len(ready.view.children) == len(GROUPS[stage])


def test_every_stage_has_its_view():
    assert set(GROUPS) == set(Stage)


def test_building_all_stops_where_the_person_is_asked(studio: Studio):
    studio.all.click()
    assert studio.stage is Stage.PROFILES
    assert "batch needs a range" in studio.bar.message.value
    assert studio.bar.error.value == ""
    panel = studio.panel(ProfilePanel)
    panel.use.click()
    studio.all.click()
    assert studio.stage is Stage.SERIALIZE
    assert len(done(studio)) == 9


def test_build_runs_here_and_now_and_returns_the_plan(ready: Studio):
    state = ready.build()
    assert state.plan_bytes is not None
    assert ready.stage is Stage.SERIALIZE
    assert ready.show(Stage.TUNE)[0].view.layers.rows is not None


def test_build_raises_in_a_script_what_a_click_would_show(studio: Studio):
    with pytest.raises(ConfigError, match="has no range"):
        studio.build()


def test_a_changed_precision_leaves_later_stages_to_be_built_again(ready: Studio):
    first = ready.build().sha256
    ready.step(Stage.PRECISION)
    ready.panel(PrecisionPanel).table.edit([0], "Requested", "BF16")
    assert done(ready) == ["Parse", "Fold", "Profiles", "Precision"]
    second = ready.build().sha256
    assert second != first
    executed = ready.show(Stage.TUNE)[0].view.layers.rows["Executed"].tolist()
    assert any("BF16" in e for e in executed)


def test_undo_recalls_the_earlier_plan_at_once_and_redo_the_later(ready: Studio):
    first = ready.build().sha256
    ready.session.do(SetDefaultPrecision(DataType.BF16))
    second = ready.build().sha256
    ready.undo_button.click()
    assert len(done(ready)) == 9
    assert ready.session.state().sha256 == first
    ready.redo_button.click()
    assert ready.session.state().sha256 == second


def test_undo_is_off_where_there_is_nothing_to_undo():
    studio = Studio(MODEL)
    assert studio.undo_button.disabled
    assert studio.redo_button.disabled
    studio.session.do(*QUICK)
    studio.show(Stage.PARSE)
    assert not studio.undo_button.disabled


def test_an_error_is_shown_with_class_place_problem_and_remedy(ready: Studio):
    ready.session.undo()
    ready.session.undo()
    ready.session.undo()
    ready.session.undo()  # the calibration data too
    ready.session.do(*QUICK, *ready.session.suggested_profile())
    ready.session.do(SetDefaultPrecision(DataType.INT8))
    ready.all.click()
    error = ready.bar.error.value
    assert "CalibrationError" in error
    assert "no calibration data" in error
    assert "remedy" in error
    assert ready.stage is Stage.CALIBRATE
    assert "wb-failed" in ready.steps[Stage.CALIBRATE]._dom_classes
    ready.show(Stage.CALIBRATE)[0].use_data("random")
    assert ready.bar.error.value == ""
    assert "Calibrate" in done(ready)


def test_a_broken_model_is_explained_in_the_panel_and_raised_to_scripts(tmp_path: Path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(MODEL.read_bytes()[:500])
    studio = Studio(path)
    assert "ParserError" in studio.children[0].status.value
    with pytest.raises(ParserError):
        studio.build()


def test_a_refused_model_keeps_its_name_and_data_when_it_is_mended_and_read_again(tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL.read_bytes()[:500])
    studio = Studio(path, calibration=samples(), name="mine")
    assert "mine cannot be opened" in studio.children[0].status.value
    path.write_bytes(MODEL.read_bytes())
    studio.children[0].again.click()
    assert studio.session.name == "mine"
    data = studio.session.calibration
    assert data is not None
    assert data.samples == len(samples()["image"])


def test_another_model_does_not_get_the_name_and_data_of_a_refused_one(tmp_path: Path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(MODEL.read_bytes()[:500])
    studio = Studio(path, calibration=samples(), name="mine")
    studio.children[0].open_model(MODEL)
    assert studio.session.name == "digits_cnn"
    assert studio.session.calibration is None


def test_data_that_does_not_fit_the_mended_model_is_explained_there(tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL.read_bytes()[:500])
    studio = Studio(path, calibration={"picture": samples()["image"], "other": np.zeros(3)})
    path.write_bytes(MODEL.read_bytes())
    studio.children[0].again.click()
    assert "CalibrationError" in studio.children[0].status.value
    with pytest.raises(ParserError):
        _ = studio.session


def test_calibration_data_that_does_not_fit_is_explained():
    studio = Studio(MODEL, calibration={"picture": samples()["image"], "other": samples()["image"]})
    assert "CalibrationError" in studio.children[-1].value
    with pytest.raises(CalibrationError):
        _ = studio.session


def test_an_unknown_keyword_is_refused():
    with pytest.raises(TypeError, match="colour"):
        Studio(MODEL, colour="red")  # pyright: ignore[reportCallIssue]


def test_a_static_model_needs_no_profile():
    network = NetworkDefinition("static")
    x = network.add_input("x", "FP32", (2, 3))
    y = network.add_layer("Relu", [x], name="relu", origin=("relu",)).outputs[0]
    network.mark_output(y)
    studio = Studio(network)
    studio.step(Stage.PROFILES)
    assert "Profiles" in done(studio)


def test_cancel_stops_the_build_while_the_loop_is_free():
    async def scene() -> Studio:
        studio = Studio(MODEL, calibration=samples())
        studio.session.do(*QUICK, *studio.session.suggested_profile())
        studio.all.click()
        assert studio.runner.busy
        assert studio.all.disabled
        assert not studio.bar.cancel.disabled
        deadline = time.monotonic() + 60
        while "Tune" not in studio.bar.message.value:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        studio.step(Stage.PARSE)  # while it builds: a message, no second build
        assert "is running" in studio.bar.message.value
        studio.bar.cancel.click()
        while studio.runner.busy:
            await asyncio.sleep(0.01)
        return studio

    studio = asyncio.run(scene())
    assert "Stopped" in studio.bar.error.value
    assert "Fuse" in done(studio)
    assert "Serialize" not in done(studio)
    assert not studio.all.disabled
    assert studio.bar.cancel.disabled
    assert studio.build().plan_bytes is not None


def test_while_a_stage_runs_its_panel_offers_no_second_run(ready: Studio):
    ready.show(Stage.TUNE)
    (run,) = [w for w in within(ready.view) if getattr(w, "description", "") == "Run up to Tune"]
    assert not run.disabled
    ready.started()
    assert run.disabled


def test_a_second_request_while_the_first_is_built_is_built_and_shown_too(ready: Studio):
    async def scene() -> PrecisionPanel:
        ready.build(Stage.PRECISION)
        panel = ready.panel(PrecisionPanel)
        assert isinstance(panel, PrecisionPanel)
        panel.set_default("BF16")
        assert ready.runner.busy
        panel.set_layers([0], "INT8")
        while ready.runner.busy:
            await asyncio.sleep(0.01)
        return panel

    panel = asyncio.run(scene())
    asked = panel.table.rows["Requested"].tolist()
    assert (asked[0], set(asked[1:])) == ("INT8", {"BF16"})
    assert any(w is panel.table for w in within(panel)), "it is not replaced by a button"


def test_the_code_says_what_was_done_and_follows_it(ready: Studio):
    assert ready.code_box.layout.display == "none"
    ready.code_button.click()
    assert ready.code_box.layout.display == ""
    assert "profile.set_shape('image'" in ready.code.code
    ready.step(Stage.PRECISION)
    ready.panel(PrecisionPanel).set_default("BF16")
    assert "config.default_precision = wb.DataType.BF16" in ready.code.code
    compile(ready.code.code, "code", "exec")


def test_the_script_and_what_it_needs_are_saved(
    ready: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    ready.build()
    ready.save_script()
    names = {p.name for p in (tmp_path / "digits_cnn_script").iterdir()}
    assert names >= {"digits_cnn_build.py", "digits_cnn.timing.json", "digits_cnn.calibration.npz"}


def test_a_panel_that_is_not_shown_is_named(studio: Studio):
    with pytest.raises(SessionError, match="has no TacticPanel"):
        studio.panel(TacticPanel)


def test_a_build_shows_the_plan_that_is_exported(ready: Studio, tmp_path: Path):
    state = ready.build()
    panel = ready.panel(RunPanel)
    panel.path.value = str(tmp_path / "out.plan")
    panel.export()
    assert state.sha256 in panel.result.value
    assert (tmp_path / "out.plan").read_bytes() == state.plan_bytes


def test_a_click_on_the_stage_that_is_shown_replaces_nothing_that_is_being_clicked(ready: Studio):
    ready.build()
    panel = ready.panel(RunPanel)
    (export,) = [w for w in within(panel) if getattr(w, "description", "") == "Export plan"]
    ready.steps[Stage.SERIALIZE].click()
    assert any(w is export for w in within(panel))
    ready.session.do(SetDefaultPrecision(DataType.BF16))
    ready.steps[Stage.SERIALIZE].click()
    assert not any(w is export for w in within(panel)), "a new request is built and shown"


def test_figures_send_no_plotly_of_their_own(ready: Studio):
    figure = ready.show(Stage.PARSE)[1].figure
    state = figure.get_state()
    assert len(state["_esm"]) < 2_000
    assert len(json.dumps(state, default=str)) < 100_000
