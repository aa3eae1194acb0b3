"""The arrows of a network's graph, and the dots on them that can be clicked."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from widgets.figures.layered import LayeredGraph
from widgets.figures.style import GREEN, INK, ORANGE

EDGE = "#8794a3"
EDGES = "edges"
DOTS: Mapping[str, tuple[str, str, int]] = MappingProxyType(
    {
        "joined": (GREEN, "circle", 9),
        "mendable": (ORANGE, "diamond", 11),
        "apart": ("#ffffff", "circle", 9),
    }
)
"""Colour, symbol and size of the dot on an arrow, by the verdict on its two layers."""


def edge_shapes(graph: LayeredGraph, axes: dict[str, str]) -> list[dict[str, Any]]:
    """Two shapes: every line, and every arrowhead.

    As traces they would be an SVG element an edge, and 2,000 of them take a third of a second.
    """
    lines = "".join("M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in line) for line in graph.lines())
    heads = "".join(
        f"M{x - 3.5:.1f},{y + 6:.1f}L{x + 3.5:.1f},{y + 6:.1f}L{x:.1f},{y:.1f}Z"
        for x, y in (route[-1] for route in graph.routes)
    )
    common = {
        "type": "path",
        "xref": axes["xaxis"],
        "yref": axes["yaxis"],
        "layer": "below",
        "fillcolor": "rgba(0,0,0,0)",
    }
    return [
        {**common, "path": lines or "M0,0", "line": {"color": EDGE, "width": 1.3}},
        {**common, "path": heads or "M0,0", "fillcolor": EDGE, "line": {"width": 0}},
    ]


def edge_dots(graph: LayeredGraph, dots: Mapping[int, str], axes: dict[str, str]) -> dict[str, Any]:
    """A dot in the middle of each of these arrows."""
    nodes = graph.view.nodes
    middles = [_middle(graph.routes[i]) for i in dots]
    ends = [graph.view.edges[i] for i in dots]
    colours, symbols, sizes = (
        zip(*(DOTS[d] for d in dots.values()), strict=True) if dots else [()] * 3
    )
    return dict(
        type="scatter",
        x=[x for x, _ in middles],
        y=[y for _, y in middles],
        mode="markers",
        name=EDGES,
        showlegend=False,
        marker={
            "size": list(sizes),
            "color": list(colours),
            "symbol": list(symbols),
            "line": {"color": EDGE, "width": 1.6},
        },
        customdata=list(dots),
        hovertext=[
            f"<b>{html.escape(nodes[a].id)} → {html.escape(nodes[b].id)}</b><br>"
            f"{html.escape(kind)}<br>click: why not fused?"
            for a, b, kind in ends
        ],
        hoverinfo="text",
        hoverlabel={"bgcolor": "#ffffff", "font": {"color": INK}},
        **axes,
    )


def _middle(route: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The middle of a line's last stretch: that one it shares with no other."""
    (x, y), (u, v) = route[-2], route[-1]
    return (x + u) / 2, (y + v) / 2
