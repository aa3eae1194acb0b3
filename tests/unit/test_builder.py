from __future__ import annotations

import hashlib

import numpy as np
import pytest
from engines import build, config, images, small_network

from workbench.builder import STAGES, Builder, run_stages, start
from workbench.config import BuilderConfig, BuilderFlag, Calibrator, OptimizationProfile
from workbench.datatypes import DataType
from workbench.devices import CpuDevice
from workbench.errors import (
    BuildCancelled,
    CalibrationError,
    ConfigError,
    DeviceError,
    NoTacticError,
    TimingCacheError,
)
from workbench.records import CallbackMonitor, Stage
from workbench.timing import TimingCache


def with_cache(made: BuilderConfig, cache: TimingCache | None = None) -> BuilderConfig:
    made.timing_cache = cache or TimingCache(CpuDevice().fingerprint)
    return made


def test_every_stage_leaves_a_record_in_order():
    state = build()
    assert [r.stage for r in state.log.records] == [stage for stage, _ in STAGES]
    assert all(r.summary for r in state.log.records)


def test_the_engine_gives_what_the_network_means():
    network, x = small_network(), images(3)
    outputs = build(network=network).engine().create_execution_context().run({"image": x})
    np.testing.assert_allclose(outputs["logits"], network.run({"image": x})["logits"], atol=1e-5)


def test_every_model_node_is_mapped_to_a_layer_or_to_what_absorbed_it():
    state = build()
    assert state.plan is not None
    covered = {n for s in state.plan.steps for n in s.origin} | set(state.plan.absorbed)
    assert set(state.network.model_nodes) <= covered


def test_a_second_build_with_the_cache_times_nothing_and_gives_the_same_bytes():
    made = with_cache(config(level=2))
    first, second = build(made), build(made)
    assert first.tuned is not None and second.tuned is not None
    assert first.tuned.timed > 0
    assert second.tuned.timed == 0
    assert second.plan_bytes == first.plan_bytes


def test_an_empty_cache_is_an_error_where_a_miss_is_not_allowed():
    made = with_cache(config(level=2))
    made.set_flag(BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
    with pytest.raises(TimingCacheError, match="no timing of"):
        build(made)


def test_stepper_and_one_shot_give_the_same_plan():
    made = with_cache(config(level=2))
    state = start(small_network(), made)
    for stage, _ in STAGES:
        state = run_stages(state, until=stage)
        assert state.done[-1] is stage
    data = Builder().build_serialized_network(small_network(), made)
    assert hashlib.sha256(data).hexdigest() == state.sha256


def test_a_dynamic_input_without_a_profile_is_refused_with_the_call_that_mends_it():
    with pytest.raises(ConfigError, match=r"batch.*add_optimization_profile"):
        build(BuilderConfig())


def test_int8_without_calibration_data_is_refused():
    made = config()
    made.default_precision = DataType.INT8
    with pytest.raises(CalibrationError, match="no calibration data"):
        build(made)


@pytest.mark.parametrize("kind", [DataType.BF16, DataType.HALF, DataType.INT8])
def test_requested_built_and_executed_precision_agree_for_every_layer(kind):
    made = config()
    made.default_precision = kind
    state = build(made, data=[{"image": images(8)}])
    assert state.tuned is not None
    for choice in state.tuned.layers:
        assert choice.requested is choice.built is choice.executed, choice.layer
    products = [c for c in state.tuned.layers if {"Conv", "Gemm"} & set(c.operators)]
    assert len(products) == 3
    assert all(c.executed is kind for c in products)


def test_one_layer_may_have_a_precision_of_its_own():
    made = config()
    made.set_precision("inner", DataType.INT8)
    state = build(made, data=[{"image": images(8)}])
    assert state.tuned is not None
    kinds = {n: c.executed for c in state.tuned.layers for n in c.origin}
    assert kinds["inner"] is DataType.INT8
    assert kinds["stem"] is kinds["head"] is DataType.FLOAT


def test_int8_stays_close_to_float_and_both_calibrators_work():
    x = images(8)
    reference = small_network().run({"image": x})["logits"]
    for calibrator in Calibrator:
        made = config()
        made.default_precision = DataType.INT8
        made.calibrator = calibrator
        engine = build(made, data=[{"image": x}]).engine()
        logits = engine.create_execution_context().run({"image": x})["logits"]
        error = np.linalg.norm(logits - reference) / np.linalg.norm(reference)
        assert error < 0.1, calibrator


def test_cancel_stops_the_build_and_keeps_the_timings():
    made = with_cache(config(level=2))
    steps = []
    made.progress_monitor = CallbackMonitor(
        lambda phase, done, total: steps.append((phase, done)),
        cancelled=lambda: ("Tune", 1) in steps,
    )
    with pytest.raises(BuildCancelled, match="Tune"):
        build(made)
    assert made.timing_cache.entries


def test_a_source_switched_off_offers_nothing_and_says_so():
    made = config(level=1)
    made.set_tactic_sources(["NUMPY"])
    state = build(made)
    assert state.tuned is not None
    for choice in state.tuned.layers:
        assert {c.source for c in choice.candidates if c.eligible} <= {"NUMPY", "COMPOSED"}
        reasons = [str(c.refusal) for c in choice.candidates if c.source == "ONEDNN"]
        assert reasons and all("not among the tactic sources" in r for r in reasons)


def test_with_no_source_every_layer_is_named_with_the_reasons():
    made = config()
    made.set_tactic_sources([])
    assert BuilderConfig.from_json(made.to_json()).tactic_sources == ()
    with pytest.raises(NoTacticError, match="stem") as caught:
        build(made)
    assert caught.value.refusals


def test_a_tactic_that_needs_more_workspace_than_allowed_says_how_much():
    made = config(level=3)
    made.memory_pool_limits = {k: 0 for k in made.memory_pool_limits}
    state = build(made)
    assert state.tuned is not None
    assert all(c.winner.workspace_bytes == 0 for c in state.tuned.layers)
    reasons = [
        str(x.refusal) for c in state.tuned.layers for x in c.candidates if x.refusal is not None
    ]
    assert any("workspace" in r for r in reasons)


def test_a_wrong_kernel_is_quarantined_and_the_build_goes_on_right(monkeypatch):
    from workbench.tactics.onednn.source import ONEDNN

    prepare = type(ONEDNN).prepare

    def wrong(self, tactic, problem):
        call = prepare(self, tactic, problem)
        bind = getattr(call, "bind", None)
        if bind is None or "Conv" not in problem.body.operator_names:
            return call

        def broken(inputs, outputs, workspace, stream):
            launch = bind(inputs, outputs, workspace, stream)

            def run():
                launch()
                outputs[0].memory[:4].view(np.float32)[0] += 1.0

            return run

        object.__setattr__(call, "bind", broken)
        return call

    if ONEDNN.unavailable() is not None:
        pytest.fail("oneDNN is expected on the machine that runs the tests")
    monkeypatch.setattr(type(ONEDNN), "prepare", wrong)
    network, x = small_network(), images(4)
    state = build(config(level=1), network=network)
    assert state.tuned is not None
    stem = next(c for c in state.tuned.layers if "stem" in c.origin)
    caught = [c for c in stem.candidates if c.refusal and c.refusal.code == "quarantined"]
    assert caught and all("times the bound" in str(c.refusal) for c in caught)
    logits = state.engine().create_execution_context().run({"image": x})["logits"]
    np.testing.assert_allclose(logits, network.run({"image": x})["logits"], atol=1e-5)


def test_an_unknown_device_is_refused_and_nothing_else_is_used_instead():
    with pytest.raises(DeviceError, match="tpu"):
        start(small_network(), config(), device="tpu")


def test_the_config_of_a_running_build_cannot_change():
    state = start(small_network(), config())
    with pytest.raises(ConfigError, match="cannot change"):
        state.config.default_precision = DataType.BF16


def test_changing_the_callers_arrays_changes_no_plan():
    array = np.ones((16, 3, 3, 3), np.float32)
    network = small_network()
    tensor = network.constant(array, "mine")
    array[...] = 9
    assert tensor.weight is not None
    assert float(tensor.weight.array.max()) == 1.0


def test_two_profiles_give_two_arenas_in_one_plan():
    made = config()
    shape = (3, 8, 8)
    made.add_optimization_profile(
        OptimizationProfile().set_shape("image", (1, *shape), (1, *shape), (2, *shape))
    )
    state = build(made)
    assert state.plan is not None
    wide, narrow = state.plan.profiles
    assert narrow.arena_bytes < wide.arena_bytes
    context = state.engine().create_execution_context()
    context.set_optimization_profile_async(1)
    assert context.run({"image": images(2)})["logits"].shape == (2, 10)


def test_fold_comes_before_precision_so_ranges_belong_to_the_float_network():
    made = config()
    made.default_precision = DataType.INT8
    state = build(made, data=[{"image": images(8)}])
    assert state.calibration is not None
    folded = state.networks[Stage.FOLD]
    assert set(state.calibration.ranges) <= set(folded.tensors)
    assert all(r.scale > 0 and np.isfinite(r.scale) for r in state.calibration.ranges.values())
