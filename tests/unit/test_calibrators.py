"""Each calibrator against its definition, written out in NumPy on the values themselves."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workbench.calibration import (
    CalibrationResult,
    ChannelExtremes,
    Histogram,
    calibrate,
    mean_squared_errors,
    sqnr_db,
    weight_scales,
)
from workbench.config import BuilderConfig, Calibrator
from workbench.errors import CalibrationError, ConfigError
from workbench.records import ProgressMonitor

RNG = np.random.default_rng(3)
SAMPLES = {
    "normal": RNG.standard_normal(40_000) * 0.7,
    "laplace": RNG.laplace(size=40_000),
    "after a ReLU": np.maximum(RNG.standard_normal(40_000), 0),
    "an outlier": np.append(RNG.standard_normal(40_000), [60.0]),
    "sixteenths": RNG.integers(0, 17, 20_000) / 16,
    "small": RNG.standard_normal(500) * 1e-6,
}


def counted(values):
    """Histogram of |x| in 2,048 equal bins up to the largest: (counts, edges)."""
    magnitudes = np.abs(values.astype(np.float32)).astype(np.float64)
    return np.histogram(magnitudes, bins=2048, range=(0.0, magnitudes.max()))


def entropy_threshold(values) -> float:
    counts, edges = counted(values)
    counts = counts.astype(float)
    counts[0] = counts[1]
    total, last = counts.sum(), max(128, int(np.flatnonzero(counts)[-1]) + 1)
    divergences = []
    for size in range(128, last + 1):
        kept = counts[:size]
        p = kept.copy()
        p[-1] += total - kept.sum()
        level = np.arange(size) * 128 // size
        mass = np.bincount(level, kept, 128)
        filled = np.bincount(level, kept > 0, 128)
        q = np.where(kept > 0, mass[level] / np.maximum(filled[level], 1), 0.0)
        here = p > 0
        ratio = p[here] / np.where(q[here] > 0, q[here], 1e-9 * total)
        divergences.append((p[here] * np.log(ratio)).sum() + q.sum() - p.sum())
    best = 128 + int(np.argmin(divergences))
    return min((best + 0.5) * edges[1], edges[-1])


def mse_threshold(values) -> float:
    counts, edges = counted(values)
    centres = (edges[:-1] + edges[1:]) / 2
    errors = []
    for end in edges[128:]:
        scale = end / 127
        back = np.clip(np.rint(centres / scale), -127, 127) * scale
        errors.append((counts * (centres - back) ** 2).sum())
    return edges[128 + int(np.argmin(errors))]


def percentile_threshold(values, percentile=99.99) -> float:
    counts, edges = counted(values)
    wanted, below = percentile / 100 * counts.sum(), 0.0
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        if count and below + count >= wanted:
            return max(low + (high - low) * (wanted - below) / count, edges[1])
        below += count
    return edges[-1]


BY_HAND = {
    Calibrator.MINMAX: lambda v: np.abs(v.astype(np.float32)).max(),
    Calibrator.ENTROPY: entropy_threshold,
    Calibrator.PERCENTILE: percentile_threshold,
    Calibrator.MSE: mse_threshold,
}


def ranges(batches, calibrator=Calibrator.MINMAX, **more) -> CalibrationResult:
    return calibrate(
        ["x"],
        batches,
        lambda batch, taps: {t: batch["x"] for t in taps},
        calibrator=calibrator,
        monitor=ProgressMonitor(),
        **more,
    )


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("calibrator", Calibrator)
def test_a_scale_equals_the_definition_written_out_in_numpy(calibrator: Calibrator, kind: str):
    values = SAMPLES[kind].astype(np.float32)
    found = ranges([{"x": values}], calibrator).ranges["x"]
    assert found.scale == pytest.approx(BY_HAND[calibrator](values) / 127, rel=1e-6)


def test_every_calibrator_has_a_definition_in_this_test():
    assert set(BY_HAND) == set(Calibrator)


def test_the_percentile_can_be_chosen_and_100_is_the_maximum():
    values = SAMPLES["laplace"].astype(np.float32)
    for percentile in (99.0, 99.9, 100.0):
        found = ranges([{"x": values}], Calibrator.PERCENTILE, percentile=percentile).ranges["x"]
        assert found.threshold == pytest.approx(percentile_threshold(values, percentile), rel=1e-6)
        exact = np.percentile(np.abs(values), percentile, method="inverted_cdf")
        assert found.threshold == pytest.approx(exact, abs=float(np.abs(values).max()) / 2000)


@pytest.mark.parametrize("calibrator", Calibrator)
def test_one_pass_in_batches_gives_the_scale_of_all_values_at_once(calibrator: Calibrator):
    """With the largest value first, the histogram never grows, and nothing depends on batches."""
    values = SAMPLES["laplace"].astype(np.float32)
    values = values[np.argsort(-np.abs(values), kind="stable")]
    whole = ranges([{"x": values}], calibrator).ranges["x"].scale
    parts = ranges(({"x": p} for p in np.array_split(values, 9)), calibrator).ranges["x"].scale
    assert parts == whole


def test_a_range_that_grows_keeps_every_count_and_moves_the_threshold_little():
    values = np.sort(np.abs(SAMPLES["normal"])).astype(np.float32)
    for calibrator in Calibrator:
        whole = ranges([{"x": values}], calibrator).ranges["x"]
        grown = ranges([{"x": p} for p in np.array_split(values, 20)], calibrator).ranges["x"]
        assert grown.histogram.counts.sum() == len(values)
        assert grown.threshold == pytest.approx(whole.threshold, rel=0.1)


# -- error ----------------------------------------------------------------------------------
@given(
    hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-100, 100, width=32)),
    st.floats(0.01, 2.0),
)
@settings(max_examples=60, deadline=None)
def test_the_error_at_a_threshold_is_that_of_quantizing_the_bins_centres(values, share):
    histogram = Histogram()
    histogram.add(values)
    if histogram.amax == 0:
        return
    scale = share * histogram.amax / 127
    centres = (histogram.edges[:-1] + histogram.edges[1:]) / 2
    back = np.minimum(np.rint(centres / scale), 127) * scale
    by_hand = (histogram.counts * (centres - back) ** 2).sum() / len(values)
    found = mean_squared_errors(histogram, [share * histogram.amax])[0]
    assert found == pytest.approx(by_hand, rel=1e-6, abs=1e-12 * histogram.amax**2)


def test_sqnr_is_close_to_that_of_the_values_and_mse_maximises_it():
    values = SAMPLES["laplace"].astype(np.float32)
    found = ranges([{"x": values}], Calibrator.MSE).ranges["x"]
    back = np.clip(np.rint(values / found.scale), -127, 127) * found.scale
    measured = 10 * np.log10((values**2).mean() / ((values - back) ** 2).mean())
    assert found.sqnr_db == pytest.approx(measured, abs=0.2)
    for other in (0.5, 0.8, 1.25, 2.0):
        assert sqnr_db(found.histogram, other * found.threshold) < found.sqnr_db


# -- channels -------------------------------------------------------------------------------
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=5),
        elements=st.floats(-1e3, 1e3, width=32),
    ),
    st.integers(0, 1),
)
@settings(max_examples=50, deadline=None)
def test_extremes_per_channel_are_those_of_all_batches_together(values, axis):
    other = 1 - axis
    measured = ChannelExtremes(axis)
    for part in np.array_split(values, 2, axis=other):
        measured.add(part)
    axes = tuple(a for a in range(values.ndim) if a != axis)
    np.testing.assert_array_equal(measured.low, values.min(axis=axes))
    np.testing.assert_array_equal(measured.high, values.max(axis=axes))
    np.testing.assert_array_equal(measured.amax, np.abs(values).max(axis=axes))


def test_a_channel_count_that_changes_is_an_error_naming_tensor_and_batch():
    batches = [{"x": np.ones((2, 3), np.float32)}, {"x": np.ones((2, 4), np.float32)}]
    with pytest.raises(CalibrationError, match=r"'x', calibration batch 1.*4 channels, 3 before"):
        ranges(batches, channel_axes={"x": 1})


def test_weight_scales_per_channel_and_whole_equal_their_definition():
    weight = RNG.standard_normal((6, 5, 3, 3)).astype(np.float32)
    largest = np.abs(weight).reshape(6, -1).max(axis=1)
    np.testing.assert_allclose(weight_scales(weight, axis=0), largest / 127, rtol=1e-6)
    assert weight_scales(weight, axis=None) == pytest.approx(largest.max() / 127, rel=1e-6)
    transposed = weight_scales(np.moveaxis(weight, 0, -1), axis=3)
    np.testing.assert_array_equal(transposed, weight_scales(weight, axis=0))
    by_mse = weight_scales(weight, axis=0, calibrator=Calibrator.MSE)
    wanted = [mse_threshold(weight[c].reshape(-1)) / 127 for c in range(6)]
    np.testing.assert_allclose(by_mse, wanted, rtol=1e-6)
    with pytest.raises(CalibrationError, match=r"weight 'w'.*NaN"):
        weight_scales(np.array([np.nan]), axis=None, name="w")


# -- data -----------------------------------------------------------------------------------
def test_batches_are_read_once_and_not_kept():
    alive: list[weakref.ref] = []
    largest = 0

    def batches():
        nonlocal largest
        for _ in range(12):
            batch = np.ones((64, 16), np.float32)
            alive.append(weakref.ref(batch))
            yield {"x": batch}
            del batch
            gc.collect()
            largest = max(largest, sum(r() is not None for r in alive))

    assert ranges(batches()).samples == 12 * 64
    assert largest <= 2


def test_data_that_fails_is_an_error_that_names_the_batch_it_was_to_be():
    def batches():
        yield {"x": np.ones(3, np.float32)}
        raise ValueError("the disk is gone")

    with pytest.raises(
        CalibrationError, match=r"calibration batch 1.*ValueError: the disk is gone"
    ):
        ranges(batches())


def test_a_constant_tensor_is_kept_exactly_by_every_calibrator():
    for calibrator in Calibrator:
        found = ranges([{"x": np.full(50, -3.5, np.float32)}], calibrator).ranges["x"]
        assert found.constant
        assert np.rint(-3.5 / found.scale) * found.scale == pytest.approx(-3.5)


def test_a_threshold_set_by_hand_wins_until_it_is_reset():
    result = ranges([{"x": SAMPLES["normal"]}], Calibrator.MSE)
    clipped = result.with_thresholds({"x": 0.5})
    assert clipped.ranges["x"].scale == 0.5 / 127
    assert clipped.ranges["x"].by_hand
    assert clipped.ranges["x"].clipped_share == pytest.approx(
        np.mean(np.abs(SAMPLES["normal"]) > 0.5), abs=1e-3
    )
    again = clipped.with_calibrator(Calibrator.MSE)
    assert again.ranges["x"].threshold == result.ranges["x"].threshold
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(CalibrationError, match=r"tensor 'x'.*no usable scale"):
            result.with_thresholds({"x": bad})
    with pytest.raises(CalibrationError, match=r"'y'.*not calibrated.*calibrated are: x"):
        result.with_thresholds({"y": 1.0})


def test_calibration_settings_survive_json_and_nonsense_is_refused():
    config = BuilderConfig()
    config.calibrator, config.percentile = Calibrator.PERCENTILE, 99.9
    config.weight_scales, config.equalize_channels, config.smooth_alpha = "tensor", True, 0.5
    config.set_dynamic_range("relu", -1.0, 2.0)
    assert BuilderConfig.from_json(config.to_json()) == config
    assert config.dynamic_ranges == {"relu": 2.0}
    config.reset_dynamic_range("relu")
    assert config.dynamic_ranges == {}
    for name, value in (("percentile", 3), ("weight_scales", "row"), ("smooth_alpha", 1.5)):
        with pytest.raises(ConfigError, match=name):
            setattr(config, name, value)
    for low, high in ((1.0, -1.0), (0.0, 0.0), (-np.inf, 1.0)):
        with pytest.raises(ConfigError, match="'relu'"):
            config.set_dynamic_range("relu", low, high)
