"""What each layer costs in a lower precision, by taps that leave the plan as it is."""

from __future__ import annotations

import numpy as np
import pytest
from planted import planted_trials

import workbench as wb
from workbench.errors import BuildCancelled, ConfigError
from workbench.lab import find_divergence, find_minimal_fix, measure_sensitivity, own_noise
from workbench.lab.quality import Quality, QualityMeter
from workbench.records import CallbackMonitor

INT8 = wb.DataType.INT8


def test_the_planted_layers_lead_the_ranking_in_both_directions() -> None:
    trials = planted_trials((6, 21))
    found = measure_sensitivity(trials, INT8, layers=("fc3", "fc6", "fc12", "fc21"))
    assert {r.layer for r in found.ranked()[:2]} == {"fc6", "fc21"}
    rows = {r.layer: r for r in found.rows}
    assert rows["fc6"].own.sqnr_db < 10 < 30 < rows["fc3"].own.sqnr_db
    assert rows["fc6"].alone.cosine < rows["fc3"].alone.cosine
    assert rows["fc6"].others.relative_l2 <= found.lowered.quality.relative_l2 * 1.5
    assert found.lowered.coverage == "30 of 30 products in INT8"
    assert found.evaluations == 9


def test_taps_and_replays_agree_on_a_layers_own_noise() -> None:
    trials = planted_trials((6,))
    found = measure_sensitivity(trials, INT8, layers=("fc5", "fc6"), others=False)
    replayed = own_noise(trials, INT8)
    for row in found.rows:
        assert row.tapped
        assert row.own.relative_l2 == pytest.approx(replayed[row.layer].relative_l2, rel=1e-3)


def test_a_tapped_trial_has_the_plan_of_an_untapped_one() -> None:
    trials = planted_trials((6,))
    config = trials.lowered(INT8)
    plain, tapped = trials.measure(config), trials.measure(config, tap="fc6")
    assert plain.sha256 == tapped.sha256
    assert plain.quality == tapped.quality
    assert plain.inner is None and tapped.inner is not None


def test_a_measured_sensitivity_ranks_the_search() -> None:
    trials = planted_trials((6, 21))
    found = measure_sensitivity(trials, INT8, others=False)
    fix = find_minimal_fix(trials, 0.3, metric="relative_l2", sensitivity=found)
    assert fix.layers == ("fc6", "fc21")


def test_sensitivity_can_be_cancelled() -> None:
    monitor = CallbackMonitor(lambda *_: None, lambda: True)
    with pytest.raises(BuildCancelled):
        measure_sensitivity(planted_trials((6,)), INT8, monitor=monitor)


def test_the_first_divergence_is_the_planted_layer() -> None:
    trials = planted_trials((21,))
    found = find_divergence(trials, trials.lowered(INT8), tolerance=0.25)
    assert found.first.layer == "fc21"
    assert found.worst.layer == "fc21"
    assert found.first_not_finite is None
    assert found.rows[0].read < found.rows[0].relative_l2


def test_quality_is_that_of_numpy_whatever_the_batches() -> None:
    random = np.random.default_rng(0)
    exact = random.standard_normal((12, 5)).astype(np.float32)
    found = exact + 0.1 * random.standard_normal((12, 5)).astype(np.float32)
    labels = found.argmax(axis=1)
    meter = QualityMeter()
    for part in (slice(0, 5), slice(5, 12)):
        meter.add({"y": exact[part]}, {"y": found[part]}, labels=labels[part])
    q = meter.result()
    relative = np.linalg.norm(exact - found) / np.linalg.norm(exact)
    assert q.relative_l2 == pytest.approx(relative, rel=1e-5)
    assert q.sqnr_db == pytest.approx(-20 * np.log10(relative), rel=1e-5)
    assert q.accuracy == 100.0
    assert Quality.from_json(q.to_json()) == q


def test_values_that_became_infinite_are_counted_and_lose_everything() -> None:
    meter = QualityMeter()
    meter.add({"y": np.ones((2, 3))}, {"y": np.array([[1, np.inf, 1], [1, 1, 1]])})
    q = meter.result()
    assert q.not_finite == 1
    assert q.relative_l2 == np.inf
    assert Quality.from_json(q.to_json()) == q


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({"best": np.zeros((4,), np.int64)}, r"none is floating-point: best int64\[4\]"),
        (
            {"y": np.zeros((4, 3), np.float32), "h": np.zeros((2, 4), np.float32)},
            r"do not count the same samples: y float32\[4, 3\], h float32\[2, 4\]",
        ),
    ],
)
def test_outputs_that_cannot_be_compared_by_sample_are_named(outputs, said) -> None:
    with pytest.raises(ConfigError, match=said):
        QualityMeter().add(outputs, outputs)
