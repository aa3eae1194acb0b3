"""The stages in order, each a function from one frozen BuildState to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench import fusions, passes, precision
from workbench.assemble import assemble, memory_stage
from workbench.builder.edits import edited
from workbench.builder.in_place import in_place
from workbench.builder.ranges import has_ranges, ranges_of
from workbench.builder.scaling import scaled_channels
from workbench.builder.state import Batch, BuildState, Clock, StageFunction, after, counts
from workbench.builder.taps import TapEngine
from workbench.builder.weak_typing import choose_by_time, weak_types
from workbench.builder.whole_runs import by_whole_runs, early_starts_of
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import CALIBRATED, DataType
from workbench.devices import Device, open_device
from workbench.errors import CalibrationError, PrecisionContractError
from workbench.network import Cause, NetworkDefinition
from workbench.onnx_parser import parse_model
from workbench.records import BuildLog, Progress, Stage, StageRecord, counted
from workbench.runtime import Engine
from workbench.runtime.graph_check import graph_refusal, graph_text
from workbench.selection import lost_fusions, tune
from workbench.timing import TimingCache

WARNED = 3
"""Warnings that Parse's summary spells out; the record's facts have all."""


def parse(state: BuildState) -> BuildState:
    """Read the model into a network, with every refusal at once."""
    clock = Clock()
    if isinstance(state.model, NetworkDefinition):
        network = state.model.clone()
        network.verify()
    else:
        network = parse_model(
            state.model, name=state.name, max_loop_steps=state.config.max_loop_steps
        )
    give_outputs_a_layer(network)
    symbols = ", ".join(network.symbols) or "none"
    summary = (
        f"{len(network.model_nodes)} nodes → {network.num_layers} layers; dynamic sizes: {symbols}"
    )
    if network.warnings:
        summary += f"; {len(network.warnings)} warnings: {'; '.join(network.warnings[:WARNED])}"
    facts = {"warnings": network.warnings}
    return after(state, Stage.PARSE, network, clock, summary, facts=facts)


def give_outputs_a_layer(network: NetworkDefinition) -> None:
    """Copy an input or a constant that is an output, too: a plan writes its outputs itself.

    The copy of an input is named after it; the copy of a constant takes over its name.
    """
    for index, tensor in enumerate(network.outputs):
        if tensor.producer is not None:
            continue
        public = tensor.name
        if tensor.is_network_input:
            public = network.unique(f"{tensor.name}_output")
        else:
            network.rename_tensor(tensor, network.unique(f"{tensor.name}_stored"))
        cause = Cause("Parse", "an output has memory of its own")
        layer = network.add_layer("Identity", [tensor], outputs=[public], cause=cause)
        tensor.is_network_output, layer.outputs[0].is_network_output = False, True
        network.outputs[index] = layer.outputs[0]


def fold(state: BuildState) -> BuildState:
    """Constants, batch norm into weights, dead layers, no-op shuffles."""
    clock = Clock()
    network = edited(state, Stage.FOLD)
    before = network.num_layers
    attempts = passes.fold(network, verify=state.config.verify)
    summary = f"{before} → {network.num_layers} layers; {counts(attempts)}"
    return after(state, Stage.FOLD, network, clock, summary, attempts)


def profiles(state: BuildState) -> BuildState:
    """Bind each dynamic size to a range. Raises ConfigError where one has none."""
    clock = Clock()
    network = state.network
    given = state.config.optimization_profiles or (OptimizationProfile(),)
    ranges = [[p.bindings(network, k) for k in range(3)] for p in given]
    text = "; ".join(
        ", ".join(f"{s} {low[s]}..{mid[s]}..{high[s]}" for s in mid) for low, mid, high in ranges
    )
    summary = text or "every size is static"
    facts = {"ranges": tuple(tuple(map(dict, r)) for r in ranges)}
    return after(state, Stage.PROFILES, network, clock, summary, facts=facts)


def choose_precision(state: BuildState) -> BuildState:
    """Resolve the requests and write the Casts into the graph.

    Under weak typing the requests are the tuner's choice, by time.
    """
    clock = Clock()
    network = state.network.clone()
    weak = choose_by_time(state, run_stages) if weak_types(state.config) else None
    config = weak.strongly_typed(state.config) if weak else state.config
    decisions = precision.resolve(network, config)
    attempts = precision.write_casts(network, decisions)
    tally: dict[str, int] = {}
    for d in decisions:
        tally[d.precision.info.label] = tally.get(d.precision.info.label, 0) + 1
    summary = ", ".join(f"{n} {k}" for k, n in sorted(tally.items())) or "nothing to decide"
    facts: dict[str, Any] = {"decisions": decisions}
    if weak is not None:
        totals = ", ".join(f"{n} {us:.0f} µs" for n, us in weak.totals_us.items())
        summary = f"weak typing (TensorRT ≤ 10): {weak.delivered} of {totals}; {summary}"
        attempts, facts["weak"] = (*weak.attempts, *attempts), weak
    state = replace(state, decisions=decisions)
    return after(state, Stage.PRECISION, network, clock, summary, attempts, facts)


def calibrate(state: BuildState) -> BuildState:
    """Ranges of the folded float network's tensors; then Q/DQ where a quantized type is requested.

    Before that the channel scalings that the config asks for. Raises CalibrationError when INT8,
    FP8 or smooth scaling is requested and there is no data.
    """
    clock = Clock()
    wanted = [d for d in state.decisions if d.precision in CALIBRATED]
    weights_only = sum(d.precision is DataType.INT4 for d in state.decisions)
    labels = " and ".join(sorted({d.precision.info.label for d in wanted})) or "INT8"
    smooth = state.config.smooth_alpha is not None
    missing = not has_ranges(state)
    if missing and (wanted or smooth):
        what = (
            f"{labels} is requested for {len(wanted)} layers" if wanted else "smooth_alpha is set"
        )
        raise CalibrationError(
            f"{what} and there is no calibration data",
            place="Calibrate",
            remedy="give calibration=<npz or batches>, or ask for random data by name",
        )
    scaled = scaled_channels(state, _engine_on(state.device))
    network = state.network.clone()
    if scaled.attempts:
        network = scaled.network.clone()
        precision.write_casts(network, state.decisions)
    if missing:
        summary = "no INT8 layer, no data"
        if scaled.attempts:
            summary += f"; channels: {counts(scaled.attempts)}"
        attempts = scaled.attempts
        if weights_only:
            attempts = (*attempts, *precision.write_qdq(network, state.decisions, None))
            summary = f"{weights_only} layers to INT4 weights, which need no data"
        return after(state, Stage.CALIBRATE, network, clock, summary, attempts)
    result = state.calibration
    if result is None:
        result = ranges_of(state, scaled.network, _engine_on(state.device), scaled.before)
    result = result.with_thresholds(state.config.dynamic_ranges)
    state = replace(state, calibration=result)
    attempts = precision.write_qdq(
        network, state.decisions, result, weight_scales=state.config.weight_scales
    )
    summary = (
        f"{len(result.ranges)} tensors, {result.samples} samples ({result.label}), "
        f"{result.calibrator.value}; "
        f"{len(wanted)} layers to {labels}"
        + (f", {weights_only} to INT4 weights" if weights_only else "")
    )
    if scaled.attempts:
        summary += f"; channels: {counts(scaled.attempts)}"
    attempts = (*scaled.attempts, *attempts)
    return after(state, Stage.CALIBRATE, network, clock, summary, attempts, {"calibration": result})


def fuse(state: BuildState) -> BuildState:
    """Every fusion, each attempt with its reason."""
    clock = Clock()
    network = edited(state, Stage.FUSE)
    before = network.num_layers
    attempts = fusions.fuse(network, verify=state.config.verify, device=state.device)
    summary = f"{before} → {network.num_layers} layers; {counts(attempts)}"
    return after(state, Stage.FUSE, network, clock, summary, attempts)


def tune_stage(state: BuildState) -> BuildState:
    """Time every tactic; choose tactics and layouts together; hold the precision contract."""
    clock = Clock()
    network = state.network
    requested = precision.requested_by_layer(network, state.decisions)
    tuned = tune(network, state.device, state.config, state.cache, requested)
    tuned = in_place(state, by_whole_runs(state, tuned))
    broken = [
        f"{c.layer}: requested {c.requested.value}, built {c.built.value}, "
        f"executed {c.executed.value}"
        for c in tuned.layers
        if not c.requested is c.built is c.executed
    ]
    if broken:
        raise PrecisionContractError("; ".join(broken), place="Tune")
    summary = (
        f"{tuned.timed} tactics timed, {tuned.cached} from the cache; "
        f"{counted(len(tuned.layers), 'layer')}, {counted(len(tuned.reformats), 'reformat')}"
        + (f", {tuned.total_us:.0f} µs" if state.config.builder_optimization_level else "")
        + "".join(f"; {r}" for r in tuned.remarks)
    )
    state = replace(state, tuned=tuned)
    lost = lost_fusions(tuned)
    return after(state, Stage.TUNE, network, clock, summary, lost, {"tuned": tuned})


def plan_memory_stage(state: BuildState) -> BuildState:
    """Lay the arena out, per profile, at the largest shapes."""
    clock = Clock()
    assert state.tuned is not None
    draft = assemble(state.name, state.network, state.tuned, state.config, state.device)
    plan, memory = memory_stage(draft)
    arena, total = memory[0].arena_bytes, memory[0].total_bytes
    summary = f"{len(plan.steps)} steps; arena {arena / 1024:.0f} KiB instead of {total / 1024:.0f}"
    state = replace(state, plan=plan, memory=memory)
    return after(state, Stage.MEMORY, state.network, clock, summary, facts={"memory": memory})


def serialize(state: BuildState) -> BuildState:
    """Write the plan's bytes, with a GPU's machine code or a CPU's packed weights."""
    clock = Clock()
    assert state.plan is not None
    plan, graph = state.plan, ""
    facts: dict[str, str] = {}
    if plan.device.kind == "gpu":
        engine = Engine(plan, state.device)
        plan = replace(plan, code=engine.machine_code())
        facts["graph_refusal"] = graph_refusal(engine)
        graph = f"; {graph_text(engine, facts['graph_refusal'])}"
        if not facts["graph_refusal"]:
            early = early_starts_of(state, engine)
            plan = early.written(plan)
            graph += f", of which {early}" if str(early) else ""
    else:
        plan = replace(plan, packed=Engine(plan, state.device).prepacked())
    data = plan.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    summary = f"{len(data) / 1024:.0f} KiB, SHA-256 {digest[:16]}...{graph}"
    state = replace(state, plan=plan, plan_bytes=data)
    facts["sha256"] = digest
    return after(state, Stage.SERIALIZE, state.network, clock, summary, facts=facts)


STAGES: tuple[tuple[Stage, StageFunction], ...] = (
    (Stage.PARSE, parse),
    (Stage.FOLD, fold),
    (Stage.PROFILES, profiles),
    (Stage.PRECISION, choose_precision),
    (Stage.CALIBRATE, calibrate),
    (Stage.FUSE, fuse),
    (Stage.TUNE, tune_stage),
    (Stage.MEMORY, plan_memory_stage),
    (Stage.SERIALIZE, serialize),
)


def run_stages(
    state: BuildState,
    *,
    until: Stage = Stage.SERIALIZE,
    tell: Callable[[StageRecord], None] = lambda record: None,
) -> BuildState:
    """Run the stages not yet done, up to and including ``until``."""
    monitor = state.config.progress_monitor
    with Progress(monitor, "Build", len(STAGES)) as progress:
        for stage, function in STAGES:
            if stage not in state.done:
                state = function(state)
                tell(state.log.records[-1])
            progress.step()
            if stage is until:
                break
    return state


def start(
    model: Any,
    config: BuilderConfig | None = None,
    *,
    device: str | Device = "cpu",
    calibration_data: Iterable[Batch] = (),
    name: str = "",
) -> BuildState:
    """A build before its first stage. Raises DeviceError; the device is never changed."""
    frozen = (config or BuilderConfig()).frozen()
    opened = open_device(device, threads=frozen.num_threads) if isinstance(device, str) else device
    cache = frozen.timing_cache
    if cache is None:
        cache = TimingCache(opened.fingerprint)
    elif cache.device != opened.fingerprint:
        TimingCache(opened.fingerprint).combine(cache)
    if not name:
        given = isinstance(model, NetworkDefinition)
        name = model.name if given else Path(model).stem if isinstance(model, str | Path) else ""
    name = name or "network"
    batches = tuple(dict(b) for b in calibration_data)
    log = BuildLog(str(opened), name)
    return BuildState(model, frozen, opened, cache, batches, name=name, log=log)


def _engine_on(device: Device) -> TapEngine:
    """Every stage of a build on this device, for Calibrate's runs."""
    return lambda network, config, name: run_stages(
        start(network, config, device=device, name=name)
    ).engine()
