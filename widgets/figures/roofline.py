"""The roofline: each layer's rate over its intensity, under the device's measured ceilings."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from widgets.figures.style import GREY, chart, precision_colour
from workbench.lab.ceilings import Ceilings

HOVER = ("Layer", "Median (µs)", "Bound by", "Of the ceiling (%)")


def roofline_figure(rows: pd.DataFrame, ceilings: Ceilings, *, inputs: str = "") -> go.Figure:
    """From ``reports.roofline_rows``; layers without arithmetic are left out."""
    shown = rows[rows["MFLOP"] > 0]
    low = min([0.1, *shown["FLOP per byte"]]) / 2
    high = max([100.0, *shown["FLOP per byte"]]) * 2
    traces: list[dict[str, Any]] = []
    for kind, peak in ceilings.flops_per_s.items():
        ridge = peak / ceilings.bytes_per_s
        x = [low, ridge, max(high, 2 * ridge)]
        y = [min(peak, v * ceilings.bytes_per_s) / 1e9 for v in x]
        label = kind.info.label
        traces.append(
            dict(
                type="scatter",
                x=x,
                y=y,
                mode="lines",
                line={"color": precision_colour(label), "width": 2},
                name=f"{label}: {peak / 1e9:,.0f} GFLOP/s",
                hovertemplate=f"{ceilings.kernels[label]}<extra>{label}</extra>",
            )
        )
    for label in dict.fromkeys(shown["Executed"]):
        part = shown[shown["Executed"] == label]
        traces.append(
            dict(
                type="scatter",
                x=list(part["FLOP per byte"]),
                y=list(part["GFLOP/s"]),
                mode="markers",
                marker={
                    "size": 11,
                    "color": precision_colour(label),
                    "line": {"color": "white", "width": 1},
                },
                name=f"layers in {label}",
                customdata=list(zip(*(part[c] for c in HOVER), strict=True)),
                hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]:.1f} µs, bound by "
                "%{customdata[2]}<br>%{customdata[3]:.0f}% of its ceiling<extra></extra>",
            )
        )
    rate = f"{ceilings.bytes_per_s / 1e9:,.0f} GB/s"
    threads = f", {ceilings.threads} threads" if ceilings.device.kind == "cpu" else ""
    return chart(
        traces,
        "Roofline: how near each layer comes to the device's ceilings",
        f"slope: memory, {rate} ({ceilings.kernels['bytes']}); flat: products; both measured here "
        f"on {ceilings.device.name}{threads}" + (f" · {inputs}" if inputs else ""),
        height=420,
        layout={
            "showlegend": True,
            "margin": {"l": 12, "r": 20, "t": 80, "b": 90},
            "xaxis": {"type": "log", "title": {"text": "operations per byte"}, "linecolor": GREY},
            "yaxis": {"type": "log", "title": {"text": "GFLOP/s"}, "linecolor": GREY},
        },
    )
