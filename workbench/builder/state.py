"""BuildState: a build after some of its stages, and the record that each one leaves."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workbench.body import Array
from workbench.calibration import CalibrationResult
from workbench.config import BuilderConfig
from workbench.devices import Device
from workbench.errors import BuildError
from workbench.memory import MemoryPlan
from workbench.network import NetworkDefinition
from workbench.plan import Plan
from workbench.precision import PrecisionDecision
from workbench.records import Attempt, BuildLog, Stage, StageRecord
from workbench.runtime import Engine, Runtime
from workbench.selection import Tuned
from workbench.timing import TimingCache

Batch = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class BuildState:
    """A build after some of its stages. A stage returns a new state; networks are not edited.

    model: an ONNX file's path or bytes, or a network made by hand. calibration_data: batches of
    inputs by name; an iterator is read once. calibration_cache: the file that keeps the ranges.
    networks: the network as each stage left it.
    """

    model: Any
    config: BuilderConfig
    device: Device
    cache: TimingCache
    calibration_data: Iterable[Batch] = ()
    calibration_label: str = ""
    calibration_cache: Path | None = None
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


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start


def after(
    state: BuildState,
    stage: Stage,
    network: NetworkDefinition,
    clock: Clock,
    summary: str,
    attempts: tuple[Attempt, ...] = (),
    facts: Mapping[str, Any] | None = None,
) -> BuildState:
    """The state with a stage's network and its record."""
    record = StageRecord(
        stage, clock.seconds, summary, attempts, MappingProxyType(dict(facts or {}))
    )
    networks = MappingProxyType({**state.networks, stage: network})
    return replace(state, networks=networks, log=state.log.with_record(record))


def before_stage(state: BuildState, stage: Stage) -> BuildState:
    """The build as it was before a stage ran."""
    kept = list(Stage)[: list(Stage).index(stage)]
    records = tuple(r for r in state.log.records if r.stage in kept)
    networks = {s: n for s, n in state.networks.items() if s in kept}
    return replace(
        state,
        networks=MappingProxyType(networks),
        log=replace(state.log, records=records),
    )


def counts(attempts: Iterable[Attempt]) -> str:
    """How many rewrites were applied and refused, in words."""
    listed = list(attempts)
    applied = sum(a.applied for a in listed)
    return f"{applied} rewrites applied, {len(listed) - applied} refused"
