"""A session is the replay of its actions: the same plan by every road, nothing done twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from workbench.builder import build
from workbench.bundle import bundled
from workbench.config import BuilderConfig, Calibrator, OptimizationProfile
from workbench.datatypes import DataType
from workbench.errors import BuildCancelled, CalibrationError, ConfigError, SessionError
from workbench.records import CallbackMonitor, Stage, StageRecord
from workbench.session import (
    ClearPrecisions,
    Session,
    SetCalibrator,
    SetDefaultPrecision,
    SetOption,
    SetPrecision,
    SetProfile,
)

MODEL = bundled("datasets", "digits_cnn.onnx")
PROFILE = SetProfile("image", (1, 1, 8, 8), (4, 1, 8, 8), (8, 1, 8, 8))
QUICK = (SetOption("tactic_sources", ("NUMPY",)), SetOption("builder_optimization_level", 1))


def samples(count: int = 32) -> np.ndarray:
    return np.load(bundled("datasets", "digits.npz"))["calibration_images"][:count]


def quick_session(*, calibration: bool = False) -> Session:
    session = Session(MODEL, calibration={"image": samples()} if calibration else None)
    session.do(*QUICK, PROFILE)
    return session


@pytest.fixture(scope="module")
def int8() -> Session:
    session = quick_session(calibration=True)
    session.do(SetDefaultPrecision(DataType.INT8))
    session.run()
    return session


def test_stepping_stage_by_stage_gives_the_plan_of_the_one_shot(int8: Session):
    config = BuilderConfig()
    config.set_tactic_sources(("NUMPY",))
    config.builder_optimization_level = 1
    profile = OptimizationProfile().set_shape("image", PROFILE.min, PROFILE.opt, PROFILE.max)
    config.add_optimization_profile(profile)
    config.default_precision = DataType.INT8
    config.timing_cache = int8.cache
    one_shot = build(MODEL, config, device=int8.device, calibration={"image": samples()})
    stepper = Session(MODEL, calibration={"image": samples()}, timing_cache=int8.cache)
    stepper.do(*QUICK, PROFILE, SetDefaultPrecision(DataType.INT8))
    for stage in Stage:
        state = stepper.run(stage)
    assert state.sha256 == one_shot.sha256 == int8.run().sha256


def test_the_printed_script_opens_the_gpu_that_was_used(int8: Session, monkeypatch):
    for index, name in ((0, "gpu"), (1, "gpu:1")):
        monkeypatch.setattr(int8, "device", SimpleNamespace(kind="gpu", index=index))
        assert f"device = wb.open_device('{name}')" in int8.code()


def test_the_printed_script_gives_the_same_plan_in_another_process(int8: Session, tmp_path: Path):
    script = int8.save_script(tmp_path)
    result = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == int8.run().sha256


def test_undo_and_redo_bring_plans_back_without_running_a_stage():
    session = quick_session()
    first = session.run().sha256
    session.do(SetPrecision("node_Conv_83", DataType.BF16), SetDefaultPrecision(DataType.FLOAT))
    assert Stage.PRECISION not in session.state().done
    session.undo()
    session.undo()
    assert session.state().sha256 == first
    assert session.undone[0] == SetPrecision("node_Conv_83", DataType.BF16)
    session.redo()
    assert session.actions[-1] == SetPrecision("node_Conv_83", DataType.BF16)


def test_a_new_action_forgets_what_was_undone():
    session = quick_session()
    session.undo()
    session.do(SetDefaultPrecision(DataType.BF16))
    with pytest.raises(SessionError, match="nothing to redo"):
        session.redo()


def test_a_file_that_was_replaced_is_not_inspected_as_the_one_that_was_opened(tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(Path(MODEL).read_bytes())
    session = Session(path)
    path.write_bytes(Path(bundled("datasets", "digits_vit.onnx")).read_bytes())
    with pytest.raises(SessionError, match=r"model\.onnx: the file has changed .*; open it again"):
        session.inspect()
    path.write_bytes(Path(MODEL).read_bytes())
    assert session.inspect().supported


def test_undo_of_nothing_is_an_error():
    with pytest.raises(SessionError, match="nothing to undo"):
        Session(MODEL).undo()


def test_a_refused_action_changes_nothing():
    session = quick_session()
    before = session.actions
    with pytest.raises(ConfigError, match="not in order"):
        session.do(SetProfile("image", (8, 1, 8, 8), (4, 1, 8, 8), (8, 1, 8, 8)))
    with pytest.raises(SessionError, match="no setting"):
        session.do(SetOption("speed", 11))
    assert session.actions == before


def test_a_changed_request_recalibrates_nothing_and_times_only_new_layers():
    session = quick_session(calibration=True)
    session.do(SetDefaultPrecision(DataType.INT8))
    first = session.run()
    timed = len(session.cache.entries)
    session.do(SetPrecision("node_linear", DataType.FLOAT))
    second = session.run()
    assert second.calibration is first.calibration
    assert second.tuned is not None
    assert len(session.cache.entries) - timed == second.tuned.timed
    assert second.tuned.cached > second.tuned.timed


def test_another_calibrator_reads_the_same_histograms():
    session = quick_session(calibration=True)
    session.do(SetDefaultPrecision(DataType.INT8))
    entropy = session.run(Stage.CALIBRATE).calibration
    session.do(SetCalibrator(Calibrator.MINMAX))
    minmax = session.run(Stage.CALIBRATE).calibration
    assert entropy is not None and minmax is not None
    for name, found in minmax.ranges.items():
        assert found.histogram is entropy.ranges[name].histogram
        assert found.threshold == pytest.approx(found.histogram.amax)


def test_ranges_belong_to_the_actions_that_a_run_began_with():
    session = quick_session(calibration=True)
    session.do(SetDefaultPrecision(DataType.INT8))
    smooth = SetOption("smooth_alpha", 0.5)

    def click(record: StageRecord) -> None:  # while the build runs in another thread
        if record.stage is Stage.FOLD:
            session.do(smooth)

    session.run(Stage.CALIBRATE, tell=click)
    found = session.run(Stage.CALIBRATE).calibration
    fresh = quick_session(calibration=True)
    fresh.do(SetDefaultPrecision(DataType.INT8), smooth)
    wanted = fresh.run(Stage.CALIBRATE).calibration
    assert found is not None and wanted is not None
    assert {n: r.threshold for n, r in found.ranges.items()} == {
        n: r.threshold for n, r in wanted.ranges.items()
    }


def test_stages_after_a_change_are_not_built_and_those_before_are():
    session = quick_session()
    session.run()
    session.do(SetDefaultPrecision(DataType.BF16))
    assert session.state().done == (Stage.PARSE, Stage.FOLD, Stage.PROFILES)


def test_a_second_run_of_the_same_actions_returns_what_is_there():
    session = quick_session()
    assert session.run().tuned is session.run().tuned


def test_clearing_requests_keeps_the_default():
    session = quick_session()
    session.do(SetPrecision("node_*", DataType.INT8), SetDefaultPrecision(DataType.BF16))
    session.do(ClearPrecisions())
    assert session.config.precision_of("node_Conv_81") is DataType.BF16


def test_a_cancelled_run_continues_where_it_stopped():
    session = quick_session()
    seen: list[str] = []
    monitor = CallbackMonitor(lambda phase, done, total: seen.append(phase), lambda: "Tune" in seen)
    with pytest.raises(BuildCancelled):
        session.run(monitor=monitor)
    assert session.state().done[-1] is Stage.FUSE
    kept = len(session.cache.entries)
    state = session.run()
    assert kept > 0
    assert state.tuned is not None and state.tuned.cached >= kept


def test_int8_without_data_is_refused_and_made_up_data_is_labelled_so():
    session = quick_session()
    session.do(SetDefaultPrecision(DataType.INT8))
    with pytest.raises(CalibrationError, match="no calibration data"):
        session.run()
    session.use_calibration("random")
    assert session.run(Stage.CALIBRATE).calibration.label == "random"


def test_a_profile_is_suggested_but_used_only_when_taken():
    session = Session(MODEL)
    assert session.unbound_sizes == ("batch",)
    suggested = session.suggested_profile()
    assert suggested == (SetProfile("image", (1, 1, 8, 8), (8, 1, 8, 8), (32, 1, 8, 8)),)
    with pytest.raises(ConfigError, match="has no range"):
        session.run(Stage.PROFILES)
    session.do(*suggested)
    assert session.unbound_sizes == ()
    assert Stage.PROFILES in session.run(Stage.PROFILES).done


def test_example_inputs_are_the_calibration_data_where_it_fits_and_random_otherwise():
    with_data = quick_session(calibration=True)
    inputs, label = with_data.example_inputs()
    np.testing.assert_array_equal(inputs["image"], samples(4))
    assert "calibration data" in label
    inputs, label = quick_session().example_inputs(2)
    assert inputs["image"].shape == (8, 1, 8, 8)
    assert label == "random data"


def test_the_exported_plan_has_the_digest_that_is_shown(tmp_path: Path):
    session = quick_session()
    path = tmp_path / "digits.plan"
    assert session.export_plan(path) == session.run().sha256
    assert path.read_bytes() == session.run().plan_bytes
