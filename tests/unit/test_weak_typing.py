"""Weak typing (TensorRT <= 10): the tuner chooses by time, what is delivered is strongly typed."""

from __future__ import annotations

import numpy as np
import pytest
from engines import small_network

import workbench as wb
from workbench.builder import BuildState, WeakTyping, run_stages, start, weak_typing
from workbench.errors import ConfigError
from workbench.network import NetworkDefinition
from workbench.records import Stage
from workbench.reports.weights_and_types import weak_typing_rows
from workbench.selection.candidates import Workshop
from workbench.session import Session, SetFlag, SetOption

FLAGS = (wb.BuilderFlag.FP16, wb.BuilderFlag.BF16, wb.BuilderFlag.INT8)


def wide() -> NetworkDefinition:
    """Products large enough that INT8 is several times faster than FP32 on a CPU with VNNI."""
    random = np.random.default_rng(0)
    network = NetworkDefinition("wide")
    x = network.add_input("image", "FP32", (64, 1024))
    for k in range(2):
        w = (random.standard_normal((1024, 1024)) / 32).astype(np.float32)
        layer = network.add_layer(
            "MatMul", [x, network.constant(w, f"w{k}")], name=f"fc{k}", origin=(f"fc{k}",)
        )
        x = layer.outputs[0]
    network.mark_output(x)
    network.model_nodes = ("fc0", "fc1")
    return network


def weak_config(*flags: wb.BuilderFlag, level: int = 2) -> wb.BuilderConfig:
    config = wb.BuilderConfig()
    config.builder_optimization_level, config.num_threads = level, 1
    config.avg_timing_iterations = 3
    for flag in flags:
        config.set_flag(flag)
    return config


def built(config: wb.BuilderConfig, cache=None) -> BuildState:
    data = np.random.default_rng(1).standard_normal((64, 1024)).astype(np.float32)
    config.timing_cache = cache
    return run_stages(start(wide(), config, calibration_data=[{"image": data}]))


def weak_of(state: BuildState) -> WeakTyping:
    return state.log[Stage.PRECISION].facts["weak"]


def test_int8_is_chosen_by_time_and_the_strongly_typed_config_builds_the_same_network() -> None:
    state = built(weak_config(*FLAGS))
    weak = weak_of(state)
    assert set(weak.totals_us) >= {"FP32", "FP16", "BF16", "INT8"}
    assert weak.totals_us[weak.delivered] == min(weak.totals_us.values())
    for choice in weak.choices:
        assert choice.times_us[wb.DataType.FLOAT] > 0
    for c in state.tuned.layers:
        assert c.requested is c.built is c.executed
    strong = weak.strongly_typed(weak_config(*FLAGS))
    assert not strong.flags & set(FLAGS)
    assert wb.BuilderConfig.from_json(strong.to_json()) == strong
    again = built(strong, state.cache)
    assert str(again.network) == str(state.network)
    assert again.tuned.timed == 0
    assert "weak typing (TensorRT ≤ 10)" in state.log[Stage.PRECISION].summary


def test_conversions_are_timed_in_one_workshop(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Workshop] = []
    timed: list[str] = []

    class Counted(Workshop):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            made.append(self)

        def candidates(self, layer):
            timed.append(layer.opt.signature)
            return super().candidates(layer)

    monkeypatch.setattr(weak_typing, "Workshop", Counted)
    built(weak_config(*FLAGS))
    assert len(set(timed)) == len(timed) > 1
    assert len(made) == 1


def test_each_choice_stands_in_the_ledger_with_its_times() -> None:
    state = built(weak_config(wb.BuilderFlag.INT8))
    rows = [a for a in state.log[Stage.PRECISION].attempts if a.rule == "weak_typing"]
    assert {n for a in rows for n in a.place} == {"fc0", "fc1"}
    assert {"FP32 (µs)", "INT8 (µs)"} <= set(weak_typing_rows(weak_of(state)).columns)
    assert all("FP32" in a.detail and "INT8" in a.detail and "µs" in a.detail for a in rows)


def test_a_node_that_the_config_names_keeps_its_type() -> None:
    config = weak_config(wb.BuilderFlag.INT8)
    config.set_precision("fc1", "FP32")
    state = built(config)
    assert {d.layer: d.precision for d in state.decisions}["fc1"] is wb.DataType.FLOAT


def test_without_times_or_with_another_default_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="level 0 measures none"):
        built(weak_config(wb.BuilderFlag.INT8, level=0))
    config = weak_config(wb.BuilderFlag.FP16)
    config.default_precision = wb.DataType.BF16
    with pytest.raises(ConfigError, match="default precision is BF16"):
        built(config)


def test_flags_are_kept_in_json_and_strong_typing_is_the_default() -> None:
    config = weak_config(*FLAGS)
    assert wb.BuilderConfig.from_json(config.to_json()).flags == config.flags
    assert not wb.BuilderConfig().flags & set(FLAGS)
    state = run_stages(start(small_network(), small_config()), until=Stage.PRECISION)
    assert "weak" not in state.log[Stage.PRECISION].facts


def small_config() -> wb.BuilderConfig:
    config = weak_config()
    shape = (3, 8, 8)
    profile = wb.OptimizationProfile().set_shape("image", (1, *shape), (4, *shape), (8, *shape))
    config.add_optimization_profile(profile)
    return config


def test_a_session_chooses_when_the_flag_is_set_and_undo_takes_it_back() -> None:
    data = np.random.default_rng(1).standard_normal((64, 1024)).astype(np.float32)
    session = Session(wide(), calibration={"image": data})
    session.do(
        SetOption("builder_optimization_level", 1),
        SetOption("num_threads", 1),
        SetOption("avg_timing_iterations", 2),
        SetFlag(wb.BuilderFlag.INT8),
    )
    assert "config.set_flag(wb.BuilderFlag.INT8)" in session.code()
    facts = session.run(Stage.PRECISION).log[Stage.PRECISION].facts
    assert "INT8" in facts["weak"].totals_us
    session.undo()
    assert "weak" not in session.run(Stage.PRECISION).log[Stage.PRECISION].facts
