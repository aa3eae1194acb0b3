"""The plan: an optimized engine as data, and its file format (safetensors).

What the runtime needs and nothing else: no clock, no path, no host name, no Python source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workbench.body import Array, Body, HostType, TensorType, type_from_json, type_to_json
from workbench.datatypes import DataType
from workbench.devices import Fingerprint
from workbench.digests import sha256_hex
from workbench.dimensions import dim_from_json, dim_to_json, symbols_of
from workbench.errors import PlanError
from workbench.files import write_atomically
from workbench.formats import Format
from workbench.gpu_targets import HardwareCompatibilityLevel
from workbench.operators import operator_named
from workbench.plan_file import ANY_FILE, map_file, read_file, write_file
from workbench.streams import Schedule, Work, dependencies
from workbench.tactics.protocol import (
    Tactic,
    format_from_json,
    format_to_json,
    tactic_from_json,
    tactic_to_json,
)


@dataclass(frozen=True)
class PlanTensor:
    """A tensor of the running engine. kind: input, output, or inner.

    type: element type and symbolic shape. format: how it lies in memory. One network tensor in
    two layouts is two PlanTensors. root, offset: it lies ``offset`` bytes into the memory of
    another tensor; empty where it has memory of its own.
    """

    name: str
    type: TensorType
    format: Format
    kind: str
    root: str = ""
    offset: Any = 0


@dataclass(frozen=True)
class PlanStep:
    """One launch: a Body, the tactic that runs it, and what it reads and writes.

    inputs: PlanTensors of the Body's dynamic inputs, in order. constants: weight names of its
    constant inputs, in order. outputs: PlanTensors of its outputs.
    requested, built, executed: the precision contract. cause: why an inserted step exists.
    stream: 0 is the caller's, the others are auxiliary ones that run beside it.
    lets_next_start: whether its kernels let the next one start before they end; see ``gpu_launch``.
    """

    name: str
    type: str
    body: Body
    tactic: Tactic
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    origin: tuple[str, ...]
    cause: str
    requested: DataType
    built: DataType
    executed: DataType
    stream: int = 0
    lets_next_start: bool = False

    @property
    def on_host(self) -> bool:
        """Whether the host runs it, by the interpreter."""
        return self.tactic.source == "HOST"

    @property
    def is_view(self) -> bool:
        """Whether its outputs share memory with its inputs, and nothing is launched."""
        return self.tactic.source == "VIEW"


@dataclass(frozen=True)
class PlanProfile:
    """An optimization profile, and the arena laid out for its largest shapes.

    shapes: input -> (min, opt, max). offsets: PlanTensor -> byte offset in the arena.
    """

    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
    offsets: Mapping[str, int]
    arena_bytes: int
    workspace_bytes: int


@dataclass(frozen=True)
class Plan:
    """A built engine. ``weights`` are the linear execution weights, by name.

    code: machine code of its kernels, by key, where a tactic source compiles any ahead of time.
    packed: bytes of constants as kernels on ``device`` read them, by step and key: ``3/weights …``.
    """

    name: str
    device: Fingerprint
    threads: int
    tensors: tuple[PlanTensor, ...]
    steps: tuple[PlanStep, ...]
    profiles: tuple[PlanProfile, ...]
    weights: Mapping[str, Array]
    absorbed: Mapping[str, str]
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    code: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    packed: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def late(self) -> frozenset[str]:
        """Tensors that have no place in the arena: only the data decides how large they are."""
        known: set[str] = set()
        for t in self.tensors:
            if t.kind == "input" and not isinstance(t.type, HostType):
                known.update(s for d in t.type.shape for s in symbols_of(d))
        return frozenset(
            t.name
            for t in self.tensors
            if t.type.on_host or not all(symbols_of(d) <= known for d in t.type.shape)
        )

    @cached_property
    def is_late(self) -> bool:
        """Whether steps must run one by one: some on the host, or at sizes found on the way."""
        return bool(self.late) or any(s.on_host for s in self.steps)

    @property
    def compatibility(self) -> HardwareCompatibilityLevel:
        """On which other GPUs than ``device`` it loads."""
        return HardwareCompatibilityLevel(self.config["hardware_compatibility_level"])

    @property
    def num_aux_streams(self) -> int:
        """Streams beside the caller's that its steps are spread over."""
        return max((s.stream for s in self.steps), default=0)

    def schedule(self) -> Schedule:
        """Which steps run side by side, and what each waits for."""
        work = [Work(s.inputs, s.outputs) for s in self.steps]
        return Schedule(dependencies(work), tuple(s.stream for s in self.steps))

    def to_bytes(self) -> bytes:
        """The plan file. Equal plans give equal bytes."""
        return write_file(self.records(), self.weights, self.code, self.packed)

    def save(self, path: str | Path) -> str:
        """Write the plan file atomically; returns its SHA-256."""
        data = self.to_bytes()
        write_atomically(Path(path), data)
        return sha256_hex(data)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, *, verify: str = "full") -> Plan:
        """Read a plan. Raises PlanError on any damage; ``verify="lazy"`` skips the weights."""
        records, weights, code, packed = read_file(data, verify=verify)
        return replace(_plan_from_records(records, weights, code), packed=packed)

    @classmethod
    def load(cls, path: str | Path, *, verify: str = "full") -> Plan:
        """Read a plan file; its weights stay mapped, not copied. Raises PlanError naming it."""
        try:
            return cls.from_bytes(map_file(Path(path)), verify=verify)
        except PlanError as e:
            if e.place != ANY_FILE:
                raise
            raise PlanError(e.problem, place=str(path), remedy=e.remedy) from None

    def records(self) -> dict[str, Any]:
        """Everything but the weights, as JSON values."""
        bodies: dict[str, int] = {}
        table: list[Any] = []
        steps: list[Any] = []
        for s in self.steps:
            text = json.dumps(s.body.to_json(), sort_keys=True)
            if text not in bodies:
                bodies[text] = len(table)
                table.append(s.body.to_json())
            steps.append(
                {
                    "name": s.name,
                    "type": s.type,
                    "body": bodies[text],
                    "tactic": tactic_to_json(s.tactic),
                    "inputs": list(s.inputs),
                    "constants": list(s.constants),
                    "outputs": list(s.outputs),
                    "origin": list(s.origin),
                    "cause": s.cause,
                    "precision": [s.requested.value, s.built.value, s.executed.value],
                    "stream": s.stream,
                    **({"lets_next_start": True} if s.lets_next_start else {}),
                }
            )
        return {
            "name": self.name,
            "device": self.device.to_json(),
            "threads": self.threads,
            "tensors": [
                [
                    t.name,
                    type_to_json(t.type),
                    format_to_json(t.format),
                    t.kind,
                    t.root,
                    dim_to_json(t.offset),
                ]
                for t in self.tensors
            ],
            "bodies": table,
            "steps": steps,
            "profiles": [
                {
                    "shapes": {k: [list(x) for x in v] for k, v in p.shapes.items()},
                    "offsets": dict(p.offsets),
                    "arena_bytes": p.arena_bytes,
                    "workspace_bytes": p.workspace_bytes,
                }
                for p in self.profiles
            ],
            "absorbed": dict(self.absorbed),
            "config": dict(self.config),
            "versions": dict(self.versions),
        }


def _range_from_json(value: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    low, opt, high = value
    return tuple(low), tuple(opt), tuple(high)


def _plan_from_records(
    data: Mapping[str, Any], weights: Mapping[str, Array], code: Mapping[str, bytes]
) -> Plan:
    bodies = [Body.from_json(b, operator_named) for b in data["bodies"]]
    return Plan(
        data["name"],
        Fingerprint.from_json(data["device"]),
        data["threads"],
        tuple(
            PlanTensor(
                name,
                type_from_json(type_),
                format_from_json(layout),
                kind,
                root,
                dim_from_json(offset),
            )
            for name, type_, layout, kind, root, offset in data["tensors"]
        ),
        tuple(
            PlanStep(
                s["name"],
                s["type"],
                bodies[s["body"]],
                tactic_from_json(s["tactic"]),
                tuple(s["inputs"]),
                tuple(s["constants"]),
                tuple(s["outputs"]),
                tuple(s["origin"]),
                s["cause"],
                *map(DataType, s["precision"]),
                stream=s["stream"],
                lets_next_start=s.get("lets_next_start", False),
            )
            for s in data["steps"]
        ),
        tuple(
            PlanProfile(
                {k: _range_from_json(v) for k, v in p["shapes"].items()},
                p["offsets"],
                p["arena_bytes"],
                p["workspace_bytes"],
            )
            for p in data["profiles"]
        ),
        weights,
        data["absorbed"],
        data["config"],
        data["versions"],
        code,
    )
