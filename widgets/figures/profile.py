"""Where an execution's time goes, and the ranges of sizes that an engine accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from widgets.figures.style import (
    BLUE,
    GREY,
    chart,
    downwards,
    precision_colour,
    said_of,
    text_on,
    unique_labels,
)

RESIDUAL = "(residual)"


def profile_figure(rows: pd.DataFrame, device: str, *, inputs: str = "") -> go.Figure:
    """A cascade from ``reports.profile_rows``: each bar starts where the one before ends.

    The last, the residual, ends at the end-to-end time. inputs: what was run.
    """
    times = [float(t) for t in rows["Median (µs)"]]
    whole = sum(times)
    names = unique_labels(rows["Layer"], 34)
    starts = [0.0, *accumulate(times)][:-1]
    kinds = [
        RESIDUAL if layer == RESIDUAL else str(executed)
        for layer, executed in zip(rows["Layer"], rows["Executed"], strict=True)
    ]
    traces = [
        _cascade(rows, names, times, starts, [i for i, k in enumerate(kinds) if k == kind], kind)
        for kind in dict.fromkeys(kinds)
    ]
    farthest = max(s + max(t, 0.0) for s, t in zip(starts, times, strict=True))
    return chart(
        traces,
        f"Profile: {whole:,.1f} µs end to end",
        "median µs; layers and residual sum to the end-to-end time" + said_of(rows, inputs, device),
        height=132 + 25 * max(1, len(times)),
        layout={
            "barmode": "overlay",
            "bargap": 0.22,
            "showlegend": True,
            "margin": {"l": 12, "r": 20, "t": 64, "b": 78},
            "shapes": [
                {
                    "type": "line",
                    "x0": whole,
                    "x1": whole,
                    "y0": 0,
                    "y1": 1,
                    "yref": "paper",
                    "line": {"color": "#7b8794", "width": 2, "dash": "dot"},
                }
            ],
            "yaxis": downwards(names),
            "xaxis": {
                "title": {"text": "time from the start (µs)"},
                "range": [0, 1.07 * max(whole, farthest)],
            },
        },
    )


def _cascade(
    rows: pd.DataFrame,
    names: Sequence[str],
    times: Sequence[float],
    starts: Sequence[float],
    here: Sequence[int],
    kind: str,
) -> dict[str, Any]:
    colour = GREY if kind == RESIDUAL else precision_colour(kind)
    hatched = kind == RESIDUAL or "emulated" in kind
    return dict(
        type="bar",
        y=[names[i] for i in here],
        x=[times[i] for i in here],
        base=[starts[i] for i in here],
        orientation="h",
        name="residual" if kind == RESIDUAL else kind,
        marker={
            "color": colour,
            "cornerradius": 2,
            "pattern": {"shape": "/" if hatched else ""},
        },
        text=[f"{times[i]:,.1f}" for i in here],
        textposition="outside" if hatched else "auto",  # no ink is easy to read on hatching
        textangle=0,
        insidetextfont={"color": text_on(colour)},
        cliponaxis=False,
        customdata=[
            [str(rows["Layer"].iloc[i]), str(rows["Kernel"].iloc[i]), rows["Share (%)"].iloc[i]]
            for i in here
        ],
        hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{x:.2f} µs, "
        "%{customdata[2]:.1f}%<extra></extra>",
    )


def sizes_figure(ranges: Sequence[Sequence[Mapping[str, int]]], device: str) -> go.Figure:
    """The band from min to max of each dynamic size, and its opt, per optimization profile.

    ranges: per profile the values of every size symbol at min, opt and max.
    """
    symbols = list(dict.fromkeys(s for r in ranges for s in r[1]))
    traces: list[dict[str, Any]] = []
    for number, (low, mid, high) in enumerate(ranges):
        rows = [s for s in symbols if s in mid]
        labels = [s if len(ranges) == 1 else f"{s} (profile {number})" for s in rows]
        traces.append(
            dict(
                type="bar",
                y=labels,
                x=[high[s] - low[s] for s in rows],
                base=[low[s] for s in rows],
                orientation="h",
                width=0.36,
                marker={"color": "#a9d0ea", "cornerradius": 6},
                name="accepted",
                showlegend=not number,
                hoverinfo="skip",
            )
        )
        for values, symbol, name, colour in (
            (low, "line-ns-open", "min", BLUE),
            (mid, "diamond", "opt: tuned here", "#b45309"),
            (high, "line-ns-open", "max: memory planned here", BLUE),
        ):
            traces.append(_marks(labels, [values[s] for s in rows], symbol, name, colour))
            traces[-1]["showlegend"] = not number
    largest = max((v for r in ranges for v in r[2].values()), default=1)
    return chart(
        traces,
        "Sizes that the engine will accept",
        f"elements along each dynamic axis · {device}",
        height=176 + 60 * max(1, len(symbols) * len(ranges)),
        layout={
            "barmode": "overlay",
            "showlegend": True,
            "margin": {"l": 12, "r": 24, "t": 64, "b": 78},
            "xaxis": {
                "title": {"text": "size"},
                "range": [-0.02 * largest, 1.06 * largest],
                "zeroline": False,
            },
            "yaxis": {"showgrid": False},
        },
    )


def _marks(
    labels: Sequence[str], values: Sequence[int], symbol: str, name: str, colour: str
) -> dict[str, Any]:
    return dict(
        type="scatter",
        y=list(labels),
        x=list(values),
        mode="markers+text",
        text=[str(v) for v in values],
        textposition="top center",
        marker={"symbol": symbol, "size": 14, "color": colour, "line": {"width": 3}},
        name=name,
        cliponaxis=False,
        hovertemplate=f"%{{y}}: {name} = %{{x}}<extra></extra>",
    )
