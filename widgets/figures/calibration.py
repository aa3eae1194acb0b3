"""A tensor's calibration histogram, where its values are clipped, and where others would."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from widgets.figures.style import BLUE, GREEN, INK, ORANGE, PINK, RED, chart


def calibration_figure(
    rows: pd.DataFrame,
    *,
    tensor: str,
    threshold: float,
    scale: float,
    clipped_share: float,
    source: str,
    others: Mapping[str, float] = MappingProxyType({}),
    thick: bool = False,
) -> go.Figure:
    """Bars from ``reports.histogram_rows`` on a logarithmic axis, with the clip line.

    source: the calibrator, the data and the device, for the subtitle. clipped_share: 0 to 1.
    others: thresholds by name, drawn as thin lines with a place in the legend. thick: whether
    the clip line is wide enough to be taken with the pointer.
    """
    magnitude = rows["Magnitude"].to_numpy(float)
    count = rows["Count"].to_numpy(float)
    width = float(magnitude[1] - magnitude[0]) if len(rows) > 1 else 1.0
    kept = magnitude <= threshold if clipped_share else magnitude >= 0  # the last bar's middle
    full = np.flatnonzero(count)
    ends = (threshold, *others.values())
    right = max(float(magnitude[full[-1]] + width) if full.size else 0.0, *ends)
    traces: list[dict[str, Any]] = []
    for name, here, colour in (("kept", kept, BLUE), ("clipped", ~kept, RED)):
        shown = here & (count > 0)
        traces.append(
            dict(
                type="bar",
                x=magnitude[shown].tolist(),
                y=count[shown].tolist(),
                width=width,
                name=name,
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate=f"|x| ≈ %{{x:.4g}}: %{{y:,}} values, {name}<extra></extra>",
            )
        )
    near = threshold > 0.6 * right
    top = float(np.log10(max(count.max(initial=1.0), 1.0))) + 0.3
    for (name, at), (colour, dash) in zip(others.items(), _OTHERS, strict=False):
        traces.append(
            dict(
                type="scatter",
                mode="lines",
                x=[at, at],
                y=[0.5, 10**top],
                name=f"{name} {at:.4g}",
                line={"color": colour, "width": 1.5, "dash": dash},
                hovertemplate=f"{name}: clip at {at:.4g}<extra></extra>",
            )
        )
    return chart(
        traces,
        f"Values of {tensor}",
        f"count of |x|, logarithmic; {int(count.sum()):,} values · {source}",
        height=350,
        layout={
            "barmode": "overlay",
            "showlegend": True,
            "bargap": 0,
            "margin": {"l": 12, "r": 20, "t": 64, "b": 78},
            "shapes": [_line(threshold, 4 if thick else 2)],
            "annotations": [
                {
                    "x": threshold,
                    "y": 1,
                    "yref": "paper",
                    "text": f"clip at {threshold:.4g}<br>scale {scale:.4g}, "
                    f"{100 * clipped_share:.3g}% clipped",
                    "showarrow": False,
                    "xanchor": "right" if near else "left",
                    "xshift": -7 if near else 7,
                    "yanchor": "top",
                    "align": "right" if near else "left",
                    "bgcolor": "rgba(255,255,255,0.85)",
                }
            ],
            "yaxis": {"type": "log", "title": {"text": "values"}, "range": [-0.3, top], "dtick": 1},
            "xaxis": {
                "title": {"text": "magnitude |x|"},
                "range": [0, 1.03 * right],
                "showgrid": False,
            },
        },
    )


_OTHERS = ((ORANGE, "dot"), (GREEN, "dashdot"), (PINK, "longdash"), (INK, "dot"))
"""Colour and dash of each of the other lines."""


def _line(threshold: float, width: int) -> dict[str, Any]:
    return {
        "type": "line",
        "x0": threshold,
        "x1": threshold,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": RED, "width": width, "dash": "dash"},
    }
