"""Times per layer: the chosen tactic beside its runner-up and the unfused COMPOSED."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from widgets.figures.style import (
    BLUE,
    LIGHT_GREY,
    ORANGE,
    RED,
    finish,
    precision_colour,
    provenance,
    unique_labels,
)

ROLES = {"chosen": BLUE, "runner-up": ORANGE, "COMPOSED": LIGHT_GREY}
"""Colour of each role of ``timing_rows``."""


def timing_figure(rows: pd.DataFrame, device: str) -> go.Figure:
    """Horizontal bars from ``reports.timing_rows``, one group a layer, first layer on top."""
    layers = list(dict.fromkeys(rows["Layer"]))
    labels = dict(zip(layers, unique_labels(layers, 30), strict=True))
    figure = go.Figure()
    for role, colour in ROLES.items():
        part = rows[rows["Role"] == role]
        if part.empty:
            continue
        figure.add_trace(
            go.Bar(
                y=[labels[x] for x in part["Layer"]],
                x=part["Median (µs)"].tolist(),
                orientation="h",
                name=role,
                marker={"color": colour, "cornerradius": 3},
                error_x={
                    "type": "data",
                    "array": part["Spread (µs)"].tolist(),
                    "thickness": 1.2,
                    "width": 3,
                    "color": "#3e4c59",
                },
                customdata=part[["Tactic", "Spread (µs)", "Layer", "Executed", "Date"]].values,
                hovertemplate="<b>%{customdata[2]}</b><br>%{customdata[0]}, %{customdata[3]}<br>"
                "%{x:.2f} µs ± %{customdata[1]:.2f}, measured %{customdata[4]}"
                f"<extra>{role}</extra>",
            )
        )
    height = 130 + 46 * max(1, len(layers))
    total = rows.loc[rows["Role"] == "chosen", "Median (µs)"].sum()
    finish(
        figure,
        f"Time per layer: {total:.0f} µs in the chosen tactics",
        "median µs; whiskers: spread · " + provenance(device, rows["Date"]),
        height=height,
    )
    figure.update_layout(barmode="group", bargap=0.28, bargroupgap=0.06, margin={"b": 84})
    figure.update_layout(legend={"y": 0, "yref": "container", "yanchor": "bottom"})
    figure.update_yaxes(categoryorder="array", categoryarray=[labels[x] for x in layers[::-1]])
    figure.update_xaxes(title={"text": "median time (µs)"}, rangemode="tozero")
    return figure


def tactic_figure(rows: pd.DataFrame, layer: str, device: str) -> go.Figure:
    """Every timed tactic of one layer, from ``reports.tactic_rows``, fastest on top."""
    timed = rows[rows["Median (µs)"].notna()].sort_values("Median (µs)", kind="stable")
    labels = unique_labels(timed["Tactic"], 44)
    colours = {"chosen": BLUE, "slower": LIGHT_GREY, "refused": RED}
    figure = go.Figure()
    for status, colour in colours.items():
        here = [i for i, s in enumerate(timed["Status"]) if s == status]
        if not here:
            continue
        part = timed.iloc[here]
        figure.add_trace(
            go.Bar(
                y=[labels[i] for i in here],
                x=part["Median (µs)"].tolist(),
                orientation="h",
                name=status,
                marker={"color": colour, "cornerradius": 3},
                error_x={
                    "type": "data",
                    "array": part["Spread (µs)"].tolist(),
                    "thickness": 1.2,
                    "width": 3,
                    "color": "#3e4c59",
                },
                customdata=part[["Tactic", "Kernel", "Measured", "Why not"]].values,
                hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{x:.2f} µs, "
                "measured %{customdata[2]}<br>%{customdata[3]}<extra></extra>",
            )
        )
    dates = [str(m).split(",")[0] for m in timed["Measured"]]
    finish(
        figure,
        f"Tactics of {layer}",
        "median µs; whiskers: spread · " + provenance(device, dates),
        height=130 + 26 * max(1, len(timed)),
    )
    figure.update_layout(barmode="overlay", bargap=0.3, margin={"b": 84})
    figure.update_layout(legend={"y": 0, "yref": "container", "yanchor": "bottom"})
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1])
    figure.update_xaxes(title={"text": "median time (µs)"}, rangemode="tozero")
    return figure


def precision_figure(rows: pd.DataFrame, device: str) -> go.Figure:
    """How many layers were requested, built and executed in each precision, of ``layer_rows``."""
    layers = rows[rows["Type"] != "REFORMAT"]
    figure = go.Figure()
    steps = ("Requested", "Built", "Executed")
    for label in sorted({x for s in steps for x in layers[s].dropna()}):
        counts = [int((layers[s] == label).sum()) for s in steps]
        figure.add_trace(
            go.Bar(
                y=list(steps),
                x=counts,
                orientation="h",
                name=label,
                marker={
                    "color": precision_colour(label),
                    "pattern": {"shape": "/" if "emulated" in label else ""},
                },
                text=[str(c) if c else "" for c in counts],
                textposition="inside",
                insidetextanchor="middle",
                hovertemplate=f"%{{y}} in {label}: %{{x}} layers<extra></extra>",
            )
        )
    finish(
        figure,
        "Precision: requested, built, executed",
        f"number of layers · {device}",
        height=230,
    )
    figure.update_layout(barmode="stack", bargap=0.3, margin={"b": 52})
    figure.update_layout(legend={"y": 0, "yref": "container", "yanchor": "bottom"})
    figure.update_yaxes(categoryorder="array", categoryarray=list(steps[::-1]))
    figure.update_xaxes(visible=False)
    return figure
