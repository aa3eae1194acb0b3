"""How near each layer came to what the device can reach: its work, its time, its ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import pandas as pd

from workbench.body import Body, HostType, TensorType
from workbench.datatypes import DataType
from workbench.lab.ceilings import Ceilings
from workbench.plan import Plan
from workbench.runtime import Profile


@dataclass(frozen=True)
class LayerWork:
    """What a layer has to do at one set of sizes, however it does it.

    flops: operations. moved_bytes: its operands and results, each once.
    """

    layer: str
    type: str
    executed: DataType
    flops: int
    moved_bytes: int


def layer_work(plan: Plan, sizes: Mapping[str, int]) -> tuple[LayerWork, ...]:
    """The work of each layer that launches something. sizes: values of the plan's symbols."""
    launched = (s for s in plan.steps if not s.is_view and not s.on_host)
    return tuple(
        LayerWork(s.name, s.type, s.executed, *work(s.body.substitute(sizes))) for s in launched
    )


def roofline_rows(work: Sequence[LayerWork], profile: Profile, ceilings: Ceilings) -> pd.DataFrame:
    """One row a layer that launches something: operations, bytes, rates and the nearer ceiling.

    work: at the sizes that were profiled. The floor is what the layer would take at the ceilings.
    Where the ceiling of a layer's arithmetic was not measured, what follows from it is empty, and
    ``Note`` says so.
    """
    times = {x.name: x.median_us for x in profile.layers}
    rows: list[tuple[object, ...]] = []
    for x in work:
        label, median_us = x.executed.info.label, times[x.layer]
        bound, floor = _floor(x.flops, x.moved_bytes, x.executed, ceilings)
        seconds = median_us / 1e6
        rows.append(
            (
                x.layer,
                x.type,
                label,
                x.flops / 1e6,
                x.moved_bytes / 1e6,
                x.flops / x.moved_bytes if x.moved_bytes else 0.0,
                median_us,
                x.flops / seconds / 1e9 if seconds else 0.0,
                x.moved_bytes / seconds / 1e9 if seconds else 0.0,
                bound,
                floor,
                100 * floor / median_us if median_us else float("nan"),
                "" if bound else f"{label}: ceiling not measured",
            )
        )
    return pd.DataFrame(
        rows,
        columns=[
            "Layer",
            "Type",
            "Executed",
            "MFLOP",
            "MB",
            "FLOP per byte",
            "Median (µs)",
            "GFLOP/s",
            "GB/s",
            "Bound by",
            "Floor (µs)",
            "Of the ceiling (%)",
            "Note",
        ],
    )


def arithmetic_types(work: Sequence[LayerWork]) -> tuple[DataType, ...]:
    """Types in which layers do arithmetic, each once: whose ceilings they need."""
    return tuple(dict.fromkeys(x.executed for x in work if x.flops))


def _floor(
    flops: int, moved: int, executed: DataType, ceilings: Ceilings
) -> tuple[Literal["arithmetic", "memory", ""], float]:
    """What bounds a layer and its floor in microseconds; empty and NaN where that is unknown."""
    by_memory = 1e6 * moved / ceilings.bytes_per_s
    if not flops:
        return "memory", by_memory
    if executed not in ceilings.flops_per_s:
        return "", float("nan")
    by_arithmetic = 1e6 * flops / ceilings.flops_per_s[executed]
    if by_arithmetic > by_memory:
        return "arithmetic", by_arithmetic
    return "memory", by_memory


def work(body: Body) -> tuple[int, int]:
    """Operations of a bound Body, and the bytes of its operands and results, each once."""
    ends: list[TensorType | HostType] = [i.type for i in body.inputs]
    ends += body.output_types
    moved = (prod(t.shape) * t.dtype.itemsize for t in ends if not isinstance(t, HostType))
    return body.flops, sum(moved)
