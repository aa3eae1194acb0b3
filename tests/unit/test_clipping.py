"""The clip editor: what a threshold does, at once, and the same as a build of it would."""

from __future__ import annotations

import functools
import time

import numpy as np
import pytest

from workbench.builder import BuildState, build
from workbench.bundle import bundled
from workbench.config import BuilderConfig, Calibrator, OptimizationProfile
from workbench.datatypes import DataType
from workbench.errors import CalibrationError
from workbench.lab import ClipEditor

DIGITS = np.load(bundled("datasets", "digits.npz"))
IMAGES, LABELS = DIGITS["calibration_images"], DIGITS["calibration_labels"]


@functools.cache
def built(model: str, kind: DataType = DataType.INT8, **ranges: float) -> BuildState:
    config = BuilderConfig()
    config.builder_optimization_level, config.verify = 0, "none"
    config.default_precision, config.calibrator = kind, Calibrator.ENTROPY
    shape = (1, 8, 8)
    config.add_optimization_profile(
        OptimizationProfile().set_shape("image", (1, *shape), (64, *shape), (64, *shape))
    )
    for tensor, threshold in ranges.items():
        config.set_dynamic_range(tensor, -threshold, threshold)
    return build(bundled("datasets", f"{model}.onnx"), config, calibration={"image": IMAGES})


@functools.cache
def editor(model: str) -> ClipEditor:
    return ClipEditor(built(model), labels=LABELS)


@pytest.mark.parametrize("model", ["digits_cnn", "digits_inception", "digits_vit"])
def test_a_threshold_is_answered_in_under_300_ms(model: str):
    edit = editor(model)
    name = edit.tensors[1]
    calibrated = edit.result.ranges[name].threshold
    edit.at(name, calibrated)
    times = []
    for share in (0.3, 0.5, 0.8, 1.2, 2.0):
        begin = time.perf_counter()
        found = edit.at(name, share * calibrated)
        times.append(time.perf_counter() - begin)
        assert found.end.samples == 200
    # The quickest: this machine may be busy with other things.
    assert min(times) < 0.3, f"{[round(1e3 * t) for t in times]} ms"


@pytest.mark.parametrize("threshold", [None, 0.2])
def test_it_gives_what_the_built_int8_engine_gives(threshold):
    ranges = {"relu_1": threshold} if threshold else {}
    engine = built("digits_cnn", **ranges).engine().create_execution_context()
    logits = np.concatenate(
        [engine.run({"image": IMAGES[i : i + 50]})["logits"] for i in range(0, 200, 50)]
    )
    built_accuracy = 100 * np.mean(logits.argmax(1) == LABELS)
    found = editor("digits_cnn").end_metric(ranges)
    assert found.accuracy == pytest.approx(built_accuracy, abs=0.5)
    plain = built("digits_cnn", DataType.FLOAT).engine().create_execution_context()
    exact = np.concatenate(
        [plain.run({"image": IMAGES[i : i + 50]})["logits"] for i in range(0, 200, 50)]
    )
    sqnr = 10 * np.log10((exact**2).sum() / ((exact - logits) ** 2).sum())
    assert found.sqnr_db == pytest.approx(sqnr, abs=0.1)
    cosine = (
        (exact * logits).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(logits, axis=1)
    )
    assert found.cosine == pytest.approx(cosine.mean(), abs=1e-4)


def test_scale_clipped_share_and_sqnr_are_those_of_the_histogram():
    edit = editor("digits_cnn")
    found, range_ = edit.at("relu", 0.5), edit.result.ranges["relu"]
    assert found.scale == 0.5 / 127
    assert found.clipped_share == range_.histogram.clipped_share(0.5) > 0.1
    assert found.sqnr_db == range_.clipped_at(0.5).sqnr_db < range_.sqnr_db


def test_clipping_hard_shows_in_the_end_metric_and_the_calibrated_threshold_does_not():
    edit = editor("digits_cnn")
    fine = edit.at("relu_1", edit.result.ranges["relu_1"].threshold)
    hard = edit.at("relu_1", 0.01)
    assert fine.end.accuracy == fine.end.agreement == 100
    assert hard.end.agreement < 60
    assert hard.end.sqnr_db < fine.end.sqnr_db - 20
    assert hard.end.cosine < fine.end.cosine


def test_a_tensor_that_no_int8_layer_reads_has_no_end_metric():
    edit = ClipEditor(built("digits_cnn", DataType.BF16))
    assert edit.tensors == ()
    found = edit.at("relu", 0.5)
    assert found.end is None
    assert found.clipped_share > 0


def test_without_samples_or_ranges_it_says_what_is_missing():
    state = built("digits_cnn")
    with pytest.raises(CalibrationError, match=r"'nothing'.*not calibrated.*calibrated are: image"):
        editor("digits_cnn").at("nothing", 1.0)
    with pytest.raises(CalibrationError, match="no usable scale"):
        editor("digits_cnn").at("relu", 0.0)
    config = state.config.clone()
    once = build(state.model, config, calibration=iter([{"image": IMAGES[:64]}]))
    with pytest.raises(CalibrationError, match=r"no calibration samples are at hand.*inputs="):
        ClipEditor(once)
    given = ClipEditor(once, inputs={"image": IMAGES[:64]}, labels=LABELS[:64])
    assert given.at("relu", 1.0).end.samples == 64
    with pytest.raises(CalibrationError, match="nothing was calibrated"):
        ClipEditor(build(state.model, config_without_int8(config)))


def config_without_int8(config: BuilderConfig) -> BuilderConfig:
    plain = config.clone()
    plain.default_precision = DataType.FLOAT
    return plain
