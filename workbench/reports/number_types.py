"""The table of number types as rows, with the error on a tensor of yours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.datatypes import DataType
from workbench.devices import Device, open_device
from workbench.lab.number_types import (
    TF32,
    NumberType,
    RoundTrip,
    holds_real_numbers,
    number_types,
    round_trip,
)


def type_table(
    tensor: Any = None,
    *,
    device: str | Device = "cpu",
    axis: int | None = None,
    every: bool = False,
) -> pd.DataFrame:
    """Every number type: bits, range, steps, error, and whether the device has it.

    tensor: an array whose round trip through each type is measured too (NaN where a type holds no
    real numbers). axis: its channel axis, for one scale a channel. every: ONNX's other types, too.

    Columns: Type, Bits, Low, High, Smallest normal, Smallest step, Eps, Largest relative error,
    Runs, Scale; with a tensor also Stored bits, Max error, Relative L2, SQNR (dB), Lost (%).
    """
    opened = open_device(device) if isinstance(device, str) else device
    rows = number_types(opened, every=every)
    table = pd.DataFrame([_format(r) for r in rows], columns=list(_COLUMNS))
    if tensor is None:
        return table
    trips = [_trip(tensor, r, axis) for r in rows]
    for name, read in _MEASURED.items():
        table[name] = [math.nan if t is None else read(t) for t in trips]
    return table


WINDOW = 24
"""Neighbouring numbers of which the worst is told."""


def spacing_rows(kinds: Sequence[str], *, largest: float = 1.0, decades: int = 6) -> pd.DataFrame:
    """The worst relative error of storing a number of each size, where ``largest`` occurs too.

    One scale for all, where the type needs a scale. Columns: Type, Magnitude, Relative error (%).
    """
    sizes = largest * np.logspace(-decades, 0, 100 * WINDOW).astype(np.float32)
    sizes[-1] = largest
    parts: list[pd.DataFrame] = []
    for kind in kinds:
        trip = round_trip(sizes, kind)
        error = 100 * np.abs(trip.values - sizes) / sizes
        worst = error.reshape(-1, WINDOW).max(axis=1)
        middle = sizes.reshape(-1, WINDOW)[:, WINDOW // 2]
        columns = {"Type": trip.label, "Magnitude": middle, "Relative error (%)": worst}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


_COLUMNS = (
    *("Type", "Bits", "Low", "High", "Smallest normal", "Smallest step", "Eps"),
    *("Largest relative error", "Runs", "Scale"),
)
_MEASURED = {
    "Stored bits": lambda t: t.bits,
    "Max error": lambda t: t.max_abs,
    "Relative L2": lambda t: t.relative_l2,
    "SQNR (dB)": lambda t: t.sqnr_db,
    "Lost (%)": lambda t: 100 * t.lost,
}


def _format(r: NumberType) -> tuple[Any, ...]:
    return (
        *(r.label, r.bits, r.low, r.high, r.smallest_normal, r.smallest_step, r.eps),
        *(r.largest_relative_error, r.runs, r.scale),
    )


def _trip(tensor: Any, row: NumberType, axis: int | None) -> RoundTrip | None:
    kind: DataType | str = TF32 if row.label == TF32 else row.dtype
    if not holds_real_numbers(row.dtype):
        return None
    return round_trip(tensor, kind, axis=axis)
