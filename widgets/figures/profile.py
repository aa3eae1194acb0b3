"""Where an execution's time goes, and the ranges of sizes that an engine accepts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from widgets.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    finish,
    precision_colour,
    text_on,
    unique_labels,
)

RESIDUAL = "(residual)"


def profile_figure(rows: pd.DataFrame, device: str, *, inputs: str = "") -> go.Figure:
    """A cascade from ``reports.profile_rows``: each bar starts where the one before ends.

    The last, the residual, ends at the end-to-end time. inputs: the shapes that were run.
    """
    times = rows["Median (µs)"].tolist()
    names = unique_labels(rows["Layer"], 34)
    starts = [sum(times[:i]) for i in range(len(times))]
    whole = sum(times)
    kinds = [
        str(e) if n != RESIDUAL else RESIDUAL
        for n, e in zip(rows["Layer"], rows["Executed"], strict=True)
    ]
    figure = go.Figure()
    for kind in dict.fromkeys(kinds):
        here = [i for i, k in enumerate(kinds) if k == kind]
        colour = GREY if kind == RESIDUAL else precision_colour(kind)
        figure.add_trace(
            go.Bar(
                y=[names[i] for i in here],
                x=[times[i] for i in here],
                base=[starts[i] for i in here],
                orientation="h",
                name=kind.strip("()") if kind == RESIDUAL else kind,
                marker={
                    "color": colour,
                    "cornerradius": 2,
                    "pattern": {"shape": "/" if kind == RESIDUAL or "emul" in kind else ""},
                },
                text=[f"{times[i]:.1f}" for i in here],
                textposition="auto",
                textangle=0,
                insidetextfont={"color": text_on(colour)},
                cliponaxis=False,
                customdata=[
                    [rows["Layer"].iloc[i], rows["Kernel"].iloc[i], rows["Share (%)"].iloc[i]]
                    for i in here
                ],
                hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{x:.2f} µs, "
                "%{customdata[2]:.1f}%<extra></extra>",
            )
        )
    figure.add_vline(x=whole, line={"color": ORANGE, "width": 2, "dash": "dot"})
    finish(
        figure,
        f"Profile: {whole:.1f} µs end to end",
        "median µs; layers and residual sum to the end-to-end time"
        + (f" · {inputs}" if inputs else "")
        + f" · {device}",
        height=132 + 25 * max(1, len(times)),
    )
    figure.update_layout(barmode="overlay", bargap=0.22, margin={"b": 84})
    figure.update_layout(legend={"y": 0, "yref": "container", "yanchor": "bottom"})
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    figure.update_xaxes(title={"text": "time from the start (µs)"}, range=[0, 1.06 * whole])
    return figure


def sizes_figure(
    ranges: Sequence[tuple[dict[str, int], dict[str, int], dict[str, int]]], device: str
) -> go.Figure:
    """The band from min to max of each dynamic size, and its opt, per optimization profile.

    ranges: per profile the values of every size symbol at min, opt and max.
    """
    figure = go.Figure()
    symbols = list(dict.fromkeys(s for r in ranges for s in r[1]))
    for number, (low, mid, high) in enumerate(ranges):
        rows = [s for s in symbols if s in mid]
        labels = [s if len(ranges) == 1 else f"{s} (profile {number})" for s in rows]
        figure.add_trace(
            go.Bar(
                y=labels,
                x=[max(high[s] - low[s], 0) for s in rows],
                base=[low[s] for s in rows],
                orientation="h",
                width=0.42,
                marker={"color": "#a9d0ea", "cornerradius": 6},
                name="allowed",
                showlegend=not number,
                hoverinfo="skip",
            )
        )
        for values, symbol, name, colour in (
            (low, "line-ns-open", "min", BLUE),
            (mid, "diamond", "opt: tuned here", "#b45309"),
            (high, "line-ns-open", "max: memory planned here", BLUE),
        ):
            figure.add_trace(
                go.Scatter(
                    y=labels,
                    x=[values[s] for s in rows],
                    mode="markers+text",
                    text=[str(values[s]) for s in rows],
                    textposition="top center",
                    marker={"symbol": symbol, "size": 15, "color": colour, "line": {"width": 3}},
                    name=name,
                    showlegend=not number,
                    hovertemplate=f"%{{y}}: {name} = %{{x}}<extra></extra>",
                )
            )
    finish(
        figure,
        "Sizes that the engine will accept",
        f"elements along each dynamic axis · {device}",
        height=190 + 62 * max(1, len(symbols) * len(ranges)),
    )
    figure.update_layout(barmode="overlay", margin={"b": 84})
    figure.update_layout(legend={"y": 0, "yref": "container", "yanchor": "bottom"})
    largest = max((v for r in ranges for v in r[2].values()), default=1)
    figure.update_xaxes(title={"text": "size"}, range=[0, 1.06 * largest], zeroline=False)
    return figure
