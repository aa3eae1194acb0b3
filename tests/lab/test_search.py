"""The search for the fewest layers to keep: exact, cheap, resumable, reproducible."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from planted import LAYERS, planted_trials

import workbench as wb
from workbench.errors import BuildCancelled, ConfigError
from workbench.lab import bisect_prefixes, find_minimal_fix
from workbench.lab.search import default_metric
from workbench.records import CallbackMonitor

TOLERANCE = 0.3


@pytest.mark.parametrize("sensitive", [(17,), (6, 21), (4, 15, 26)])
def test_planted_layers_are_returned_exactly_with_fewer_engines_than_bisecting(
    sensitive: tuple[int, ...],
) -> None:
    names = tuple(f"fc{k}" for k in sensitive)
    fix = find_minimal_fix(planted_trials(sensitive), TOLERANCE, metric="relative_l2")
    assert fix.layers == names
    assert fix.lowered.quality.relative_l2 > TOLERANCE >= fix.loss
    assert f"{LAYERS - len(names)} of {LAYERS} products in INT8" in str(fix)
    old = bisect_prefixes(planted_trials(sensitive), TOLERANCE, metric="relative_l2")
    assert old.layers == names
    assert fix.evaluations < old.evaluations


def test_every_layer_of_the_fix_was_shown_to_be_needed() -> None:
    fix = find_minimal_fix(planted_trials((6, 21)), TOLERANCE, metric="relative_l2")
    asked = {s.kept: s.holds for s in fix.steps}
    assert asked[("fc6", "fc21")]
    assert asked[("fc6",)] is False and asked[("fc21",)] is False


def test_where_nothing_is_lost_nothing_is_kept() -> None:
    fix = find_minimal_fix(planted_trials(()), TOLERANCE, metric="relative_l2")
    assert fix.layers == ()
    assert fix.evaluations == 1


def test_a_cancelled_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    record = tmp_path / "trials.json"
    whole = find_minimal_fix(planted_trials((6, 21)), TOLERANCE, metric="relative_l2")
    done: list[int] = []

    def tell(phase: str, at: int, of: int) -> None:
        if phase == "Search":
            done.append(at)

    monitor = CallbackMonitor(tell, lambda: len(done) > 2)
    trials = planted_trials((6, 21), record=record)
    with pytest.raises(BuildCancelled):
        find_minimal_fix(trials, TOLERANCE, metric="relative_l2", monitor=monitor)
    kept = len(json.loads(record.read_text())["trials"])
    assert 0 < kept < whole.evaluations
    again = planted_trials((6, 21), record=record)
    fix = find_minimal_fix(again, TOLERANCE, metric="relative_l2")
    assert fix.layers == whole.layers
    assert fix.resumed == kept
    assert again.evaluations == whole.evaluations - kept


def test_a_record_of_another_model_is_refused(tmp_path: Path) -> None:
    record = tmp_path / "trials.json"
    trials = planted_trials((6,), record=record)
    trials.measure(trials.lowered(wb.DataType.INT8))
    with pytest.raises(ConfigError, match="of another model"):
        planted_trials((7,), record=record)


def test_a_score_of_ones_own_is_searched_by_and_its_record_is_refused_to_another(
    tmp_path: Path,
) -> None:
    record = tmp_path / "trials.json"

    def near(first: float):
        return lambda outputs, inputs: first - np.abs(outputs["y"] - inputs["x"]).mean(axis=1)

    trials = planted_trials((6,), record=record, task=near(1.0))
    trial = trials.measure(trials.lowered(wb.DataType.INT8))
    lost = trial.quality.loss("task", trials.reference_quality)
    assert lost == pytest.approx(trials.reference_quality.task - trial.quality.task)
    assert default_metric(trials) == "task"
    planted_trials((6,), record=record, task=near(1.0))
    with pytest.raises(ConfigError, match="of another task"):
        planted_trials((6,), record=record, task=lambda outputs, inputs: outputs["y"].mean(axis=1))


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    record = tmp_path / "trials.json"
    record.write_text("{")
    with pytest.raises(ConfigError, match="no record of trials"):
        planted_trials((6,), record=record)


def test_each_point_of_the_front_is_reproduced_by_its_json() -> None:
    trials = planted_trials((6, 21), level=1)
    fix = find_minimal_fix(trials, TOLERANCE, metric="relative_l2", front=True)
    on_front = [p for p in fix.front if p.on_front]
    assert on_front
    losses = [p.loss for p in on_front]
    assert losses == sorted(losses, reverse=True)
    for point in (on_front[0], on_front[-1]):
        config = wb.BuilderConfig.from_json(json.loads(json.dumps(point.config)))
        state = trials.build(config)
        assert state.sha256 == point.trial.sha256
    kept = {p.name: p.kept for p in fix.front}
    assert ("fc6", "fc21") in kept.values()
    assert kept["all lowered"] == ()


def test_a_front_without_times_is_refused() -> None:
    trials = planted_trials((6,))
    with pytest.raises(ConfigError, match="level 0"):
        find_minimal_fix(trials, TOLERANCE, metric="relative_l2", front=True)
    assert trials.evaluations == 0, "nothing is searched for before"


@pytest.mark.parametrize("search", [find_minimal_fix, bisect_prefixes])
def test_a_tolerance_that_no_set_of_layers_meets_is_refused_with_what_is_lost(search) -> None:
    with pytest.raises(ConfigError, match="with every layer kept in FP32, relative_l2 loses"):
        search(planted_trials((6,)), -1.0, metric="relative_l2")


def test_cancel_is_heard_before_the_first_engine_is_built() -> None:
    trials = planted_trials((6,))
    monitor = CallbackMonitor(lambda *_: None, lambda: True)
    with pytest.raises(BuildCancelled, match="Own noise"):
        find_minimal_fix(trials, TOLERANCE, metric="relative_l2", monitor=monitor)
    assert trials.evaluations == 0


def test_a_metric_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="give labels"):
        find_minimal_fix(planted_trials(()), 1.0, metric="accuracy")
