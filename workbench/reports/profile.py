"""A run's per-layer times as rows that sum to the end-to-end time."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workbench.runtime import Profile


def profile_rows(profile: Profile) -> pd.DataFrame:
    """Layers, then ``(residual)``; the medians sum to the end-to-end time."""
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
    return pd.DataFrame(
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
