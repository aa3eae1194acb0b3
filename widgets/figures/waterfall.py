"""The waterfall: what the time of a whole run is made of, from the first copy to the last."""

from __future__ import annotations

from itertools import accumulate

import pandas as pd
import plotly.graph_objects as go

from widgets.columns import number_text, records
from widgets.figures.style import (
    BLUE,
    GREEN,
    GREY,
    LIGHT_GREY,
    ORANGE,
    PINK,
    SKY,
    chart,
    downwards,
    said_of,
)

COLOURS = {
    "kernels": BLUE,
    "reformats": ORANGE,
    "launch gaps": PINK,
    "CUDA graph": GREEN,
    "joined calls": GREEN,
    "copies": SKY,
    "residual": LIGHT_GREY,
}
"""By the parts of ``reports.waterfall_rows``."""
WHOLE = "end to end"


def waterfall_figure(rows: pd.DataFrame, device: str, *, inputs: str = "") -> go.Figure:
    """From ``reports.waterfall_rows``: each bar starts where the one before ends, then the whole.

    What a part saves runs to the left. inputs: what was run.
    """
    parts = records(rows)
    times = [float(r["Median (µs)"]) for r in parts]
    ends = list(accumulate(times))
    starts = [0.0, *ends[:-1]]
    whole = ends[-1] if ends else 0.0
    names = [*(str(r["Part"]) for r in parts), WHOLE]
    lengths, bases = [*times, whole], [*starts, 0.0]
    texts = [f"{'−' if t < 0 else ''}{number_text(abs(t))} µs" for t in lengths]
    what = [*(str(r["What"]) for r in parts), "what the caller waits, on host arrays"]
    reach = max([whole, *ends, *starts, 1e-9])
    low = min([0.0, *ends])
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": lengths,
        "base": bases,
        "marker": {
            "color": [COLOURS.get(n, GREY) for n in names],
            "cornerradius": 2,
            "pattern": {"shape": ["/" if t < 0 else "" for t in lengths]},
        },
        "hoverinfo": "skip",
        "showlegend": False,
    }
    # The figures stand right of each bar's right end, whichever way it runs.
    labels = {
        "type": "scatter",
        "mode": "text",
        "y": names,
        "x": [max(b, b + t) for b, t in zip(bases, lengths, strict=True)],
        "text": [f"  {t}" for t in texts],
        "textposition": "middle right",
        "cliponaxis": False,
        "showlegend": False,
        "customdata": what,
        "hovertemplate": "<b>%{y}</b>%{text}<br>%{customdata}<extra></extra>",
    }
    steps = [
        {
            "type": "line",
            "x0": end,
            "x1": end,
            "y0": k + 0.36,
            "y1": k + 0.64,
            "line": {"color": "#7b8794", "width": 1},
        }
        for k, end in enumerate(ends)
    ]
    return chart(
        [bar, labels],
        f"Where {number_text(whole)} µs go",
        "medians; hatched: saved" + said_of(rows, inputs, device),
        height=128 + 34 * len(names),
        layout={
            "bargap": 0.28,
            "shapes": steps,
            "margin": {"l": 12, "r": 20, "t": 68, "b": 60},
            "yaxis": downwards(names),
            "xaxis": {
                "title": {"text": "time from the start (µs)"},
                "range": [1.05 * low, 1.16 * reach],
            },
        },
    )
