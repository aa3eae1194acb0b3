"""Number formats drawn: what is lost by storing a number, and by storing a tensor."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from widgets.columns import records
from widgets.figures.style import PALETTE, chart, precision_colour

_POWERS: dict[str, Any] = {"type": "log", "dtick": 1, "exponentformat": "power"}
NEAR_BITS, NEAR_DB = 1.5, 8.0
"""Points so near to each other have their labels on opposite sides."""
SMALLEST = 1e-3
"""Percent; what is smaller is drawn there."""


def spacing_figure(rows: pd.DataFrame) -> go.Figure:
    """Lines from ``reports.spacing_rows``: relative error over magnitude, both logarithmic."""
    traces: list[dict[str, Any]] = []
    for index, (kind, part) in enumerate(rows.groupby("Type", sort=False)):
        error = [max(float(v), SMALLEST) for v in part["Relative error (%)"]]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": part["Magnitude"].tolist(),
                "y": error,
                "name": str(kind),
                "line": {"color": PALETTE[index % len(PALETTE)], "width": 2},
                "hovertemplate": f"{kind}: %{{x:.2g}} is up to %{{y:.3g}}% off<extra></extra>",
            }
        )
    return chart(
        traces,
        "What is lost by storing a number",
        "worst relative error over the number's size, where the largest is at the right end; "
        "at 100% the number becomes 0",
        height=380,
        layout={
            "showlegend": True,
            "margin": {"b": 86},
            "xaxis": {**_POWERS, "title": {"text": "size of the number"}},
            "yaxis": {**_POWERS, "title": {"text": "relative error (%)"}},
        },
    )


def tensor_types_figure(rows: pd.DataFrame, tensor: str) -> go.Figure:
    """Points from ``wb.type_table(tensor)``: stored bits a value against SQNR, a type each."""
    known = [
        r
        for r in records(rows)
        if math.isfinite(r["SQNR (dB)"]) and r["Runs"] != "input and output only"
    ]
    labels = [str(r["Type"]) for r in known]
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": [r["Stored bits"] for r in known],
        "y": [r["SQNR (dB)"] for r in known],
        "text": labels,
        "textposition": _sides(known),
        "marker": {"size": 12, "color": [precision_colour(t) for t in labels]},
        "hovertemplate": "%{text}: %{x:.3g} bits, %{y:.1f} dB<extra></extra>",
    }
    top = 1.12 * max((r["SQNR (dB)"] for r in known), default=1.0)
    return chart(
        [trace],
        f"{tensor} in each type",
        "bits a value, scales included, against signal over noise; up and left is better",
        height=380,
        layout={
            "showlegend": False,
            "margin": {"b": 56},
            "xaxis": {"title": {"text": "stored bits a value"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "SQNR (dB)"}, "range": [0, top]},
        },
    )


def _sides(points: list[dict[str, Any]]) -> list[str]:
    """The side of each point's label: the right, or the left beside one that has the right."""
    sides: list[str] = []
    for i, p in enumerate(points):
        taken = {
            sides[k]
            for k, q in enumerate(points[:i])
            if abs(p["Stored bits"] - q["Stored bits"]) < NEAR_BITS
            and abs(p["SQNR (dB)"] - q["SQNR (dB)"]) < NEAR_DB
        }
        sides.append("middle left" if "middle right" in taken else "middle right")
    return sides
