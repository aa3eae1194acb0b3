"""A run's times as rows that sum to the end-to-end time: layer by layer, and by what takes them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workbench.records import counted
from workbench.runtime import Profile


def profile_rows(profile: Profile) -> pd.DataFrame:
    """Layers, then ``(residual)``; the medians sum to the end-to-end time.

    ``attrs["remark"]``: what the reader of the times should know, or "".
    """
    whole = profile.end_to_end_us
    rows: list[tuple[Any, ...]] = [
        (
            x.name,
            x.type,
            x.tactic,
            x.kernel,
            x.executed.info.label + (" (emulated)" if x.emulated else ""),
            x.median_us,
            x.min_us,
            x.mean_us,
            x.stdev_us,
            100 * x.median_us / whole,
        )
        for x in profile.layers
    ]
    share = 100 * profile.residual_us / whole
    rows.append(("(residual)", "", "", "", "", profile.residual_us, None, None, None, share))
    table = pd.DataFrame(
        rows,
        columns=[
            "Layer",
            "Type",
            "Tactic",
            "Kernel",
            "Executed",
            "Median (µs)",
            "Min (µs)",
            "Mean (µs)",
            "σ (µs)",
            "Share (%)",
        ],
    )
    table.attrs["remark"] = profile.remark
    return table


WATERFALL = ["Part", "Median (µs)", "Share (%)", "What"]


def waterfall_rows(profile: Profile) -> pd.DataFrame:
    """What a run on the caller's arrays is made of; the medians sum to its time.

    Kernels and reformats: each launch alone, by the device's clock. Launch gaps: what the same
    launches take more in a row than alone, or less, where one overlaps the next. CUDA graph, or
    joined calls on a CPU: what it saves to run neighbours without the host between them. Copies:
    inputs to the device and outputs back, measured alone. The residual is what is left: checks of
    the inputs, waiting, what overlaps. ``attrs["remark"]``: as in ``profile_rows``.
    """
    moved = [x.median_us for x in profile.layers if x.type == "REFORMAT"]
    kernels = [x.median_us for x in profile.layers if x.type != "REFORMAT"]
    alone = sum(kernels) + sum(moved)
    parts: list[tuple[str, float, str]] = [
        ("kernels", sum(kernels), f"{counted(len(kernels), 'layer')}, each alone"),
        ("reformats", sum(moved), f"{counted(len(moved), 'layout change')}, each alone"),
    ]
    if profile.one_by_one_us is None or profile.copies_us is None or profile.caller_us is None:
        whole = profile.end_to_end_us
        parts.append(("residual", whole - alone, "steps run one by one; copies are in them"))
    else:
        whole, row = profile.caller_us, profile.one_by_one_us
        parts.append(("launch gaps", row - alone, "all launches in a row, less each alone"))
        joined = ("CUDA graph", "one graph") if profile.graph else ("joined calls", "native calls")
        saved = profile.end_to_end_us - row
        parts.append((joined[0], saved, f"{joined[1]} instead of single launches"))
        rest = whole - profile.copies_us - profile.end_to_end_us
        parts.append(("copies", profile.copies_us, "inputs in, outputs out"))
        parts.append(("residual", rest, "checks, waiting, overlap"))
    rows = [(part, us, 100 * us / whole, what) for part, us, what in parts]
    table = pd.DataFrame(rows, columns=WATERFALL)
    table.attrs["remark"] = profile.remark
    return table
