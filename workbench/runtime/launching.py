"""Bound steps and how they are launched: as one CUDA graph, one by one, or with NVTX ranges."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workbench.devices import Buffer
from workbench.errors import ExecutionError
from workbench.gpu_launch import KernelLaunch, overlapped
from workbench.plan import PlanStep
from workbench.runtime.engine import Engine
from workbench.runtime.profiler import Profiler
from workbench.runtime.streams import across_streams
from workbench.streams import Schedule
from workbench.tactics.native import flat
from workbench.tactics.placing import placed
from workbench.tactics.protocol import Launch


class ProfilingVerbosity(enum.Enum):
    """What NVTX ranges say of a layer, named as TensorRT names it.

    NONE: there are no ranges. LAYER_NAMES_ONLY: its name. DETAILED: also tactic and tensors.
    """

    NONE = "NONE"
    LAYER_NAMES_ONLY = "LAYER_NAMES_ONLY"
    DETAILED = "DETAILED"


@dataclass(frozen=True, eq=False)
class Bound:
    """Every launch, bound to memory at one set of sizes: the context's, but for the caller's.

    launches: a step's each. run: all of them in order, with what streams wait for. slots: the
    context's own memory of each input and output. capturable: whether a CUDA graph can record them.
    """

    launches: tuple[Launch, ...]
    run: tuple[Launch, ...]
    bindings: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    slots: Mapping[str, Buffer]
    kernels: tuple[str, ...]
    capturable: bool


def on_one_stream(launches: Sequence[Launch], lets: Sequence[bool]) -> tuple[Launch, ...]:
    """The launches in order, each as early as it may. lets: which let the next one start."""
    for launch, let in zip(launches, lets, strict=True):
        for one in flat((launch,)):
            if isinstance(one, KernelLaunch):
                one.lets_next_start = let
    return tuple(overlapped(flat(launches)))


class Launcher:
    """The streams of one context, and the graphs recorded on them.

    streams: the context's own, then the auxiliary ones. use_graph: whether runs are one CUDA graph
    where they can. nvtx_verbosity: other than NONE, steps are launched one by one in NVTX ranges: a
    graph's launches have none.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.device = engine.device
        count = engine.num_aux_streams + 1
        self.streams: tuple[Any, ...] = tuple(self.device.stream() for _ in range(count))
        self.use_graph = self.device.kind == "gpu"
        self.nvtx_verbosity = ProfilingVerbosity.NONE
        self._graphs: dict[Bound, Any] = {}

    @property
    def own(self) -> Any:
        """The context's own stream."""
        return self.streams[0]

    def set_aux_streams(self, given: Sequence[Any]) -> None:
        """The caller's streams for branches. Raises ExecutionError for another number of them."""
        wanted = len(self.streams) - 1
        if len(given) != wanted:
            raise ExecutionError(
                f"{len(given)} auxiliary streams are given, the plan uses {wanted}",
                place=self.engine.name,
                remedy=f"give {wanted}: engine.num_aux_streams says how many",
            )
        self.streams = (self.own, *map(self.device.as_stream, given))
        self.forget()

    def set_nvtx_verbosity(self, value: ProfilingVerbosity) -> None:
        """What ranges say from now on. Raises DeviceError where there are none."""
        wanted = ProfilingVerbosity(value)
        if wanted is not ProfilingVerbosity.NONE:
            self.device.annotated(lambda: None, "nvtx")
        self.nvtx_verbosity = wanted

    @cached_property
    def _order(self) -> Schedule:
        return self.engine.plan.schedule()

    def in_order(self, launches: tuple[Launch, ...]) -> tuple[Launch, ...]:
        """The launches, each after what it needs from other streams."""
        if len(self.streams) == 1:
            lets = [s.lets_next_start for s in self.engine.plan.steps]
            return self.placed(on_one_stream(launches, lets))
        return across_streams(launches, self._order, self.streams, self.device)

    def placed(self, launches: Sequence[Launch]) -> tuple[Launch, ...]:
        """The launches, each thread of a CPU's team on a processor of its own where that can be."""
        threads = self.engine.plan.threads if self.device.kind == "cpu" else 1
        return placed(launches, threads)

    def forget(self, bound: Bound | None = None) -> None:
        """Free the graph of some launches, or all."""
        if bound is None:
            self._graphs.clear()
        else:
            self._graphs.pop(bound, None)

    def as_graph(self, bound: Bound) -> bool:
        """Whether ``launch`` runs these as one CUDA graph."""
        plain = self.nvtx_verbosity is ProfilingVerbosity.NONE
        return self.use_graph and plain and bound.capturable

    def launch(self, bound: Bound, stream: Any = None, profiler: Profiler | None = None) -> None:
        """Run every launch, after what is on ``stream``, and before what comes to it later.

        A profiler is told the time of each, which then runs alone.
        """
        own = self.own if stream is None else stream
        if profiler is not None:
            self.device.wait(self.own, own)
            self.device.synchronize(self.own)
            self.each(bound, lambda s, t: profiler.report_layer_time(s.name, t * 1e3))
            return
        if self.as_graph(bound):
            self.graph(bound, own).launch(own)
            return
        self.device.wait(self.own, own)
        if self.nvtx_verbosity is ProfilingVerbosity.NONE:
            for launch in bound.run:
                launch()
        else:
            self._annotated(bound)
        self.device.wait(own, self.own)

    def graph(self, bound: Bound, stream: Any) -> Any:
        """The launches as one graph, recorded once per set of sizes.

        The first run writes to the caller's memory: it waits for what is on the caller's stream.
        """
        if bound not in self._graphs:
            self.device.wait(self.own, stream)
            for launch in bound.run:
                launch()
            self.device.synchronize(self.own)
            self._graphs[bound] = self.device.capture(bound.run, self.own)
        return self._graphs[bound]

    def _annotated(self, bound: Bound) -> None:
        """Each launch in a range of its own; on the device, branches overlap as they always do."""
        steps = self.engine.plan.steps
        named = tuple(
            self.device.annotated(launch, self._title(step))
            for step, launch in zip(steps, bound.launches, strict=True)
        )
        for launch in self.in_order(named):
            launch()

    def _title(self, step: PlanStep) -> str:
        if self.nvtx_verbosity is ProfilingVerbosity.LAYER_NAMES_ONLY:
            return step.name
        return f"{step.name} [{step.tactic.title}] {', '.join(step.inputs)} -> " + ", ".join(
            step.outputs
        )

    def each(self, bound: Bound, after: Callable[[PlanStep, float], object]) -> None:
        """Every launch by itself; ``after`` it has ended hears its step and seconds."""
        for step, launch in zip(self.engine.plan.steps, bound.launches, strict=True):
            start = time.perf_counter()
            launch()
            self.device.synchronize(self.streams[step.stream])
            after(step, time.perf_counter() - start)
