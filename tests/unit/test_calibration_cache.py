"""Calibration caches: reused where they fit, refused with a difference where they do not."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from engines import config, small_network

import workbench as wb
from workbench.builder import BuildState, keep_ranges
from workbench.calibration import CalibrationCache, TensorRTCache
from workbench.calibration.collect import data_digest
from workbench.config import BuilderConfig, Calibrator
from workbench.datatypes import DataType
from workbench.errors import CalibrationError, FileError
from workbench.precision import quantizable_tensors
from workbench.records import Stage

IMAGES = np.random.default_rng(1).standard_normal((16, 3, 8, 8)).astype(np.float32)
DATA = {"image": IMAGES}


def int8(**settings) -> BuilderConfig:
    made = config()
    made.default_precision = DataType.INT8
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def build(cache=None, *, network=None, data=DATA, **settings) -> BuildState:
    return wb.build(
        network or small_network(), int8(**settings), calibration=data, calibration_cache=cache
    )


def other_network(name: str, factor: float):
    """The small network with one weight multiplied."""
    net = small_network()
    tensor = net.tensor(name)
    twin = net.constant(tensor.weight.array * np.float32(factor), f"{name}.new")
    net.replace_uses(tensor, twin)
    net.remove_if_unread(tensor)
    return net


# -- our own format -------------------------------------------------------------------------
def test_a_cache_is_written_once_and_then_stands_in_for_the_data(tmp_path):
    path = tmp_path / "ranges.json"
    first = build(path)
    written = path.read_bytes()
    again = build(path)
    without_data = build(path, data=None)
    assert path.read_bytes() == written
    assert first.sha256 == again.sha256 == without_data.sha256
    assert without_data.calibration.samples == 16
    found, kept = first.calibration.ranges, without_data.calibration.ranges
    for name, range_ in found.items():
        np.testing.assert_array_equal(kept[name].histogram.counts, range_.histogram.counts)
        np.testing.assert_array_equal(kept[name].channels.amax, range_.channels.amax)
        assert kept[name].threshold == range_.threshold


def test_another_calibrator_reads_the_cached_histograms(tmp_path):
    path = tmp_path / "ranges.json"
    entropy = build(path)
    minmax = build(path, data=None, calibrator=Calibrator.MINMAX)
    for name, range_ in minmax.calibration.ranges.items():
        assert range_.threshold == entropy.calibration.ranges[name].histogram.amax
    by_hand = build(path, data=None, dynamic_ranges={"image": 1.5})
    assert by_hand.calibration.ranges["image"].threshold == 1.5
    assert build(path, data=None).calibration.ranges["image"].threshold != 1.5


def test_a_cache_of_other_weights_names_what_they_change_and_nothing_else(tmp_path):
    path = tmp_path / "ranges.json"
    build(path)
    with pytest.raises(
        CalibrationError, match=r"ranges.json: it is stale: 2 changed: inner_out, flat_out; "
    ):
        build(path, network=other_network("inner.w", 2.0))


def test_a_cache_of_another_graph_lists_new_and_missing_tensors(tmp_path):
    path = tmp_path / "ranges.json"
    build(path)
    net = small_network()
    net.rename_tensor(net.layer("stem_relu").outputs[0], "trunk")
    with pytest.raises(CalibrationError, match=r"1 new: trunk; 1 missing: stem_relu_out"):
        build(path, network=net)


def test_a_cache_of_other_data_is_refused_with_both_digests(tmp_path):
    path = tmp_path / "ranges.json"
    build(path)
    kept, given = data_digest([DATA])[:16], data_digest([{"image": IMAGES[:8]}])[:16]
    with pytest.raises(CalibrationError, match=f"SHA-256 {kept}... kept, {given}... given"):
        build(path, data={"image": IMAGES[:8]})
    # How the same samples are batched makes no difference.
    build(path, data=[{"image": IMAGES[:5]}, {"image": IMAGES[5:]}])


def test_a_cache_remembers_the_network_before_and_after_smooth_scaling(tmp_path):
    path = tmp_path / "ranges.json"
    first = build(path, smooth_alpha=0.5)
    again = build(path, data=None, smooth_alpha=0.5)
    assert first.sha256 == again.sha256
    with pytest.raises(CalibrationError, match="it is stale"):
        build(path, data=None)
    plain = tmp_path / "plain.json"
    build(plain)
    with pytest.raises(CalibrationError, match="without smooth scaling"):
        build(plain, data=None, smooth_alpha=0.5)


def test_ranges_can_be_kept_after_the_fact(tmp_path):
    state = build()
    keep_ranges(state, tmp_path / "ranges.json")
    assert build(tmp_path / "ranges.json", data=None).sha256 == state.sha256


def test_a_damaged_cache_is_refused_and_the_file_stays(tmp_path):
    path = tmp_path / "ranges.json"
    build(path)
    whole = path.read_text()
    broken = json.loads(whole)
    del broken["tensors"]["image"]
    for text in (whole[: len(whole) // 2], json.dumps(broken), "{}", "[]"):
        path.write_text(text)
        with pytest.raises(
            CalibrationError, match=r"ranges.json.*no calibration cache, or damaged"
        ):
            build(path)
        assert path.read_text() == text


def test_a_cache_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(FileError, match=r"absent.*make the folder"):
        build(tmp_path / "absent" / "ranges.json")
    assert not list(tmp_path.iterdir())


# -- TensorRT's text ------------------------------------------------------------------------
def test_the_text_cache_is_header_then_name_and_big_endian_float():
    state = build()
    lines = TensorRTCache.of(state.calibration, version=8203).to_text().splitlines()
    assert lines[0] == "TRT-8203-EntropyCalibration2"
    for line, (name, found) in zip(lines[1:], state.calibration.ranges.items(), strict=True):
        assert line == f"{name}: {np.array(found.scale, '>f4').tobytes().hex()}"
    minmax = build(calibrator=Calibrator.MINMAX)
    assert "-MinMaxCalibration\n" in TensorRTCache.of(minmax.calibration).to_text()


def test_a_cache_that_tensorrt_wrote_is_read():
    """The first lines of the cache printed in NVIDIA/TensorRT#2036."""
    text = "TRT-8203-EntropyCalibration2\n167: 3c009976\n168: 3e5d05cc\nscope::x:0: 3c010204\n"
    cache = TensorRTCache.from_text(text)
    assert cache.version == "8203"
    assert cache.scales["167"] == pytest.approx(0.00784909, rel=1e-5)
    assert cache.scales["scope::x:0"] == pytest.approx(1 / 127, rel=1e-6)
    assert cache.to_text() == text


def test_a_text_cache_goes_in_and_gives_the_same_plan_as_the_data(tmp_path):
    first = build()
    path = tmp_path / "calibration.cache"
    path.write_text(TensorRTCache.of(first.calibration).to_text())
    again = build(path, data=None)
    assert again.sha256 == first.sha256
    assert str(path) in again.log[Stage.CALIBRATE].summary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line is ''"),
        ("TRT-8203-Guess\nx: 3c010204\n", "first line is 'TRT-8203-Guess'"),
        ("TRT-8203-EntropyCalibration2\nx = 3c010204\n", ":2: 'x = 3c010204' is not"),
        ("TRT-8203-EntropyCalibration2\n\nx: 7f800000\n", ":3: tensor 'x' has the scale inf"),
        ("TRT-8203-EntropyCalibration2\nx: 00000000\n", "tensor 'x' has the scale 0.0"),
        ("TRT-8203-EntropyCalibration2\nx: 7fc00000\n", "tensor 'x' has the scale nan"),
    ],
)
def test_a_bad_text_cache_names_the_line_and_no_bad_scale_passes(text, message):
    with pytest.raises(CalibrationError, match=message):
        TensorRTCache.from_text(text)


def test_a_text_cache_of_another_network_is_refused(tmp_path):
    path = tmp_path / "calibration.cache"
    path.write_text("TRT-8203-EntropyCalibration2\n167: 3c009976\n")
    with pytest.raises(CalibrationError, match=r"another network's: .* new: .*1 missing: 167"):
        build(path, data=None)


# -- calibrator objects -----------------------------------------------------------------------
class FromArray(wb.IInt8EntropyCalibrator2):
    """As TensorRT's samples write it, but returning arrays instead of addresses."""

    def __init__(self, images=IMAGES, size=4):
        super().__init__()
        self.images, self.size, self.at, self.cache = images, size, 0, None

    def get_batch_size(self):
        return self.size

    def get_batch(self, names):
        assert list(names) == ["image"]
        if self.at >= len(self.images):
            return None
        self.at += self.size
        return [self.images[self.at - self.size : self.at]]

    def read_calibration_cache(self):
        return self.cache

    def write_calibration_cache(self, cache):
        self.cache = cache


def test_a_calibrator_object_gives_its_batches_and_keeps_the_cache():
    calibrator = FromArray()
    state = build(data=calibrator)
    assert state.calibration.samples == 16
    assert state.calibration.label == "FromArray"
    text = calibrator.cache.decode()
    scales = {n: r.scale for n, r in state.calibration.ranges.items()}
    assert text.startswith("TRT-")
    for line in text.splitlines()[1:]:
        name, digits = line.rsplit(": ", 1)
        assert struct.unpack(">f", bytes.fromhex(digits))[0] == pytest.approx(
            scales[name], rel=1e-6
        )
    # The second build reads the cache and asks for no batch.
    assert build(data=calibrator).sha256 == state.sha256
    assert calibrator.at == 16


def test_the_config_takes_it_under_tensorrts_name_and_its_algorithm_decides():
    class Largest(FromArray):
        ALGORITHM = wb.CalibrationAlgoType.MINMAX_CALIBRATION

    made = int8(int8_calibrator=Largest())
    builder = wb.Builder()
    builder.build_serialized_network(small_network(), made)
    ranges = builder.last_build.calibration.ranges
    assert ranges["image"].threshold == np.abs(IMAGES).max()


def test_an_object_of_another_library_needs_no_base_class():
    class Foreign:
        def __init__(self):
            self.left = [IMAGES]

        def get_batch_size(self):
            return 16

        def get_batch(self, names):
            return [self.left.pop()] if self.left else None

        def read_calibration_cache(self):
            return None

        def write_calibration_cache(self, cache):
            self.cache = cache

    foreign = Foreign()
    assert build(data=foreign).calibration.calibrator is Calibrator.ENTROPY
    assert foreign.cache.startswith(b"TRT-")


def test_every_base_class_says_its_algorithm():
    class Legacy(wb.IInt8LegacyCalibrator, FromArray):
        def get_quantile(self):
            return 0.99

    result = build(data=Legacy()).calibration
    assert (result.calibrator, result.percentile) == (Calibrator.PERCENTILE, 99.0)
    kinds = {
        wb.IInt8EntropyCalibrator: "ENTROPY_CALIBRATION",
        wb.IInt8EntropyCalibrator2: "ENTROPY_CALIBRATION_2",
        wb.IInt8MinMaxCalibrator: "MINMAX_CALIBRATION",
        wb.IInt8LegacyCalibrator: "LEGACY_CALIBRATION",
    }
    assert {k().get_algorithm().name for k in kinds} == set(kinds.values())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[:0], "no calibration batch"),
        (np.full_like(IMAGES, np.nan), "'image', calibration batch 0.*NaN"),
        (IMAGES[:, :2], r"calibration batch 0.*\[4, 2, 8, 8\].*batch, 3, 8, 8"),
        (IMAGES.astype(np.float64), r"calibration batch 0.*float64"),
    ],
)
def test_a_calibrator_with_bad_data_is_an_error_naming_input_and_batch(images, message):
    with pytest.raises(CalibrationError, match=message):
        build(data=FromArray(images))


def test_addresses_and_wrong_counts_are_refused_and_failures_name_the_batch():
    class Pointers(FromArray):
        def get_batch(self, names):
            return [1234]

    class Two(FromArray):
        def get_batch(self, names):
            return [IMAGES, IMAGES]

    class Fails(FromArray):
        def get_batch(self, names):
            raise OSError("no disk")

    for kind, message in (
        (Pointers, "Pointers, input 'image', calibration batch 0.*an address"),
        (Two, "2 arrays for 1 inputs"),
        (Fails, "calibration batch 0.*OSError: no disk"),
    ):
        with pytest.raises(CalibrationError, match=message):
            build(data=kind())


# -- one pass -------------------------------------------------------------------------------
def test_an_iterator_is_read_once_and_a_second_need_for_it_is_refused():
    state = build(data=({"image": IMAGES[i : i + 4]} for i in range(0, 16, 4)))
    kept = build(data=[{"image": IMAGES[i : i + 4]} for i in range(0, 16, 4)])
    assert state.sha256 == kept.sha256
    with pytest.raises(CalibrationError, match="read once and are gone"):
        build(data=iter([DATA]), smooth_alpha=0.5)


def test_batches_may_be_bare_arrays_where_there_is_one_input_but_not_tuples():
    assert build(data=[IMAGES[:8], IMAGES[8:]]).calibration.samples == 16
    with pytest.raises(CalibrationError, match=r"batch 0: it is a tuple, not a mapping.*image"):
        build(data=[(IMAGES, IMAGES)])


def test_a_batch_of_the_wrong_shape_is_named_by_its_place_in_the_stream():
    bad = [DATA, {"image": IMAGES[:, :2]}]
    for data in (bad, iter(bad)):
        with pytest.raises(CalibrationError, match=r"calibration batch 1.*\[16, 2, 8, 8\]"):
            build(data=data)


def test_the_cache_of_a_network_made_by_hand_is_that_of_the_folded_one(tmp_path):
    path = tmp_path / "ranges.json"
    state = build(path)
    network = state.networks[Stage.FOLD]
    cache = CalibrationCache.load(path)
    assert not cache.difference(network, quantizable_tensors(network), data_digest([DATA]))
