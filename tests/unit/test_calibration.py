from __future__ import annotations

import numpy as np
import pytest
from engines import small_network
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workbench.calibration import Histogram, calibrate, load_data, scale_threshold
from workbench.calibration.calibrators import LEVELS, entropy_threshold
from workbench.config import Calibrator
from workbench.errors import CalibrationError
from workbench.records import ProgressMonitor

FLOATS = st.floats(-1e4, 1e4, width=32)


@given(
    st.lists(hnp.arrays(np.float32, st.integers(1, 40), elements=FLOATS), min_size=1, max_size=6)
)
@settings(max_examples=100, deadline=None)
def test_a_streaming_histogram_counts_every_value_within_its_range(batches):
    histogram = Histogram()
    for b in batches:
        histogram.add(b)
    values = np.concatenate(batches)
    assert histogram.counts.sum() == histogram.total == len(values)
    assert histogram.amax == np.abs(values).max()
    assert histogram.limit >= histogram.amax
    for threshold in (0.25 * histogram.limit, 0.5 * histogram.limit):
        width = histogram.limit / len(histogram.counts)
        low = np.mean(np.abs(values) > threshold + width) - 1e-9
        high = np.mean(np.abs(values) > threshold - width) + 1e-9
        assert low <= histogram.clipped_share(threshold) <= high


def histogram_of(values) -> Histogram:
    histogram = Histogram()
    histogram.add(np.asarray(values, np.float32))
    return histogram


def entropy_by_loops(histogram: Histogram) -> float:
    """The description, written out element by element."""
    counts = histogram.counts.astype(float)
    counts[0] = counts[1]
    total, last = float(counts.sum()), max(LEVELS, int(np.flatnonzero(counts)[-1]) + 1)
    best = None
    for size in range(LEVELS, last + 1):
        kept = [float(c) for c in counts[:size]]
        p = list(kept)
        p[-1] += total - sum(kept)
        q = [0.0] * size
        for level in range(LEVELS):
            bins = [i for i in range(size) if i * LEVELS // size == level]
            filled = [i for i in bins if kept[i] > 0]
            for i in filled:
                q[i] = sum(kept[j] for j in bins) / len(filled)
        divergence = (sum(q) - sum(p)) / total
        for a, b in zip(p, q, strict=True):
            if a > 0:
                divergence += a / total * np.log(a / total / (b / total or 1e-9))
        if best is None or divergence < best[0]:
            best = (divergence, size)
    assert best is not None
    return min((best[1] + 0.5) * histogram.limit / len(histogram.counts), histogram.amax)


def test_entropy_agrees_with_the_description_written_out():
    small = Histogram()
    values = np.abs(np.random.default_rng(0).standard_normal(3000)) * 0.05
    small.counts = np.histogram(np.append(values, [0.15, 0.15]), 2048, (0, 1.0))[0]
    small.limit, small.amax, small.total = 1.0, 0.15, 3002
    assert entropy_threshold(small) == pytest.approx(entropy_by_loops(small), rel=1e-6)


def test_entropy_clips_a_lonely_outlier_and_minmax_keeps_it():
    values = np.append(np.random.default_rng(0).standard_normal(50_000), [100.0])
    histogram = histogram_of(values)
    assert scale_threshold(histogram, Calibrator.MINMAX) == 100.0
    assert scale_threshold(histogram, Calibrator.ENTROPY) < 20.0


def test_entropy_keeps_discrete_data_and_ignores_exact_zeros():
    levels = np.repeat(np.arange(17) / 16, 500)
    threshold = scale_threshold(histogram_of(levels), Calibrator.ENTROPY)
    assert threshold == 1.0
    values = np.abs(np.random.default_rng(0).standard_normal(20_000))
    with_zeros = histogram_of(np.append(values, np.zeros(200_000)))
    without = scale_threshold(histogram_of(values), Calibrator.ENTROPY)
    assert scale_threshold(with_zeros, Calibrator.ENTROPY) == pytest.approx(without, rel=0.05)


def run_identity(batch, taps):
    return {t: batch["x"] for t in taps}


def ranges(batches, calibrator=Calibrator.ENTROPY):
    monitor = ProgressMonitor()
    return calibrate(["x"], batches, run_identity, calibrator=calibrator, monitor=monitor)


def test_a_tensor_that_is_always_zero_gets_a_scale_that_is_not():
    found = ranges([{"x": np.zeros((4, 4), np.float32)}]).ranges["x"]
    assert found.constant
    assert found.scale == 1.0


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no calibration batch"),
        ([{}], "calibration batch 0.*no inputs"),
        ([{"x": np.zeros((0, 4), np.float32)}], "'x', calibration batch 0.*empty"),
        ([{"x": np.ones(3, np.float32)}, {"x": np.full(3, np.nan, np.float32)}], "batch 1.*NaN"),
    ],
)
def test_bad_data_is_an_error_that_names_tensor_and_batch(batches, message):
    with pytest.raises(CalibrationError, match=message):
        ranges(batches)


def test_an_inner_overflow_is_named_with_its_batch():
    def overflow(batch, taps):
        return {t: np.array([np.inf], np.float32) for t in taps}

    with pytest.raises(CalibrationError, match="tensor 'x', calibration batch 0"):
        calibrate(
            ["x"],
            [{"x": np.ones(2, np.float32)}],
            overflow,
            calibrator=Calibrator.MINMAX,
            monitor=ProgressMonitor(),
        )


@given(hnp.arrays(np.float32, st.integers(1, 200), elements=FLOATS))
@settings(max_examples=60, deadline=None)
def test_no_scale_is_ever_zero_nan_or_infinite(values):
    for calibrator in Calibrator:
        scale = ranges([{"x": values}], calibrator).ranges["x"].scale
        assert np.isfinite(scale)
        assert np.float32(scale) > 0


def test_data_comes_from_npz_arrays_batches_or_is_made_up_and_says_so(tmp_path):
    network = small_network()
    images = np.random.default_rng(0).random((100, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", image=images)
    from_file = load_data(tmp_path / "mine.npz", network)
    from_array = load_data({"image": images}, network)
    from_batches = load_data(({"image": images[i : i + 64]} for i in (0, 64)), network)
    assert from_file.digest == from_array.digest == from_batches.digest
    assert from_file.samples == 100
    made_up = load_data("random", network)
    assert made_up.label == "random"
    assert made_up.digest == load_data("random", network).digest


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"picture": np.zeros((4, 3, 9, 9), np.float32), "y": np.zeros(2)}, "input 'image'"),
        ({"image": np.zeros((4, 3, 8, 8))}, r"float64.*FLOAT\[batch, 3, 8, 8\]"),
        ({"image": np.zeros((4, 1, 8, 8), np.float32)}, r"4, 1, 8, 8.*batch, 3, 8, 8"),
    ],
)
def test_data_that_does_not_fit_the_network_is_refused(arrays, message):
    with pytest.raises(CalibrationError, match=message):
        load_data(arrays, small_network())
