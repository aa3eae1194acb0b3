"""The roofline: each layer's rate over its intensity, under the device's measured ceilings."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from widgets.columns import records
from widgets.figures.style import GREY, chart, precision_colour
from workbench.lab.ceilings import Ceilings


def roofline_figure(
    rows: pd.DataFrame, ceilings: Ceilings, *, inputs: str = "", where: str = ""
) -> go.Figure:
    """From ``reports.roofline_rows``; layers without arithmetic are left out.

    inputs: what was run. where: a recording's label, for one that was not measured here.

    The legend says of which types the ceiling was not measured.
    """
    layers = [r for r in records(rows) if r["MFLOP"] > 0]
    low = min([0.1, *(r["FLOP per byte"] for r in layers)]) / 2
    high = max([100.0, *(r["FLOP per byte"] for r in layers)]) * 2
    traces: list[dict[str, Any]] = []
    for kind, peak in ceilings.flops_per_s.items():
        ridge = peak / ceilings.bytes_per_s
        x = [low, ridge, max(high, 2 * ridge)]
        y = [min(peak, v * ceilings.bytes_per_s) / 1e9 for v in x]
        label = kind.info.label
        unit = "GOP/s" if kind.is_integer else "GFLOP/s"
        rounded = " by TF32" if _by_tf32(ceilings.kernels[label]) else ""
        traces.append(
            dict(
                type="scatter",
                x=x,
                y=y,
                mode="lines",
                line={"color": precision_colour(label), "width": 2},
                name=f"{label}{rounded}: {peak / 1e9:,.0f} {unit}",
                hovertemplate=f"{ceilings.kernels[label]}<extra>{label}</extra>",
            )
        )
    for label in dict.fromkeys(r["Executed"] for r in layers):
        part = [r for r in layers if r["Executed"] == label]
        traces.append(
            dict(
                type="scatter",
                x=[r["FLOP per byte"] for r in part],
                y=[r["GFLOP/s"] for r in part],
                mode="markers",
                marker={
                    "size": 11,
                    "color": precision_colour(label),
                    "line": {"color": "white", "width": 1},
                },
                name=f"layers in {part[0]['Note'] or label}",
                customdata=[(r["Layer"], r["Median (µs)"], _judged(r)) for r in part],
                hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]:.1f} µs<br>"
                "%{customdata[2]}<extra></extra>",
            )
        )
    integers = any(kind.is_integer for kind in ceilings.flops_per_s)
    axis = "GFLOP/s (integers: GOP/s)" if integers else "GFLOP/s"
    rate = f"{ceilings.bytes_per_s / 1e9:,.0f} GB/s"
    place = where or f"measured here on {ceilings.device.name}"
    threads = f", {ceilings.threads} threads" if ceilings.device.kind == "cpu" else ""
    return chart(
        traces,
        "Roofline: how near each layer comes to the device's ceilings",
        f"slope: memory, {rate} ({ceilings.kernels['bytes']}); flat: products · "
        f"both {place}{threads}" + (f" · {inputs}" if inputs else ""),
        height=420,
        layout={
            "showlegend": True,
            "margin": {"l": 12, "r": 20, "t": 80, "b": 90},
            "xaxis": {"type": "log", "title": {"text": "operations per byte"}, "linecolor": GREY},
            "yaxis": {"type": "log", "title": {"text": axis}, "linecolor": GREY},
        },
    )


def _by_tf32(kernel: str) -> bool:
    """Whether a product rounds float32 factors to TF32: all of cuDNN's do, and don't say it."""
    return "tf32" in kernel.lower() or kernel.startswith("cudnn FP32")


def _judged(row: dict[str, Any]) -> str:
    """How near a layer came, or why that is unknown."""
    if row["Note"]:
        return str(row["Note"])
    return f"bound by {row['Bound by']}, {row['Of the ceiling (%)']:.0f}% of its ceiling"
