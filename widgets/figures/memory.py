"""The arena as a chart: the bytes of each tensor, from its writing to its last reading."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from widgets.columns import records
from widgets.figures.style import BLUE, GREEN, ORANGE, PINK, SKY, YELLOW, chart, shorten, text_on

COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW)


def memory_figure(
    rows: pd.DataFrame, device: str, *, arena_bytes: int, total_bytes: int, profile: int = 0
) -> go.Figure:
    """Boxes from ``reports.memory_rows``: steps to the right, arena offsets (KiB) upwards.

    arena_bytes, total_bytes: of the MemoryPlan, for the title.
    """
    tensors = records(rows)
    steps = max((r["Last step"] + 1 for r in tensors), default=1)
    return chart(
        [
            t
            for k in range(len(COLOURS))
            if (t := _boxes(tensors[k :: len(COLOURS)], COLOURS[k], steps))
        ],
        f"Arena: {arena_bytes / 1024:,.0f} KiB instead of {total_bytes / 1024:,.0f} KiB",
        f"inner tensors at the largest shapes of profile {profile}; a box is the bytes that a "
        f"tensor holds · {device}",
        height=400,
        layout={
            "barmode": "overlay",
            "showlegend": False,
            "uniformtext": {"minsize": 8, "mode": "hide"},
            "margin": {"l": 12, "r": 20, "t": 64, "b": 48},
            "xaxis": {
                "title": {"text": "step of the plan"},
                "range": [-0.6, steps - 0.4],
                "showgrid": False,
                "zeroline": False,
                "dtick": max(1, steps // 24),
            },
            "yaxis": {
                "title": {"text": "arena offset (KiB)", "standoff": 12},
                "rangemode": "tozero",
            },
        },
    )


def _boxes(part: list[dict[str, Any]], colour: str, steps: int) -> dict[str, Any] | None:
    """Tensors in one colour; every sixth has the same, so that neighbours differ."""
    if not part:
        return None
    lasting = [r["Last step"] - r["First step"] + 1 for r in part]
    room = max(4, int(120 / steps))
    columns = ["Tensor", "First step", "Last step", "Offset (B)", "Size (B)"]
    return dict(
        type="bar",
        x=[(r["First step"] + r["Last step"]) / 2 for r in part],
        width=[n - 0.06 for n in lasting],
        base=[r["Offset (B)"] / 1024 for r in part],
        y=[r["Size (B)"] / 1024 for r in part],
        marker={"color": colour, "line": {"color": "#ffffff", "width": 1}},
        text=[shorten(r["Tensor"], room * n) for r, n in zip(part, lasting, strict=True)],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"color": text_on(colour), "size": 11},
        customdata=[[r[c] for c in columns] for r in part],
        hovertemplate="<b>%{customdata[0]}</b><br>written at step %{customdata[1]}, last read at "
        "step %{customdata[2]}<br>bytes %{customdata[3]:,} + %{customdata[4]:,}<extra></extra>",
    )
