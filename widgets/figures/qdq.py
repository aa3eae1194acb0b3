"""The network after Fuse with its Q and DQ: absorbed ones are gone, those left are outlined."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from widgets.figures.graph import before_after_figure, network_figure
from workbench.reports import GraphView


def quantization_figure(
    fused: GraphView,
    unfused: Sequence[str],
    title: str,
    *,
    placed: GraphView | None = None,
    subtitle: str = "",
) -> go.Figure:
    """Boxes coloured by the type that they compute in; outlined are the Q and DQ left alone.

    unfused: their layers, from ``reports.unfused_quantizers``. placed: the network before Fuse, to
    be drawn beside it with all its Q and DQ outlined.
    """
    left = [i for i, n in enumerate(fused.nodes) if n.id in set(unfused)]
    if placed is None:
        return network_figure(fused, title, subtitle, colour_by="precision", highlight=left)
    kinds = ("QuantizeLinear", "DequantizeLinear")
    all_of_them = [i for i, n in enumerate(placed.nodes) if n.kind in kinds]
    return before_after_figure(
        placed,
        fused,
        title,
        subtitle,
        colour_by="precision",
        highlight=(all_of_them, left),
        captions=("After Calibrate", "After Fuse"),
    )
