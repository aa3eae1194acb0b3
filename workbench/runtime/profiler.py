"""Profiler: times per layer, and how they relate to the end-to-end time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.cpu_clock import samples_us
from workbench.datatypes import DataType
from workbench.devices import Device
from workbench.plan import PlanStep
from workbench.tactics.protocol import Launch
from workbench.timing import Timing

PATIENCE_S = 2.0
PAUSE_S = 0.1
"""How long times are taken again while other programs disturb them, and the pause before: a
notebook's page draws the figure of one cell while the next one runs."""
ALONE = 1.5
"""A median of more than this many times the least was not taken alone."""


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
    """Layers, and the end-to-end time measured apart; medians in microseconds.

    The layers' medians and ``residual_us`` sum to ``end_to_end_us``: the residual is launch
    overhead and what neighbouring layers gain from warm caches (it may be negative).
    end_to_end_us: from the first launch to the end of the last, as a context launches them.
    graph: whether that was one CUDA graph. one_by_one_us: the same launches without a graph, on
    one stream, as fast as the host makes them. caller_us: a whole run on host arrays by the host's
    clock, of which copies_us goes to copies to and from the device. None where the plan runs step
    by step.
    noisy: other programs ran meanwhile, and for as long as was waited.
    """

    layers: tuple[LayerProfile, ...]
    end_to_end_us: float
    end_to_end_min_us: float
    iterations: int
    graph: bool = False
    one_by_one_us: float | None = None
    copies_us: float | None = None
    caller_us: float | None = None
    noisy: bool = False

    @property
    def remark(self) -> str:
        """What a reader of the times should know; empty where the machine was quiet."""
        return "noisy: other programs ran meanwhile" if self.noisy else ""

    @property
    def residual_us(self) -> float:
        return self.end_to_end_us - sum(x.median_us for x in self.layers)

    def __str__(self) -> str:
        """One line a layer: name, median, type, tactic; then the residual and the whole."""
        width = max([len("(residual)"), *(len(x.name) for x in self.layers)])
        lines = [
            f"{x.name:<{width}}  {x.median_us:10.1f} µs  {x.executed.info.label:<5}  {x.tactic}"
            for x in self.layers
        ]
        lines.append(f"{'(residual)':<{width}}  {self.residual_us:10.1f} µs")
        how = f"median of {self.iterations}" + (", one CUDA graph" if self.graph else "")
        how += f"; {self.remark}" if self.noisy else ""
        lines.append(f"{'end to end':<{width}}  {self.end_to_end_us:10.1f} µs  {how}")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Profiled:
    """What there is to time of one bound plan.

    whole: the run as a context launches it. steps: each with its kernel's name and its launch.
    run: a whole run on host arrays; copies: its copies alone.
    """

    whole: Launch
    steps: Sequence[tuple[PlanStep, str, Launch]]
    graph: bool
    run: Callable[[], object]
    copies: Callable[[], object]


def profiled(plan: Profiled, device: Device, stream: Any, iterations: int) -> Profile:
    """Time the whole, each step, and what surrounds them, in turns: noise then meets all alike.

    Where other programs disturb it, it is timed again for PATIENCE_S, and the quietest counts.
    """
    until = time.monotonic() + PATIENCE_S
    found = _timed(plan, device, stream, iterations)
    while found.noisy and time.monotonic() < until:
        time.sleep(PAUSE_S)
        again = _timed(plan, device, stream, iterations)
        found = min(found, again, key=lambda p: (p.noisy, p.end_to_end_us))
    return found


def _timed(plan: Profiled, device: Device, stream: Any, iterations: int) -> Profile:
    launches = [launch for _, _, launch in plan.steps]

    def one_by_one() -> None:
        for launch in launches:
            launch()

    rounds: list[tuple[float, float, float, float]] = []
    steps: list[list[float]] = []
    for _ in range(iterations):
        whole = device.time_us(plan.whole, 1, stream)[0]
        steps.append(device.steps_us(launches, stream))
        row = device.time_us(one_by_one, 1, stream)[0]
        rounds.append((whole, row, samples_us(plan.copies, 1)[0], samples_us(plan.run, 1)[0]))
    layers = tuple(
        LayerProfile.of(step, kernel, [s[k] for s in steps])
        for k, (step, kernel, _) in enumerate(plan.steps)
    )
    whole, row, copies, run = (statistics.median(r[k] for r in rounds) for k in range(4))
    least = min(r[0] for r in rounds)
    noisy = any(_disturbed([r[k] for r in rounds]) for k in (0, 3))
    return Profile(layers, whole, least, iterations, plan.graph, row, copies, run, noisy)


def _disturbed(samples: list[float]) -> bool:
    timing = Timing.of(samples)
    return timing.noisy or timing.median_us > ALONE * timing.min_us
