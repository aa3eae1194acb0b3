"""Profiler: times per layer, and how they relate to the end-to-end time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.datatypes import DataType
from workbench.devices import Device
from workbench.plan import PlanStep
from workbench.tactics.protocol import Launch


class Profiler:
    """TensorRT's IProfiler: told each layer's milliseconds. Subclass and override."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """One layer of one execution took ``ms`` milliseconds."""


@dataclass(frozen=True)
class LayerProfile:
    """One layer's times over several executions, in microseconds.

    kernel: the implementation that ran.
    """

    name: str
    type: str
    kernel: str
    tactic: str
    origin: tuple[str, ...]
    requested: DataType
    executed: DataType
    emulated: bool
    median_us: float
    min_us: float
    mean_us: float
    stdev_us: float

    @classmethod
    def of(cls, step: PlanStep, kernel: str, samples_us: Sequence[float]) -> LayerProfile:
        return cls(
            step.name,
            step.type,
            kernel,
            step.tactic.title,
            step.origin,
            step.requested,
            step.executed,
            step.tactic.emulated,
            statistics.median(samples_us),
            min(samples_us),
            statistics.fmean(samples_us),
            statistics.stdev(samples_us) if len(samples_us) > 1 else 0.0,
        )


@dataclass(frozen=True)
class Profile:
    """Layers, and the end-to-end time measured apart, in microseconds.

    The layers' medians and ``residual_us`` sum to ``end_to_end_us``: the residual is launch
    overhead and what neighbouring layers gain from warm caches (it may be negative).
    """

    layers: tuple[LayerProfile, ...]
    end_to_end_us: float
    end_to_end_min_us: float
    iterations: int

    @property
    def residual_us(self) -> float:
        return self.end_to_end_us - sum(x.median_us for x in self.layers)


def profiled(
    whole: Launch,
    steps: Sequence[tuple[PlanStep, str, Launch]],
    device: Device,
    stream: Any,
    iterations: int,
) -> Profile:
    """Time the whole end to end, then each step (with its kernel's name) alone."""
    ends = [device.time_us(whole, 1, stream)[0] for _ in range(iterations)]
    rows: list[list[float]] = [[] for _ in steps]
    for _ in range(iterations):
        for samples, (_, _, launch) in zip(rows, steps, strict=True):
            samples.extend(device.time_us(launch, 1, stream))
    layers = tuple(
        LayerProfile.of(step, kernel, samples)
        for (step, kernel, _), samples in zip(steps, rows, strict=True)
    )
    return Profile(layers, statistics.median(ends), min(ends), iterations)
