"""Taps: values of inner tensors of a run, without any change to the plan.

A tensor of the plan is read from its memory once its layer has run. A tensor inside a fused layer
never exists: the layer's Body is replayed by the reference from the inputs that the engine gave it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.body import Array, Value
from workbench.errors import ExecutionError
from workbench.plan import PlanStep
from workbench.runtime.engine import Engine

Observe = Callable[[PlanStep, Callable[[str], Value]], None]
"""(step that has just run, reads a tensor of the plan): what is called after each step."""


@dataclass(frozen=True, eq=False)
class Tap:
    """The value that a tensor had in a run.

    layer: that made it; empty for an input. replayed: whether the reference computed it inside a
    fused layer, from that layer's real inputs; else it is what the kernel stored.
    """

    name: str
    value: Value
    layer: str
    replayed: bool


@dataclass(frozen=True, eq=False)
class TappedRun:
    """The outputs of a run, and its taps, by name."""

    outputs: Mapping[str, Value]
    taps: Mapping[str, Tap]

    def __getitem__(self, name: str) -> Value:
        """A tapped value."""
        return self.taps[name].value


@dataclass(frozen=True)
class _Place:
    """Where a tensor is: a tensor of the plan, or a value inside a step's Body."""

    step: str
    value: str
    inside: bool


class Taps:
    """What is to be read in one run. Raises ExecutionError for a name that the plan lacks."""

    def __init__(self, engine: Engine, names: Sequence[str]) -> None:
        self.engine = engine
        self._places = {n: _place(engine, n) for n in names}
        self._kept: dict[str, Value | None] = dict.fromkeys(self._overwritten())
        self._found: dict[str, Tap] = {}

    def observe(self, step: PlanStep, read: Callable[[str], Value]) -> None:
        """Take what this step made."""
        here = {n: p for n, p in self._places.items() if p.step == step.name}
        for name in self._kept.keys() & set(step.outputs):
            self._kept[name] = read(name)
        inner: Mapping[str, Value] = {}
        if any(p.inside for p in here.values()):
            kept = self._kept
            inner = _replayed(self.engine, step, lambda n: kept[n] if n in kept else read(n))
        for name, place in here.items():
            value = inner[place.value] if place.inside else read(place.value)
            kept = np.array(value) if isinstance(value, np.ndarray) else value
            self._found[name] = Tap(name, kept, step.name, place.inside)

    def _overwritten(self) -> list[str]:
        """Tensors that are read again after the layer that writes over them has run."""
        replayed = {p.step for p in self._places.values() if p.inside}
        steps = [s for s in self.engine.plan.steps if s.name in replayed]
        over = [(s, s.tactic.overwrites) for s in steps]
        return [s.inputs[k] for s, k in over if k is not None]

    def values(self, inputs: Mapping[str, Value]) -> dict[str, Tap]:
        """Every tap, after the run; of an input, what was given."""
        given = {
            n: Tap(n, inputs[p.value], "", False) for n, p in self._places.items() if not p.step
        }
        return {n: given.get(n) or self._found[n] for n in self._places}


def tensor_names(engine: Engine) -> tuple[str, ...]:
    """Every name that can be tapped, in the order of the plan: inputs, then layer by layer."""
    names = [t.name for t in engine.io_tensors if t.kind == "input"]
    for step in engine.plan.steps:
        made = {v for n in step.body.nodes for v in n.outputs if v} if not step.on_host else set()
        names += [_plain(v) for n in step.body.nodes for v in n.outputs if v in made]
        names += [name.split("@")[0] for name in step.outputs]
    literals = {
        _plain(v)
        for s in engine.plan.steps
        for n in s.body.nodes
        if n.op == "Constant"
        for v in n.outputs
    }
    return tuple(n for n in dict.fromkeys(names) if n not in literals)


def _place(engine: Engine, name: str) -> _Place:
    tensors = {t.name: t for t in engine.plan.tensors}
    if name in tensors and tensors[name].kind == "input":
        return _Place("", name, False)
    for step in engine.plan.steps:
        for output in step.outputs:
            if output == name or output.split("@")[0] == name:
                return _Place(step.name, output, False)
    for step in engine.plan.steps:
        if step.on_host:
            continue
        for node in step.body.nodes:
            for value in node.outputs:
                if name in (value, _plain(value)):
                    return _Place(step.name, value, True)
    known = tensor_names(engine)
    close = ", ".join(difflib.get_close_matches(name, known, 3)) or "see tensor_names(engine)"
    raise ExecutionError(
        f"the plan has no tensor '{name}', not even inside a layer",
        place="tap",
        remedy=f"names near it: {close}; what became a weight was never computed",
    )


def _plain(value: str) -> str:
    """The model's name of a value of a Body: without its layer's name, and without primes."""
    return value.rstrip("'").rpartition("/")[2] if not value.startswith("/") else value.rstrip("'")


def _replayed(engine: Engine, step: PlanStep, read: Callable[[str], Value]) -> Mapping[str, Array]:
    """Every value inside a step's Body, by the typed reference, from the step's real inputs."""
    constants, inputs = iter(step.constants), iter(step.inputs)
    given: dict[str, Array] = {}
    for i in step.body.inputs:
        value = engine.plan.weights[next(constants)] if i.constant else read(next(inputs))
        assert isinstance(value, np.ndarray), "fused layers read tensors"
        given[i.name] = value
    return step.body.evaluate(given, keep=True)
