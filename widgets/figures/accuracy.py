"""What lower precision costs: each layer's noise, where values diverge, and what time buys."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from widgets.columns import records
from widgets.figures.style import (
    BLUE,
    GREEN,
    INK,
    LIGHT_GREY,
    MUTED,
    ORANGE,
    RED,
    chart,
    unique_labels,
)

MOST = 40
"""Layers that a figure of bars shows; the table has them all."""


def noise_percent(sqnr_db: float) -> float:
    """Noise over signal, in percent of the signal's norm; NaN where it was not measured."""
    return 100.0 * 10.0 ** (-sqnr_db / 20.0)


def sensitivity_figure(rows: pd.DataFrame, precision: str, source: str) -> go.Figure:
    """Bars from ``reports.sensitivity_rows``: noise in the outputs when one layer is lowered.

    precision: label of the type that it is lowered to. source: data and device.
    """
    shown = rows.head(MOST).iloc[::-1]
    names = unique_labels((str(n) for n in shown["Layer"]), 44)
    outputs = [noise_percent(v) for v in shown["Output SQNR (dB)"]]
    own = [noise_percent(v) for v in shown["Own SQNR (dB)"]]
    largest = max([v for v in (*outputs, *own) if math.isfinite(v)], default=1.0) or 1.0
    more = f", the {MOST} most sensitive of {len(rows)}" if len(rows) > MOST else ""
    reach = 1.08 * largest
    traces = [
        _bars(names, outputs, "noise in the model's outputs", ORANGE, reach),
        {
            "type": "scatter",
            "mode": "markers",
            "orientation": "h",
            "y": names,
            "x": [min(v, reach) for v in own],
            "customdata": _texts(own),
            "name": "noise in the layer's own output",
            "marker": {"symbol": "line-ns", "size": 12, "line": {"width": 2, "color": INK}},
            "hovertemplate": "%{y}: %{customdata}% in its own output<extra></extra>",
        },
    ]
    return chart(
        traces,
        f"One layer at a time in {precision}{more}",
        f"noise over signal, the others in FP32 · {source}",
        height=130 + 24 * max(1, len(shown)),
        layout={
            "showlegend": True,
            "margin": {"b": 74},
            "xaxis": {"title": {"text": "noise over signal (%)"}, "range": [0, reach]},
            "yaxis": {"showgrid": False},
        },
    )


def _texts(values: Iterable[float]) -> list[str]:
    """The numbers as they are, also where a figure ends before them: at NaN and infinity."""
    return [f"{v:.3g}" for v in values]


def _bars(
    names: list[str], values: list[float], name: str, colour: str, reach: float
) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": [min(v, reach) for v in values],
        "customdata": _texts(values),
        "name": name,
        "marker": {"color": colour, "line": {"width": 0}},
        "hovertemplate": f"%{{y}}: %{{customdata}}% {name}<extra></extra>",
    }


def divergence_figure(rows: pd.DataFrame, tolerance: float, source: str) -> go.Figure:
    """From ``reports.divergence_rows``: each layer's difference from float, in order.

    tolerance: from which a layer counts as diverged, drawn as a line; 0.1 is 10%.
    """
    names = unique_labels((str(n) for n in rows["Layer"]), 34)
    values = rows["Difference (%)"].to_numpy(float)
    added = rows["Added (%)"].to_numpy(float)
    first = [i for i, note in enumerate(rows["Note"]) if "first beyond" in note]
    finite = [v for v in values if math.isfinite(v)]
    top = 1.15 * max([100 * tolerance, *finite])
    drawn = [min(v, top) if not math.isnan(v) else top for v in values]
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "x": names,
            "y": [min(v, top) if math.isfinite(v) else top for v in added],
            "name": "added by the layer itself",
            "marker": {"color": BLUE, "line": {"width": 0}},
            "customdata": list(zip(rows["Built as"], _texts(added), strict=True)),
            "hovertemplate": "%{x} (%{customdata[0]}) adds %{customdata[1]}%<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": names,
            "y": drawn,
            "customdata": _texts(values),
            "name": "difference from the float value",
            "line": {"color": INK, "width": 1.5},
            "marker": {"size": 6, "color": INK},
            "hovertemplate": "%{x}: %{customdata}% off<extra></extra>",
        },
    ]
    if first:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [names[i] for i in first],
                "y": [drawn[i] for i in first],
                "name": f"first beyond {100 * tolerance:g}%",
                "marker": {"size": 13, "color": RED, "symbol": "circle-open", "line": {"width": 3}},
                "hovertemplate": "%{x}: here it starts<extra></extra>",
            }
        )
    where = (
        f"first beyond {100 * tolerance:g}%: {rows['Layer'].iloc[first[0]]}"
        if first
        else (f"no layer is beyond {100 * tolerance:g}%")
    )
    return chart(
        traces,
        "Where the values leave the float model's",
        f"{where} · {source}",
        height=380,
        layout={
            "showlegend": True,
            "margin": {"b": 40},
            "bargap": 0.35,
            "legend": {"y": 1, "yref": "paper", "yanchor": "top", "xref": "paper"},
            "xaxis": {"tickangle": -40, "showgrid": False, "type": "category"},
            "yaxis": {"title": {"text": "difference (%)"}, "range": [0, top]},
            "shapes": [_level(100 * tolerance)],
        },
    )


def _level(value: float) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": value,
        "y1": value,
        "line": {"color": RED, "width": 1.5, "dash": "dot"},
    }


def front_figure(rows: pd.DataFrame, metric: str, source: str) -> go.Figure:
    """Points from ``reports.front_rows``: latency against loss, the front joined by steps."""
    times = [r["Latency (µs)"] for r in records(rows)]
    low, high = min(times), max(times)
    margin = 0.06 * (high - low) or 0.1 * high
    losses = [r["Loss"] for r in records(rows) if math.isfinite(r["Loss"])]
    most = max([*losses, 1e-6])
    unit = " (points)" if metric == "accuracy" else ""
    best = pd.DataFrame(rows[rows["On the front"] == "yes"])
    rest = pd.DataFrame(rows[rows["On the front"] != "yes"])
    traces = [
        _points(rest, "slower and no better", LIGHT_GREY, joined=False),
        _points(best, "the front: nothing is both faster and better", GREEN, joined=True),
    ]
    return chart(
        traces,
        f"What time buys: latency against loss of {metric}",
        f"every point is a build, reproduced by its config · {source}",
        height=400,
        layout={
            "showlegend": True,
            "margin": {"b": 86},
            "xaxis": {
                "title": {"text": "latency (µs), sum of the kernels"},
                "range": [low - margin, high + margin],
            },
            "yaxis": {
                "title": {"text": f"loss of {metric}{unit}"},
                "range": [-0.1 * most, 1.1 * most],
            },
        },
    )


def _points(rows: pd.DataFrame, name: str, colour: str, *, joined: bool) -> dict[str, Any]:
    times = [r["Latency (µs)"] for r in records(rows)]
    middle = (min(times) + max(times)) / 2 if times else 0.0
    return {
        "type": "scatter",
        "mode": "lines+markers+text" if joined else "markers",
        "x": times,
        "y": rows["Loss"].tolist(),
        "text": rows["Point"].tolist(),
        # Towards the middle, where there is room; neighbours above and below.
        "textposition": [
            f"{'bottom' if i % 2 else 'top'} {'right' if t <= middle else 'left'}"
            for i, t in enumerate(times)
        ],
        "textfont": {"size": 11, "color": MUTED},
        "name": name,
        "line": {"shape": "hv", "color": colour, "width": 2},
        "marker": {"size": 11, "color": colour, "line": {"width": 1, "color": INK}},
        "customdata": rows[["Kept", "Coverage"]].values.tolist(),
        "hovertemplate": "%{text}: %{x:.0f} µs, loss %{y:.4g}<br>%{customdata[0]} layers kept, "
        "%{customdata[1]}<extra></extra>",
    }
