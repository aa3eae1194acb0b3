"""A tensor's calibration histogram, and where its values are clipped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from widgets.figures.style import BLUE, RED, finish


def calibration_figure(
    rows: pd.DataFrame,
    *,
    tensor: str,
    threshold: float,
    scale: float,
    clipped_share: float,
    source: str,
) -> go.Figure:
    """Bars from ``reports.histogram_rows`` on a logarithmic axis, with the clip line.

    source: the calibrator, the data and the device, for the subtitle. clipped_share: 0 to 1.
    """
    magnitude = rows["Magnitude"].to_numpy(float)
    count = rows["Count"].to_numpy(float)
    width = float(magnitude[1] - magnitude[0]) if len(rows) > 1 else 1.0
    kept = magnitude <= threshold
    figure = go.Figure()
    for name, here, colour in (("kept", kept, BLUE), ("clipped", ~kept, RED)):
        shown = here & (count > 0)
        figure.add_trace(
            go.Bar(
                x=magnitude[shown].tolist(),
                y=count[shown].tolist(),
                width=width,
                name=name,
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate=f"|x| ≈ %{{x:.4g}}: %{{y:,}} values, {name}<extra></extra>",
            )
        )
    figure.add_vline(x=threshold, line={"color": RED, "width": 2, "dash": "dash"})
    right = float(magnitude[-1] + width) if len(rows) else threshold
    near = threshold > 0.6 * max(right, threshold)
    figure.add_annotation(
        x=threshold,
        y=1,
        yref="paper",
        text=f"clip at {threshold:.4g}<br>scale {scale:.4g}, {100 * clipped_share:.3g}% clipped",
        showarrow=False,
        xanchor="right" if near else "left",
        xshift=-6 if near else 6,
        yanchor="top",
        align="right" if near else "left",
        bgcolor="rgba(255,255,255,0.85)",
        font={"size": 12, "color": "#9a3412"},
    )
    finish(
        figure,
        f"Values of {tensor}",
        f"count of |x|, logarithmic; {int(count.sum()):,} values · {source}",
        height=340,
    )
    top = float(np.log10(max(count.max(initial=1.0), 1.0))) + 0.25
    figure.update_layout(barmode="overlay", bargap=0, margin={"b": 76})
    figure.update_layout(legend={"y": 0, "yref": "container", "yanchor": "bottom"})
    figure.update_yaxes(type="log", title={"text": "values"}, range=[-0.3, top], dtick=1)
    figure.update_xaxes(
        title={"text": "magnitude |x|"}, range=[0, 1.02 * max(right, threshold)], showgrid=False
    )
    return figure
