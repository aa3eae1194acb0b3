"""COMPOSED: a fused Body run by tactics of its parts, one after the other.

``split`` cuts the Body, the selection chooses a tactic for each part, and ``composed_tactic``
writes the choice down. The schedule names nodes and values by their position in the Body, so that
it holds for every Body of the same signature and at every size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workbench.body import Array, Body, TensorType
from workbench.devices import Buffer
from workbench.formats import Format
from workbench.records import Refusal
from workbench.tactics.launch import reformat_body, stored_bytes
from workbench.tactics.native import in_order
from workbench.tactics.parts import Part, part_of, split
from workbench.tactics.protocol import (
    TF32,
    Call,
    Launch,
    Problem,
    Tactic,
    TacticSource,
    format_from_json,
    format_to_json,
    tactic_from_json,
    tactic_to_json,
)
from workbench.tactics.workspace import Lease, lay_out, over_limit

__all__ = [
    "COMPOSED",
    "ComposedSource",
    "ComposedStep",
    "Part",
    "composed_tactic",
    "first_reformat",
    "part_of",
    "split",
    "steps_of",
]

REVISION = "1"
"""Changes when the schedule's form or meaning changes."""

Reformat = Callable[[TensorType, Format, Format], Tactic | Refusal]
Slot = tuple[int, Format]
"""A value of the Body, by position, in a layout."""


# -- schedule -----------------------------------------------------------------------------
@dataclass(frozen=True)
class ComposedStep:
    """One inner launch. nodes: the part's nodes in the Body; empty for a reformat.

    reads, writes: the values of its dynamic inputs and of its outputs, in the tactic's layouts.
    """

    nodes: tuple[int, ...]
    tactic: Tactic
    reads: tuple[Slot, ...]
    writes: tuple[Slot, ...]


def composed_tactic(
    body: Body,
    parts: Sequence[Part],
    choices: Sequence[Tactic],
    *,
    reformat: Reformat | None = None,
    inputs: Sequence[Format] | None = None,
    outputs: Sequence[Format] | None = None,
) -> Tactic | Refusal:
    """The tactic that runs ``body`` by one chosen tactic a part, with reformats where they differ.

    reformat: how to rewrite a tensor; by default the first source that can. inputs, outputs:
    layouts at the boundary; by default those in which the parts first read and write them. Refuses
    where an output is an input, and where no reformat is found.
    """
    writer = _Writer(body, reformat or first_reformat)
    names = [i.name for i in body.dynamic_inputs]
    if len(set(body.outputs)) != len(body.outputs) or set(body.outputs) & set(names):
        return Refusal("an output is an input, or named twice", code="passed_through")
    for k, name in enumerate(names):
        writer.available[name] = [inputs[k]] if inputs else []
    for part, tactic in zip(parts, choices, strict=True):
        refusal = writer.run(part, tactic)
        if refusal is not None:
            return refusal
    given: list[Format] = []
    for k, name in enumerate(body.outputs):
        refusal = writer.want(name, outputs[k]) if outputs else None
        if refusal is not None:
            return refusal
        given.append(outputs[k] if outputs else writer.available[name][0])
    read = tuple(writer.available[n][0] for n in names if writer.available[n])
    if len(read) != len(names):
        return Refusal("an input is read by no part", code="unread_input")
    anchor = next((c for p, c in zip(parts, choices, strict=True) if body.anchor in p.nodes), None)
    precision = body.compute_type if anchor is None else anchor.precision
    schedule = json.dumps([_step_to_json(s) for s in writer.steps], separators=(",", ":"))
    return Tactic(
        "COMPOSED",
        "composed",
        read,
        tuple(given),
        precision,
        parameters=(("schedule", schedule), *((TF32,) if any(c.tf32 for c in choices) else ())),
        version=REVISION,
        emulated=precision is not body.compute_type or any(c.emulated for c in choices),
        deterministic=all(s.tactic.deterministic for s in writer.steps),
    )


def steps_of(tactic: Tactic) -> tuple[ComposedStep, ...]:
    """The inner schedule of a COMPOSED tactic, in order."""
    return tuple(_step_from_json(s) for s in json.loads(tactic.parameter("schedule")))


def first_reformat(type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
    """The reformat of the first CPU source that has one."""
    from workbench.tactics import sources_for

    refusals: list[Refusal] = []
    for s in sources_for("cpu"):
        offer = s.reformat(type_, source, target)
        if isinstance(offer, Tactic):
            return offer
        refusals.append(offer)
    return Refusal("; ".join(map(str, refusals)), code="no_reformat")


class _Writer:
    """Collects steps; ``available`` lists the layouts in which each value lies so far."""

    def __init__(self, body: Body, reformat: Reformat) -> None:
        self.body, self.reformat = body, reformat
        self.available: dict[str, list[Format]] = {}
        self.steps: list[ComposedStep] = []
        self._index = {v: k for k, v in enumerate(value_names(body))}

    def run(self, part: Part, tactic: Tactic) -> Refusal | None:
        """One more part, after what it reads is in its layouts."""
        reads = [i.name for i in part.body.dynamic_inputs]
        for name, layout in zip(reads, tactic.inputs, strict=True):
            if (refusal := self.want(name, layout)) is not None:
                return refusal
        for name, layout in zip(part.body.outputs, tactic.outputs, strict=True):
            self.available[name] = [layout]
        self.steps.append(
            ComposedStep(
                part.nodes,
                tactic,
                self._slots(reads, tactic.inputs),
                self._slots(part.body.outputs, tactic.outputs),
            )
        )
        return None

    def want(self, name: str, layout: Format) -> Refusal | None:
        """Make a value available in a layout, by a reformat if it is not."""
        have = self.available[name]
        if not have:
            have.append(layout)
        if layout in have:
            return None
        made = self.reformat(self.body.types[name], have[0], layout)
        if isinstance(made, Refusal):
            return made
        self.steps.append(
            ComposedStep((), made, self._slots([name], have[:1]), self._slots([name], [layout]))
        )
        have.append(layout)
        return None

    def _slots(self, names: Sequence[str], layouts: Sequence[Format]) -> tuple[Slot, ...]:
        return tuple((self._index[n], f) for n, f in zip(names, layouts, strict=True))


def value_names(body: Body) -> tuple[str, ...]:
    """Every value of a Body in its order: inputs, then what each node writes."""
    return (*(i.name for i in body.inputs), *(o for n in body.nodes for o in n.outputs if o))


def _step_to_json(step: ComposedStep) -> dict[str, Any]:
    return {
        "nodes": step.nodes,
        "tactic": tactic_to_json(step.tactic),
        "reads": [[k, format_to_json(f)] for k, f in step.reads],
        "writes": [[k, format_to_json(f)] for k, f in step.writes],
    }


def _step_from_json(data: Mapping[str, Any]) -> ComposedStep:
    return ComposedStep(
        tuple(data["nodes"]),
        tactic_from_json(data["tactic"]),
        tuple((k, format_from_json(f)) for k, f in data["reads"]),
        tuple((k, format_from_json(f)) for k, f in data["writes"]),
    )


# -- source -------------------------------------------------------------------------------
class ComposedSource:
    """Prepares composed tactics; it offers none of its own (see ``composed_tactic``)."""

    name = "COMPOSED"
    device_kind = "any"

    def unavailable(self) -> Refusal | None:
        return None

    @property
    def version(self) -> str:
        return REVISION

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        return (Refusal("the selection composes its tactics", code="composed"),)

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        return Refusal("it has no kernels of its own", code="composed")

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        """Prepare every inner tactic and lay out the values between them."""
        body, names = problem.body, value_names(problem.body)
        steps = steps_of(tactic)
        calls: list[Call] = []
        for k, step in enumerate(steps):
            call = _prepare_step(step, replace(problem, prepacked=_own(problem, k)), names)
            if isinstance(call, Refusal):
                return call
            calls.append(call)
        given: dict[Slot, tuple[str, int]] = {}
        position = {v: k for k, v in enumerate(names)}
        for k, (i, f) in enumerate(zip(body.dynamic_inputs, tactic.inputs, strict=True)):
            given[position[i.name], f] = ("input", k)
        for k, (o, f) in enumerate(zip(body.outputs, tactic.outputs, strict=True)):
            given[position[o], f] = ("output", k)
        types = {k: body.types[v] for v, k in position.items()}
        layout = _Layout(steps, calls, given, types)
        hungry = over_limit(layout.nbytes, problem.workspace_limit)
        if hungry is not None:
            return hungry
        return Call(
            f"composed({'; '.join(c.kernel for c in calls)})",
            layout.bind,
            layout.nbytes,
            all(c.capturable for c in calls),
            {f"{k}.{n}": v for k, c in enumerate(calls) for n, v in c.packed.items()},
            {key: code for c in calls for key, code in c.code.items()},
            prepacked={f"{k}.{n}": v for k, c in enumerate(calls) for n, v in c.prepacked.items()},
        )


def _own(problem: Problem, index: int) -> dict[str, Array]:
    """What the plan brings for one of the inner calls."""
    mark = f"{index}."
    return {n.removeprefix(mark): v for n, v in problem.prepacked.items() if n.startswith(mark)}


def _prepare_step(step: ComposedStep, problem: Problem, names: Sequence[str]) -> Call | Refusal:
    from workbench.tactics import source_named

    body = (
        part_of(problem.body, step.nodes).body
        if step.nodes
        else reformat_body(problem.body.types[names[step.reads[0][0]]])
    )
    constants: dict[str, Array] = {
        i.name: problem.constants[i.name] for i in body.inputs if i.constant
    }
    inner = replace(problem, body=body, constants=constants)
    source: TacticSource = source_named(step.tactic.source)
    return source.prepare(step.tactic, inner)


class _Layout:
    """Where every inner value lies in the workspace, and each call's own workspace."""

    def __init__(
        self,
        steps: Sequence[ComposedStep],
        calls: Sequence[Call],
        given: Mapping[Slot, tuple[str, int]],
        types: Mapping[int, TensorType],
    ) -> None:
        self.steps, self.calls, self.given = steps, calls, given
        spans: dict[Slot, list[int]] = {}
        for k, s in enumerate(steps):
            for slot in (*s.reads, *s.writes):
                if slot not in given:
                    spans.setdefault(slot, [k, k])[1] = k
        self.sizes = {slot: max(1, stored_bytes(types[slot[0]], slot[1])) for slot in spans}
        self.keys = {slot: f"{slot[0]} {slot[1]}" for slot in spans}
        leases = [Lease(self.keys[s], self.sizes[s], a, b) for s, (a, b) in spans.items()]
        leases += [
            Lease(f"workspace {k}", c.workspace_bytes, k, k)
            for k, c in enumerate(calls)
            if c.workspace_bytes
        ]
        self.offsets, self.nbytes = lay_out(leases)

    def bind(
        self,
        inputs: Sequence[Buffer],
        outputs: Sequence[Buffer],
        workspace: Buffer | None,
        stream: Any,
    ) -> Launch:
        """Bind every inner call to its slices."""

        def inner(key: str, nbytes: int) -> Buffer:
            assert workspace is not None
            return workspace.slice(self.offsets[key], nbytes)

        def buffer(slot: Slot) -> Buffer:
            if slot in self.given:
                kind, k = self.given[slot]
                return inputs[k] if kind == "input" else outputs[k]
            return inner(self.keys[slot], self.sizes[slot])

        launches = [
            c.bind(
                [buffer(v) for v in s.reads],
                [buffer(v) for v in s.writes],
                inner(f"workspace {k}", c.workspace_bytes) if c.workspace_bytes else None,
                stream,
            )
            for k, (s, c) in enumerate(zip(self.steps, self.calls, strict=True))
        ]

        return in_order(launches)


COMPOSED = ComposedSource()
