"""The plan: an optimized engine as data, and its file format (safetensors).

What the runtime needs and nothing else: no clock, no path, no host name, no Python source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.body import Array, Body, TensorType
from workbench.datatypes import DataType
from workbench.devices import Fingerprint
from workbench.formats import Format
from workbench.tactics.protocol import Tactic


@dataclass(frozen=True)
class PlanTensor:
    """A tensor of the running engine. kind: input, output, or inner.

    type: element type and symbolic shape. format: how it lies in memory. One network tensor in
    two layouts is two PlanTensors.
    """

    name: str
    type: TensorType
    format: Format
    kind: str


@dataclass(frozen=True)
class PlanStep:
    """One launch: a Body, the tactic that runs it, and what it reads and writes.

    inputs: PlanTensors of the Body's dynamic inputs, in order. constants: weight names of its
    constant inputs, in order. outputs: PlanTensors of its outputs.
    requested, built, executed: the precision contract. cause: why an inserted step exists.
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
    """A built engine. ``weights`` are the linear execution weights, by name."""

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
