"""One GPU source's tactics: compiled side by side, each held against the selection's check."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import wait
from typing import Any

from workbench.body import Array, Body
from workbench.config import BuilderConfig
from workbench.devices import Device
from workbench.records import Refusal
from workbench.sampling import sample_inputs
from workbench.selection import Candidate
from workbench.selection.candidates import Workshop
from workbench.selection.layer_problem import LayerProblem
from workbench.timing import TimingCache


def constants_of(body: Body) -> dict[str, Array]:
    """Sampled weights."""
    values = sample_inputs(body, seed=0)
    return {i.name: values[i.name] for i in body.inputs if i.constant}


def shop_of(source: Any, device: Device, config: BuilderConfig) -> Workshop:
    """A workshop in which this source alone offers tactics."""
    config.verify = "all"
    made = Workshop(device, config, TimingCache(device.fingerprint))
    made.sources, made.missing = (source,), ()
    return made


def compile_ahead(shop: Workshop, bodies: Iterable[Body], most: int | None = None) -> None:
    """Compile the first ``most`` tactics of each Body side by side, and wait."""
    (source,) = shop.sources
    started: list[Any] = []
    for body in bodies:
        problem = shop.problem(body, constants_of(body))
        offered = [t for t in source.candidates(problem) if not isinstance(t, Refusal)]
        started += source.precompile(problem, offered[:most])  # pyright: ignore
    wait(started)


def candidates_of(shop: Workshop, name: str, body: Body) -> tuple[Candidate, ...]:
    """What became of each tactic of a Body."""
    layer = LayerProblem(name, body, (body,), constants_of(body), body.compute_type)
    return shop.candidates(layer)
