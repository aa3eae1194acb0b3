"""Which steps of a plan let the next one start before they end: those that were measured to gain.

Neighbours of one kind (the same two kernels, wherever they come) are decided together, each by
whole runs with and without, in turns. See ``gpu_launch`` for what is gained and risked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from workbench.body import Array, HostType
from workbench.gpu_launch import KernelLaunch
from workbench.plan import Plan
from workbench.runtime.binding import Binder
from workbench.runtime.engine import Engine
from workbench.runtime.launching import Bound, Launcher, on_one_stream
from workbench.runtime.memory import ContextMemory
from workbench.tactics.native import flat
from workbench.tactics.protocol import tactic_to_json
from workbench.timing import Timing

GAIN = 0.002
"""Part of a run's time that a choice must save to be kept."""
COMPARED_US = 15_000.0
"""What is timed for one choice: as many runs as fit, within bounds."""
LEAST_RUNS, MOST_RUNS = 5, 25
Kind = tuple[str, str]


@dataclass(frozen=True)
class EarlyStarts:
    """What was decided. steps: by number, those that let the next one start; there may be none.

    timing: of a whole run with them; None where nothing was timed. before_us: without; 0 where it
    was not measured in this build. refusal: why those that gained were not taken; empty otherwise.
    """

    steps: tuple[int, ...] = ()
    timing: Timing | None = None
    before_us: float = 0.0
    refusal: str = ""

    def written(self, plan: Plan) -> Plan:
        """The plan, whose steps say so."""
        steps = [replace(s, lets_next_start=k in self.steps) for k, s in enumerate(plan.steps)]
        return replace(plan, steps=tuple(steps))

    def __str__(self) -> str:
        if self.refusal:
            return f"none lets the next one start early: {self.refusal}"
        if not self.steps:
            return ""
        gain = f": {self.before_us:.0f} → {self.timing.median_us:.0f} µs" if self.timing else ""
        return f"{len(self.steps)} steps let the next one start early" + gain * bool(self.before_us)


def early_starts(engine: Engine) -> EarlyStarts:
    """Decide by runs at the first profile's opt sizes; see ``decidable``."""
    return _Trials(engine).decide()


def decidable(engine: Engine) -> bool:
    """Whether whole runs can be timed: of steps on one stream, at sizes known before."""
    plan = engine.plan
    return bool(plan.steps) and not plan.num_aux_streams and not plan.is_late


def kernels_of(engine: Engine) -> list[str]:
    """What each step runs at the first profile's opt sizes: all that decides how long it takes."""
    plan = engine.plan
    sizes = engine.bindings_of({k: v[1] for k, v in plan.profiles[0].shapes.items()})
    return [
        json.dumps([tactic_to_json(s.tactic), s.body.substitute(sizes).signature], sort_keys=True)
        for s in plan.steps
    ]


class _Trials:
    """Runs of an engine at one set of sizes, on random inputs. kinds: of neighbours, by step."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.device = engine, engine.device
        self.memory = ContextMemory(engine, engine.plan.profiles[0])
        self.launcher = Launcher(engine)
        inputs = dict(drawn_inputs(engine))
        self.memory.put(inputs, self.launcher.own)
        binder = Binder(engine, self.memory, self.launcher)
        self.bound: Bound = binder.present({n: a.shape for n, a in inputs.items()})
        self.kinds: dict[int, Kind] = dict(_neighbours(self.bound, kernels_of(engine)))

    def decide(self) -> EarlyStarts:
        """None, all, or what pays of them; the results stay the same to the bit."""
        none: frozenset[Kind] = frozenset()
        plain = self.graph(none)
        outputs = self.outputs(plain)
        best, graph = none, plain
        counts = Counter(self.kinds.values())
        choices = [set(counts), *({kind} for kind, _ in counts.most_common())] if counts else []
        for kinds in choices:
            other = best ^ kinds
            trial = self.graph(other)
            with_it, without = self.compared(trial, graph)
            if with_it.median_us < (1 - GAIN) * without.median_us:
                best, graph = other, trial
        timing, before = self.compared(graph, plain, times=3)
        gains = timing.median_us < (1 - GAIN) * before.median_us
        if not best or not gains:
            return EarlyStarts((), before, before.median_us)
        if outputs != self.outputs(graph):
            return EarlyStarts((), before, before.median_us, "results were others to the bit")
        steps = tuple(k for k, kind in self.kinds.items() if kind in best)
        return EarlyStarts(steps, timing, before.median_us)

    def graph(self, kinds: frozenset[Kind]) -> Any:
        """The run as one CUDA graph where these kinds let the next one start."""
        lets = [self.kinds.get(k) in kinds for k in range(len(self.bound.launches))]
        return self.device.capture(on_one_stream(self.bound.launches, lets), self.launcher.own)

    def compared(self, a: Any, b: Any, *, times: int = 1) -> tuple[Timing, Timing]:
        """Timings of two graphs, run in turns."""
        first = self.timed([a, b, a, b])
        runs = COMPARED_US / (first[2] + first[3])
        runs = times * max(LEAST_RUNS, min(MOST_RUNS, int(runs)))
        samples = self.timed([a, b] * runs)
        return Timing.of(samples[::2]), Timing.of(samples[1::2])

    def timed(self, graphs: Sequence[Any]) -> list[float]:
        """Microseconds of each run."""
        own, order = self.launcher.own, iter(graphs)
        return self.device.time_us(lambda: next(order).launch(own), len(graphs), own)

    def outputs(self, graph: Any) -> list[bytes]:
        """Every output's bytes after a run."""
        graph.launch(self.launcher.own)
        self.device.synchronize(self.launcher.own)
        found: list[bytes] = []
        for t in self.engine.io_tensors:
            if t.kind == "output":
                shape = t.format.physical_shape(self.bound.shapes[t.name])
                slot = self.bound.slots[t.name]
                stored = self.device.download(slot, t.type.dtype, shape, self.launcher.own)
                found.append(stored.tobytes())
        return found


def drawn_inputs(engine: Engine) -> Iterator[tuple[str, Array]]:
    """The inputs' names, with something to run on at the first profile's opt sizes."""
    random = np.random.default_rng(0)
    for t in engine.io_tensors:
        if t.kind == "input" and not isinstance(t.type, HostType):
            shape = engine.get_tensor_profile_shape(t.name, 0)[1]
            drawn = random.standard_normal(shape) if t.type.dtype.is_float else np.zeros(shape)
            yield t.name, drawn.astype(t.type.dtype.numpy)


def _neighbours(bound: Bound, names: Sequence[str]) -> Iterator[tuple[int, Kind]]:
    """Steps whose last kernel and the next step's first are both ours and wait, with their kind."""
    kernels = [(k, flat((launch,))) for k, launch in enumerate(bound.launches)]
    busy = [(k, ones) for k, ones in kernels if ones]
    for (k, own), (n, following) in pairwise(busy):
        ends = (own[-1], following[0])
        if all(isinstance(e, KernelLaunch) and e.kernel.waits for e in ends):
            yield k, (names[k], names[n])
