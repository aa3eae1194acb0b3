"""How near each layer came to what the device can reach: its work, its time, its ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal

import pandas as pd

from workbench.body import Body, HostType, TensorType
from workbench.datatypes import DataType
from workbench.lab.ceilings import Ceilings
from workbench.plan import Plan
from workbench.runtime import Profile


def roofline_rows(
    plan: Plan, profile: Profile, sizes: Mapping[str, int], ceilings: Ceilings
) -> pd.DataFrame:
    """One row a layer that launches something: operations, bytes, rates and the nearer ceiling.

    sizes: values of the plan's symbols in that run. Bytes count each operand and result once.
    The floor is what the layer would take at the ceilings. Where the ceiling of a layer's
    arithmetic was not measured, what follows from it is empty, and ``Note`` says so.
    """
    rows: list[tuple[object, ...]] = []
    for step, timed in zip(plan.steps, profile.layers, strict=True):
        if step.is_view or step.on_host:
            continue
        body = step.body.substitute(sizes)
        flops, moved = work(body)
        label = step.executed.info.label
        bound, floor = _floor(flops, moved, step.executed, ceilings)
        seconds = timed.median_us / 1e6
        rows.append(
            (
                step.name,
                step.type,
                label,
                flops / 1e6,
                moved / 1e6,
                flops / moved if moved else 0.0,
                timed.median_us,
                flops / seconds / 1e9 if seconds else 0.0,
                moved / seconds / 1e9 if seconds else 0.0,
                bound,
                floor,
                100 * floor / timed.median_us if timed.median_us else float("nan"),
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


def arithmetic_types(plan: Plan, sizes: Mapping[str, int]) -> tuple[DataType, ...]:
    """Types in which the plan's layers do arithmetic, each once: whose ceilings they need."""
    steps = (s for s in plan.steps if not s.is_view and not s.on_host)
    working = (s.executed for s in steps if s.body.substitute(sizes).flops)
    return tuple(dict.fromkeys(working))


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
