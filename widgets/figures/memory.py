"""The arena as a chart: the bytes of each tensor, from its writing to its last reading."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from widgets.figures.style import BLUE, GREEN, ORANGE, PINK, SKY, YELLOW, finish, shorten, text_on

COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW)


def memory_figure(rows: pd.DataFrame, device: str, *, profile: int = 0) -> go.Figure:
    """Boxes from ``reports.memory_rows``: steps to the right, arena offsets (KiB) upwards."""
    figure = go.Figure()
    steps = int(rows["Last step"].max()) + 1 if len(rows) else 1
    arena = float((rows["Offset (B)"] + rows["Size (B)"]).max()) if len(rows) else 0.0
    room = max(4, int(108 / steps))
    for k, colour in enumerate(COLOURS):
        part = rows.iloc[k :: len(COLOURS)]
        if part.empty:
            continue
        first, last = part["First step"], part["Last step"]
        lasting = (last - first + 1).tolist()
        names = [shorten(str(t), room * n) for t, n in zip(part["Tensor"], lasting, strict=True)]
        figure.add_trace(
            go.Bar(
                x=((first + last) / 2).tolist(),
                width=[n - 0.06 for n in lasting],
                base=(part["Offset (B)"] / 1024).tolist(),
                y=(part["Size (B)"] / 1024).tolist(),
                marker={"color": colour, "line": {"color": "#ffffff", "width": 1}},
                text=names,
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"color": text_on(colour), "size": 11},
                customdata=part[
                    ["Tensor", "First step", "Last step", "Offset (B)", "Size (B)"]
                ].values,
                hovertemplate="<b>%{customdata[0]}</b><br>written at step %{customdata[1]}, last "
                "read at step %{customdata[2]}<br>bytes %{customdata[3]:,} + %{customdata[4]:,}"
                "<extra></extra>",
                showlegend=False,
            )
        )
    total = float(rows["Size (B)"].sum())
    finish(
        figure,
        f"Arena: {arena / 1024:,.0f} KiB instead of {total / 1024:,.0f} KiB",
        f"inner tensors at the largest shapes of profile {profile}; a box is the bytes a tensor "
        f"holds · {device}",
        height=400,
        legend=False,
    )
    figure.update_layout(
        barmode="overlay",
        uniformtext={"minsize": 8, "mode": "hide"},
        margin={"b": 48},
    )
    figure.update_xaxes(
        title={"text": "step of the plan"},
        range=[-0.6, steps - 0.4],
        showgrid=False,
        dtick=max(1, steps // 24),
    )
    figure.update_yaxes(title={"text": "arena offset (KiB)"}, rangemode="tozero")
    return figure
