"""Times per layer: the chosen tactic beside its runner-up and the unfused COMPOSED."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from widgets.columns import is_missing, records
from widgets.figures.style import (
    BLUE,
    LIGHT_GREY,
    ORANGE,
    RED,
    chart,
    downwards,
    precision_colour,
    provenance,
    text_on,
    unique_labels,
)

ROLES = {"chosen": BLUE, "runner-up": ORANGE, "COMPOSED": LIGHT_GREY}
"""Colour of each role of ``timing_rows``."""
STATUSES = {"chosen": BLUE, "not chosen": LIGHT_GREY, "refused": RED}
"""Colour of each status of ``tactic_rows``."""
MOST_TACTICS = 30
"""Bars of one layer's figure; the slower ones are in the table."""
OUTLIER = 2.5
"""The axis ends at this many times the slowest chosen tactic; longer bars are cut, and say so."""


def timing_figure(rows: pd.DataFrame, device: str, *, most: int = 1 << 30) -> go.Figure:
    """Horizontal bars from ``reports.timing_rows``, one group a layer, first layer on top.

    most: of so many layers at most, those that take longest; the title says so.
    """
    times = records(rows)
    whole = sum(r["Median (µs)"] for r in times if r["Role"] == "chosen")
    slowest = sorted(times, key=lambda r: -r["Median (µs)"] * (r["Role"] == "chosen"))
    kept = {r["Layer"] for r in slowest[:most]}
    all_layers = list(dict.fromkeys(r["Layer"] for r in times))
    layers = [x for x in all_layers if x in kept]
    times = [r for r in times if r["Layer"] in kept]
    left_out = len(all_layers) - len(layers)
    shown = f"; the {len(layers)} longest of {len(all_layers)} layers" if left_out else ""
    labels = dict(zip(layers, unique_labels(layers, 30), strict=True))
    traces: list[dict[str, Any]] = []
    for role, colour in ROLES.items():
        part = [r for r in times if r["Role"] == role]
        if not part:
            continue
        trace = _bars(part, [labels[r["Layer"]] for r in part], role, colour)
        columns = ["Tactic", "Spread (µs)", "Layer", "Executed", "Date"]
        trace["customdata"] = [[r[c] for c in columns] for r in part]
        trace["hovertemplate"] = (
            "<b>%{customdata[2]}</b><br>%{customdata[0]}, %{customdata[3]}<br>%{x:.2f} µs ± "
            f"%{{customdata[1]:.2f}}, measured %{{customdata[4]}}<extra>{role}</extra>"
        )
        traces.append(trace)
    chosen = [r["Median (µs)"] for r in times if r["Role"] == "chosen"]
    limit = _limit([r["Median (µs)"] for r in times], max(chosen, default=0.0))
    return chart(
        traces,
        f"Time per layer: {whole:,.1f} µs in the chosen tactics{shown}",
        "median µs; whiskers: spread · " + provenance(device, (r["Date"] for r in times)),
        height=130 + 44 * max(1, len(layers)),
        layout={
            "barmode": "group",
            "bargap": 0.26,
            "bargroupgap": 0.06,
            **_axes([labels[x] for x in layers], limit),
            "annotations": _cut(times, [labels[r["Layer"]] for r in times], limit),
        },
    )


def tactic_figure(rows: pd.DataFrame, layer: str, device: str) -> go.Figure:
    """The timed tactics of one layer, from ``reports.tactic_rows``, fastest on top.

    The whiskers are the spreads. Of more than MOST_TACTICS the slowest are left out, and counted.
    """
    timed = [r for r in records(rows) if not is_missing(r["Median (µs)"])]
    timed.sort(key=lambda r: (r["Median (µs)"], r["Status"] != "chosen"))
    slower = len(timed) - MOST_TACTICS
    if slower > 0:
        fastest, rest = timed[:MOST_TACTICS], timed[MOST_TACTICS:]
        timed = fastest + [r for r in rest if r["Status"] == "chosen"]
    labels = unique_labels((r["Tactic"] for r in timed), 44)
    traces: list[dict[str, Any]] = []
    for status, colour in STATUSES.items():
        here = [i for i, r in enumerate(timed) if r["Status"] == status]
        if not here:
            continue
        part = [timed[i] for i in here]
        trace = _bars(part, [labels[i] for i in here], status, colour)
        columns = ["Tactic", "Kernel", "Measured", "Why not", "Formats", "Spread (µs)", "Mark"]
        trace["customdata"] = [[r[c] for c in columns] for r in part]
        trace["hovertemplate"] = (
            "<b>%{customdata[0]}</b><br>%{customdata[1]}, %{customdata[4]}<br>%{x:.2f} µs ± "
            "%{customdata[5]:.2f} %{customdata[6]}, measured %{customdata[2]}<br>"
            "%{customdata[3]}<extra></extra>"
        )
        traces.append(trace)
    chosen = [r["Median (µs)"] for r in timed if r["Status"] == "chosen"]
    limit = _limit([r["Median (µs)"] for r in timed], 3 * max(chosen, default=0.0))
    dates = (str(r["Measured"]).split(",")[0] for r in timed)
    return chart(
        traces,
        f"Tactics of {layer}",
        "median µs; whiskers: spread"
        + (f"; {slower} slower ones are in the table" if slower > 0 else "")
        + " · "
        + provenance(device, dates),
        height=130 + 26 * max(1, len(timed)),
        layout={
            "barmode": "overlay",
            "bargap": 0.3,
            **_axes(labels, limit),
            "annotations": _cut(timed, labels, limit),
        },
    )


def precision_figure(rows: pd.DataFrame, device: str) -> go.Figure:
    """How many layers were requested, built and executed in each precision, of ``layer_rows``."""
    layers = [r for r in records(rows) if r["Type"] != "REFORMAT"]
    steps = ["Requested", "Built", "Executed"]
    traces: list[dict[str, Any]] = []
    for label in sorted({str(r[s]) for s in steps for r in layers}):
        counts = [sum(r[s] == label for r in layers) for s in steps]
        colour = precision_colour(label)
        traces.append(
            dict(
                type="bar",
                y=steps,
                x=counts,
                orientation="h",
                name=label,
                marker={
                    "color": colour,
                    "pattern": {"shape": "/" if "emulated" in label else ""},
                },
                text=[str(c) if c else "" for c in counts],
                textposition="inside",
                insidetextanchor="middle",
                textfont={"color": text_on(colour)},
                hovertemplate=f"%{{y}} in {label}: %{{x}} layers<extra></extra>",
            )
        )
    return chart(
        traces,
        "Precision: requested, built, executed",
        f"number of layers · {device}",
        height=220,
        layout={
            "barmode": "stack",
            "bargap": 0.3,
            "showlegend": True,
            "margin": {"l": 12, "r": 20, "t": 64, "b": 40},
            "xaxis": {"visible": False},
            "yaxis": {"autorange": "reversed", "showgrid": False},
        },
    )


def _bars(
    part: Sequence[dict[str, Any]], labels: Sequence[str], name: str, colour: str
) -> dict[str, Any]:
    return dict(
        type="bar",
        y=list(labels),
        x=[r["Median (µs)"] for r in part],
        orientation="h",
        name=name,
        marker={"color": colour, "cornerradius": 3},
        error_x={
            "type": "data",
            "array": [r["Spread (µs)"] for r in part],
            "thickness": 1.2,
            "width": 3,
            "color": "#7b8794",
        },
    )


def _limit(times: Sequence[float], slowest_chosen: float) -> float:
    """Where the axis ends: at the longest bar, or before it where that is far from the chosen."""
    longest = max(times, default=1.0)
    wanted = OUTLIER * slowest_chosen or longest
    return 1.08 * longest if longest <= wanted else wanted


def _cut(
    rows: Sequence[dict[str, Any]], labels: Sequence[str], limit: float
) -> list[dict[str, Any]]:
    """The value of each bar that leaves the axis, at its end."""
    ends: dict[str, list[float]] = {}
    for label, row in zip(labels, rows, strict=True):
        if row["Median (µs)"] > limit:
            ends.setdefault(label, []).append(row["Median (µs)"])
    return [
        {
            "x": limit,
            "y": label,
            "text": ", ".join(f"{t:,.0f}" for t in times) + " µs ▸",
            "showarrow": False,
            "xanchor": "right",
            "font": {"size": 11},
            "bgcolor": "rgba(255,255,255,0.85)",
        }
        for label, times in ends.items()
    ]


def _axes(labels: Sequence[str], limit: float) -> dict[str, Any]:
    return {
        "showlegend": True,
        "margin": {"l": 12, "r": 20, "t": 64, "b": 78},
        "yaxis": downwards(labels),
        "xaxis": {"title": {"text": "median time (µs)"}, "range": [0, limit]},
    }
