"""The builder: the stages in order, each a function from one frozen BuildState to the next.

The stepper, ``build_serialized_network`` and printed scripts all run these functions.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workbench import calibration, fusions, passes, precision
from workbench.assemble import assemble, memory_stage
from workbench.body import Array
from workbench.calibration import CalibrationResult, load_data
from workbench.config import BuilderConfig, Calibrator, OptimizationProfile
from workbench.datatypes import DataType
from workbench.devices import Device, open_device
from workbench.errors import BuildError, CalibrationError, PrecisionContractError
from workbench.memory import MemoryPlan
from workbench.network import Cause, NetworkDefinition
from workbench.onnx_parser import parse_model
from workbench.plan import Plan
from workbench.precision import PrecisionDecision
from workbench.records import Attempt, BuildLog, Progress, Stage, StageRecord
from workbench.runtime import Engine, Runtime
from workbench.selection import Tuned, tune
from workbench.timing import TimingCache

Batch = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class BuildState:
    """A build after some of its stages. A stage returns a new state; networks are not edited.

    model: an ONNX file's path or bytes, or a network made by hand. calibration_data: batches of
    inputs by name. networks: the network as each stage left it.
    """

    model: Any
    config: BuilderConfig
    device: Device
    cache: TimingCache
    calibration_data: tuple[Batch, ...] = ()
    calibration_label: str = ""
    name: str = "network"
    networks: Mapping[Stage, NetworkDefinition] = field(
        default_factory=lambda: MappingProxyType({})
    )
    decisions: tuple[PrecisionDecision, ...] = ()
    calibration: CalibrationResult | None = None
    tuned: Tuned | None = None
    memory: tuple[MemoryPlan, ...] = ()
    plan: Plan | None = None
    plan_bytes: bytes | None = None
    log: BuildLog = field(default_factory=lambda: BuildLog("", ""))

    @property
    def network(self) -> NetworkDefinition:
        """The network as the latest stage left it."""
        if not self.networks:
            raise BuildError("nothing is parsed yet", place=self.name, remedy="run Parse first")
        return list(self.networks.values())[-1]

    @property
    def done(self) -> tuple[Stage, ...]:
        """Stages that have run."""
        return tuple(r.stage for r in self.log.records)

    @property
    def sha256(self) -> str:
        """SHA-256 of the plan file. Raises BuildError before Serialize."""
        if self.plan_bytes is None:
            raise BuildError("there is no plan yet", place=self.name, remedy="run Serialize")
        return hashlib.sha256(self.plan_bytes).hexdigest()

    def engine(self) -> Engine:
        """The plan, loaded from its bytes as any runtime would."""
        if self.plan_bytes is None:
            raise BuildError("there is no plan yet", place=self.name, remedy="run Serialize")
        return Runtime(self.device).deserialize(self.plan_bytes)


StageFunction = Callable[[BuildState], BuildState]


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


# -- the stages ---------------------------------------------------------------------------
def parse(state: BuildState) -> BuildState:
    """Read the model into a network, with every refusal at once."""
    clock = _Clock()
    if isinstance(state.model, NetworkDefinition):
        network = state.model.clone()
        network.verify()
    else:
        network = parse_model(state.model, name=state.name)
    _give_outputs_a_layer(network)
    symbols = ", ".join(network.symbols) or "none"
    summary = (
        f"{len(network.model_nodes)} nodes → {network.num_layers} layers; dynamic sizes: {symbols}"
    )
    return _after(state, Stage.PARSE, network, clock, summary)


def fold(state: BuildState) -> BuildState:
    """Constants, batch norm into weights, dead layers, no-op shuffles."""
    clock = _Clock()
    network = state.network.clone()
    before = network.num_layers
    attempts = passes.fold(network, verify=state.config.verify)
    summary = f"{before} → {network.num_layers} layers; {_counts(attempts)}"
    return _after(state, Stage.FOLD, network, clock, summary, attempts)


def profiles(state: BuildState) -> BuildState:
    """Bind each dynamic size to a range. Raises ConfigError where one has none."""
    clock = _Clock()
    network = state.network
    given = state.config.optimization_profiles or (OptimizationProfile(),)
    ranges = [[p.bindings(network, k) for k in range(3)] for p in given]
    text = "; ".join(
        ", ".join(f"{s} {low[s]}..{mid[s]}..{high[s]}" for s in mid) for low, mid, high in ranges
    )
    summary = text or "every size is static"
    facts = {"ranges": tuple(tuple(map(dict, r)) for r in ranges)}
    return _after(state, Stage.PROFILES, network, clock, summary, facts=facts)


def choose_precision(state: BuildState) -> BuildState:
    """Resolve the requests and write the Casts into the graph."""
    clock = _Clock()
    network = state.network.clone()
    decisions = precision.resolve(network, state.config)
    attempts = precision.write_casts(network, decisions)
    tally: dict[str, int] = {}
    for d in decisions:
        tally[d.precision.info.label] = tally.get(d.precision.info.label, 0) + 1
    summary = ", ".join(f"{n} {k}" for k, n in sorted(tally.items())) or "nothing to decide"
    state = replace(state, decisions=decisions)
    return _after(
        state, Stage.PRECISION, network, clock, summary, attempts, {"decisions": decisions}
    )


def calibrate(state: BuildState) -> BuildState:
    """Ranges of the folded float network's tensors; then Q/DQ where INT8 is requested.

    Raises CalibrationError when INT8 is requested and there is no data.
    """
    clock = _Clock()
    network = state.network.clone()
    wanted = [d for d in state.decisions if d.precision is DataType.INT8]
    if not state.calibration_data and state.calibration is None:
        if wanted:
            raise CalibrationError(
                f"INT8 is requested for {len(wanted)} layers and there is no calibration data",
                place="Calibrate",
                remedy="give calibration=<npz or batches>, or ask for random data by name",
            )
        return _after(state, Stage.CALIBRATE, network, clock, "no INT8 layer, no data")
    result = state.calibration
    if result is None:
        result = _ranges(state)
        state = replace(state, calibration=result)
    attempts = precision.write_qdq(network, state.decisions, result)
    summary = (
        f"{len(result.ranges)} tensors, {result.samples} samples ({result.label}), "
        f"{result.calibrator.value}; "
        f"{len(wanted)} layers to INT8"
    )
    return _after(
        state, Stage.CALIBRATE, network, clock, summary, attempts, {"calibration": result}
    )


def fuse(state: BuildState) -> BuildState:
    """Every fusion, each attempt with its reason."""
    clock = _Clock()
    network = state.network.clone()
    before = network.num_layers
    attempts = fusions.fuse(network, verify=state.config.verify)
    summary = f"{before} → {network.num_layers} layers; {_counts(attempts)}"
    return _after(state, Stage.FUSE, network, clock, summary, attempts)


def tune_stage(state: BuildState) -> BuildState:
    """Time every tactic; choose tactics and layouts together; hold the precision contract."""
    clock = _Clock()
    network = state.network
    requested = precision.requested_by_layer(network, state.decisions)
    tuned = tune(network, state.device, state.config, state.cache, requested)
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
        f"{len(tuned.layers)} layers, {len(tuned.reformats)} reformats"
        + (f", {tuned.total_us:.0f} µs" if state.config.builder_optimization_level else "")
    )
    state = replace(state, tuned=tuned)
    return _after(state, Stage.TUNE, network, clock, summary, facts={"tuned": tuned})


def plan_memory_stage(state: BuildState) -> BuildState:
    """Lay the arena out, per profile, at the largest shapes."""
    clock = _Clock()
    assert state.tuned is not None
    draft = assemble(state.name, state.network, state.tuned, state.config, state.device)
    plan, memory = memory_stage(draft)
    arena, total = memory[0].arena_bytes, memory[0].total_bytes
    summary = f"{len(plan.steps)} steps; arena {arena / 1024:.0f} KiB instead of {total / 1024:.0f}"
    state = replace(state, plan=plan, memory=memory)
    return _after(state, Stage.MEMORY, state.network, clock, summary, facts={"memory": memory})


def serialize(state: BuildState) -> BuildState:
    """Write the plan's bytes."""
    clock = _Clock()
    assert state.plan is not None
    data = state.plan.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    summary = f"{len(data) / 1024:.0f} KiB, SHA-256 {digest[:16]}..."
    state = replace(state, plan_bytes=data)
    return _after(state, Stage.SERIALIZE, state.network, clock, summary, facts={"sha256": digest})


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


def build(
    model: Any,
    config: BuilderConfig | None = None,
    *,
    device: str | Device = "cpu",
    calibration: Any = None,
    name: str = "",
    tell: Callable[[StageRecord], None] = lambda record: None,
) -> BuildState:
    """Every stage in one call, from an ONNX path, bytes or a network.

    calibration: what ``workbench.calibration.load_data`` takes (a path, arrays, batches,
    ``"random"``). ``tell`` hears each stage's record. Raises a WorkbenchError.
    """
    state = run_stages(start(model, config, device=device, name=name), until=Stage.PARSE, tell=tell)
    if calibration is not None:
        data = load_data(calibration, state.network)
        state = replace(state, calibration_data=data.batches, calibration_label=data.label)
    return run_stages(state, tell=tell)


class Builder:
    """TensorRT's Builder: makes networks, configs and profiles, and builds plans."""

    def __init__(self, *, device: str | Device = "cpu") -> None:
        self.device = open_device(device) if isinstance(device, str) else device
        self.last_build: BuildState | None = None

    def create_network(self, name: str = "network") -> NetworkDefinition:
        return NetworkDefinition(name)

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig()

    def create_optimization_profile(self) -> OptimizationProfile:
        return OptimizationProfile()

    def build_serialized_network(
        self,
        network: NetworkDefinition,
        config: BuilderConfig,
        *,
        calibration_data: Iterable[Batch] = (),
    ) -> bytes:
        """The plan file's bytes. Raises a WorkbenchError naming what stops it, never None."""
        state = start(network, config, device=self.device, calibration_data=calibration_data)
        self.last_build = run_stages(state)
        assert self.last_build.plan_bytes is not None
        return self.last_build.plan_bytes

    def build_engine_with_config(
        self,
        network: NetworkDefinition,
        config: BuilderConfig,
        *,
        calibration_data: Iterable[Batch] = (),
    ) -> Engine:
        """The engine, loaded from the plan's bytes."""
        data = self.build_serialized_network(network, config, calibration_data=calibration_data)
        return Runtime(self.device).deserialize(data)


# -- inner --------------------------------------------------------------------------------
class _Clock:
    def __init__(self) -> None:
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start


def _after(
    state: BuildState,
    stage: Stage,
    network: NetworkDefinition,
    clock: _Clock,
    summary: str,
    attempts: tuple[Attempt, ...] = (),
    facts: Mapping[str, Any] | None = None,
) -> BuildState:
    record = StageRecord(
        stage, clock.seconds, summary, attempts, MappingProxyType(dict(facts or {}))
    )
    networks = MappingProxyType({**state.networks, stage: network})
    return replace(state, networks=networks, log=state.log.with_record(record))


def _give_outputs_a_layer(network: NetworkDefinition) -> None:
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


def _counts(attempts: Iterable[Attempt]) -> str:
    listed = list(attempts)
    applied = sum(a.applied for a in listed)
    return f"{applied} rewrites applied, {len(listed) - applied} refused"


def _ranges(state: BuildState) -> CalibrationResult:
    """Calibrate every quantizable tensor of the folded float network."""
    network = state.networks[Stage.FOLD]
    tensors = precision.quantizable_tensors(network)
    runner = _Taps(state, network)
    return calibration.calibrate(
        tensors,
        state.calibration_data,
        runner.run,
        calibrator=state.config.calibrator,
        monitor=state.config.progress_monitor,
        label=state.calibration_label,
    )


class _Taps:
    """Runs the float network with inner tensors as outputs: a level-0 build of its own."""

    def __init__(self, state: BuildState, network: NetworkDefinition) -> None:
        self.state = state
        self.network = network
        self._engines: dict[Any, Engine] = {}

    def run(self, batch: Batch, taps: tuple[str, ...]) -> dict[str, Array]:
        """Values of ``taps`` on one batch."""
        inner = tuple(t for t in taps if not self.network.tensor(t).is_network_input)
        shapes = tuple(sorted((k, v.shape) for k, v in batch.items()))
        key = (inner, shapes)
        if key not in self._engines:
            self._engines[key] = self._build(batch, inner)
        outputs = self._engines[key].create_execution_context().run(batch)
        return {t: outputs[t] if t in inner else batch[t] for t in taps}

    def _build(self, batch: Batch, taps: tuple[str, ...]) -> Engine:
        network = self.network.clone()
        for t in taps:
            network.mark_output(network.tensor(t))
        config = self.state.config.clone()
        config.builder_optimization_level = 0
        config.precisions, config.default_precision = (), DataType.FLOAT
        config.calibrator = Calibrator.MINMAX
        config.timing_cache = None
        profile = OptimizationProfile()
        for tensor in network.inputs:
            if tensor.name not in batch:
                raise CalibrationError(
                    f"a batch has no input '{tensor.name}' (it has {', '.join(batch)})",
                    place="Calibrate",
                )
            shape = batch[tensor.name].shape
            # Level 0 checks at the smallest shape: one sample, where the network allows it.
            first = 1 if shape and not isinstance(tensor.shape[0], int) else shape[0]
            profile.set_shape(tensor.name, (first, *shape[1:]), shape, shape)
        config.optimization_profiles = (profile,)
        inner = start(network, config, device=self.state.device, name=f"{self.state.name} (taps)")
        return run_stages(inner).engine()
