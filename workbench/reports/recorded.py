"""A build's records as JSON values and back: what was tuned, profiled, and could be reached.

What could be prepared again is not kept: a recorded tactic shows what it was, and runs nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from workbench.body import type_from_json, type_to_json
from workbench.datatypes import DataType
from workbench.devices import Fingerprint
from workbench.lab.ceilings import Ceilings
from workbench.records import Refusal
from workbench.reports.roofline import LayerWork
from workbench.runtime import Profile
from workbench.runtime.profiler import LayerProfile
from workbench.selection import Candidate, LayerChoice, Tuned
from workbench.selection.choice import ReformatChoice
from workbench.tactics.protocol import Tactic, format_from_json, format_to_json
from workbench.timing import Timing

DIGITS = 4
"""Decimals of a microsecond that are kept: finer than any clock."""
SHOWN = ("threads", "math")
"""Parameters of a tactic that tables name; the others are for those who prepare it."""


class _Store:
    """Values that occur again and again, each kept once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        key = json.dumps(value)
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


def tuned_to_json(tuned: Tuned) -> dict[str, Any]:
    """Every layer's candidates and choice; layers of one kind share their candidates."""
    candidates, menus = _Store(), _Store()
    layers = [
        [
            c.layer,
            c.type,
            list(c.operators),
            list(c.origin),
            c.requested.value,
            c.built.value,
            menus.place([candidates.place(_candidate(x)) for x in c.candidates]),
            c.chosen,
            c.runner_up,
            c.composed,
            c.distinguishable,
        ]
        for c in tuned.layers
    ]
    reformats = [
        [
            r.tensor,
            type_to_json(r.type),
            format_to_json(r.source),
            format_to_json(r.target),
            candidates.place(_candidate(r.winner)),
            list(r.readers),
        ]
        for r in tuned.reformats
    ]
    return {
        "candidates": candidates.values,
        "menus": menus.values,
        "layers": layers,
        "reformats": reformats,
        "total_us": tuned.total_us,
        "exact": tuned.exact,
        "lower_bound_us": tuned.lower_bound_us,
        "single_format_us": dict(tuned.single_format_us),
        "timed": tuned.timed,
        "checked": tuned.checked,
        "cached": tuned.cached,
        "sources": list(tuned.sources),
    }


def tuned_from_json(data: dict[str, Any]) -> Tuned:
    """What ``tuned_to_json`` wrote. Raises KeyError, TypeError or ValueError on something else."""
    candidates = [_candidate_of(c) for c in data["candidates"]]
    menus = [tuple(candidates[i] for i in menu) for menu in data["menus"]]
    layers = tuple(
        LayerChoice(
            name,
            type_,
            tuple(operators),
            tuple(origin),
            DataType(requested),
            DataType(built),
            menus[menu],
            chosen,
            runner_up,
            composed,
            distinguishable,
        )
        for name, type_, operators, origin, requested, built, menu, chosen, runner_up, composed, (
            distinguishable
        ) in data["layers"]
    )
    reformats = tuple(
        ReformatChoice(
            tensor,
            type_from_json(type_),
            format_from_json(source),
            format_from_json(target),
            candidates[winner],
            tuple(readers),
        )
        for tensor, type_, source, target, winner, readers in data["reformats"]
    )
    return Tuned(
        layers,
        reformats,
        data["total_us"],
        data["exact"],
        data["lower_bound_us"],
        data["single_format_us"],
        data["timed"],
        data["checked"],
        data["cached"],
        tuple(data["sources"]),
    )


def _candidate(c: Candidate) -> list[Any]:
    return [
        c.source,
        c.title,
        _tactic(c.tactic),
        _timing(c.timing),
        None if c.worst is None else float(f"{c.worst:.4g}"),
        c.kernel,
        c.workspace_bytes,
        [c.refusal.reason, c.refusal.place, c.refusal.remedy, c.refusal.code]
        if c.refusal
        else None,
        c.cached,
        None if c.error is None else float(f"{c.error:.4g}"),
    ]


def _candidate_of(data: Sequence[Any]) -> Candidate:
    source, title, tactic, timing, worst, kernel, workspace, refusal, cached, *later = data
    (error,) = later or (None,)  # which the first recordings have not
    return Candidate(
        source,
        title,
        _tactic_of(source, tactic) if tactic else None,
        Timing(*timing) if timing else None,
        worst,
        kernel,
        workspace,
        Refusal(*refusal) if refusal else None,
        cached,
        error,
    )


def _tactic(tactic: Tactic | None) -> list[Any] | None:
    if tactic is None:
        return None
    return [
        tactic.name,
        [format_to_json(f) for f in tactic.inputs],
        [format_to_json(f) for f in tactic.outputs],
        tactic.precision.value,
        [[k, v] for k, v in tactic.parameters if k in SHOWN],
        tactic.emulated,
        tactic.deterministic,
    ]


def _tactic_of(source: str, data: Sequence[Any]) -> Tactic:
    name, inputs, outputs, precision, parameters, emulated, deterministic = data
    return Tactic(
        source,
        name,
        tuple(format_from_json(f) for f in inputs),
        tuple(format_from_json(f) for f in outputs),
        DataType(precision),
        tuple((k, v) for k, v in parameters),
        emulated=emulated,
        deterministic=deterministic,
    )


def _timing(t: Timing | None) -> list[Any] | None:
    if t is None:
        return None
    times = (round(us, DIGITS) for us in (t.median_us, t.min_us, t.spread_us))
    return [*times, t.samples, t.date, t.noisy, t.cut_off]


def profile_to_json(profile: Profile) -> dict[str, Any]:
    """A run's times, layer by layer and whole."""
    layers = [
        {
            **asdict(x),
            "requested": x.requested.value,
            "executed": x.executed.value,
            "origin": list(x.origin),
        }
        for x in profile.layers
    ]
    whole = {k: v for k, v in asdict(profile).items() if k != "layers"}
    return {**whole, "layers": layers}


def profile_from_json(data: dict[str, Any]) -> Profile:
    """What ``profile_to_json`` wrote."""
    whole: dict[str, Any] = {**data, "layers": tuple(map(_layer_of, data["layers"]))}
    return Profile(**whole)


def _layer_of(data: dict[str, Any]) -> LayerProfile:
    fields: dict[str, Any] = {
        **data,
        "origin": tuple(data["origin"]),
        "requested": DataType(data["requested"]),
        "executed": DataType(data["executed"]),
    }
    return LayerProfile(**fields)


def work_to_json(work: Sequence[LayerWork]) -> list[list[Any]]:
    """Each layer's operations and bytes."""
    return [[x.layer, x.type, x.executed.value, x.flops, x.moved_bytes] for x in work]


def work_from_json(data: Sequence[Sequence[Any]]) -> tuple[LayerWork, ...]:
    """What ``work_to_json`` wrote."""
    return tuple(
        LayerWork(layer, type_, DataType(executed), flops, moved)
        for layer, type_, executed, flops, moved in data
    )


def ceilings_to_json(ceilings: Ceilings) -> dict[str, Any]:
    """What the device can reach."""
    return {
        "device": ceilings.device.to_json(),
        "threads": ceilings.threads,
        "bytes_per_s": ceilings.bytes_per_s,
        "flops_per_s": {k.value: v for k, v in ceilings.flops_per_s.items()},
        "kernels": dict(ceilings.kernels),
    }


def ceilings_from_json(data: dict[str, Any]) -> Ceilings:
    """What ``ceilings_to_json`` wrote."""
    return Ceilings(
        Fingerprint.from_json(data["device"]),
        data["threads"],
        data["bytes_per_s"],
        {DataType(k): v for k, v in data["flops_per_s"].items()},
        data["kernels"],
    )
