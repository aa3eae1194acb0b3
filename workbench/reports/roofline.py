"""How near each layer came to what the device can reach: its work, its time, its ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

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
    The floor is what the layer would take at the ceilings; a layer in a type whose product was not
    measured has the ceiling of FP32.
    """
    rows: list[tuple[object, ...]] = []
    for step, timed in zip(plan.steps, profile.layers, strict=True):
        if step.is_view or step.on_host:
            continue
        body = step.body.substitute(sizes)
        flops, moved = work(body)
        peak = ceilings.flops_per_s.get(
            step.executed, ceilings.flops_per_s.get(DataType.FLOAT, float("inf"))
        )
        by_arithmetic, by_memory = 1e6 * flops / peak, 1e6 * moved / ceilings.bytes_per_s
        floor = max(by_arithmetic, by_memory)
        seconds = timed.median_us / 1e6
        rows.append(
            (
                step.name,
                step.type,
                step.executed.info.label,
                flops / 1e6,
                moved / 1e6,
                flops / moved if moved else 0.0,
                timed.median_us,
                flops / seconds / 1e9 if seconds else 0.0,
                moved / seconds / 1e9 if seconds else 0.0,
                "arithmetic" if by_arithmetic > by_memory else "memory",
                floor,
                100 * floor / timed.median_us if timed.median_us else 0.0,
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
        ],
    )


def work(body: Body) -> tuple[int, int]:
    """Operations of a bound Body, and the bytes of its operands and results, each once."""
    ends: list[TensorType | HostType] = [i.type for i in body.inputs]
    ends += body.output_types
    moved = (prod(t.shape) * t.dtype.itemsize for t in ends if not isinstance(t, HostType))
    return body.flops, sum(moved)
