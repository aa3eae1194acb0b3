"""A network as a picture: boxes and arrows, alone or before and after with linked highlights."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from widgets.figures.layered import BOX_HEIGHT, RANK_HEIGHT, LayeredGraph, lay_out
from widgets.figures.style import (
    FAMILIES,
    OUTLINE,
    chart,
    family_colour,
    family_of,
    precision_colour,
    support_colour,
    text_on,
)
from workbench.reports import GraphView

COLOURINGS = ("kind", "precision", "support")
MARGIN_BOTTOM = 40
TALLEST = 880
"""Pixels; a longer graph shows its top 720 and is dragged or zoomed."""
EDGE = "#8794a3"
SMALLEST = 0.75
"""Scale at which labels can still be read; what is wider than its window is dragged."""
HIGHLIGHT = "highlighted"
EDGES = "edges"


def network_figure(
    view: GraphView,
    title: str,
    subtitle: str = "",
    *,
    colour_by: str = "kind",
    highlight: Iterable[int] = (),
    height: int = 0,
    edge_dots: bool = False,
) -> go.Figure:
    """One network. ``highlight``: indices of boxes. ``height`` in pixels; 0 fits the graph.

    edge_dots: a dot on each arrow between two layers, in a trace named ``EDGES`` whose
    ``customdata`` are indices of the view's edges.
    """
    figure = _figure([(view, "", tuple(highlight))], title, subtitle, colour_by, height)
    if edge_dots:
        figure.add_scatter(**_edge_dots(lay_out(view)))
    return figure


def before_after_figure(
    before: GraphView,
    after: GraphView,
    title: str,
    subtitle: str = "",
    *,
    colour_by: str = "kind",
    selected: tuple[int, int] | None = None,
    height: int = 0,
    captions: tuple[str, str] = ("Before", "After"),
) -> go.Figure:
    """Two networks side by side. ``selected``: (side, box); what it is linked to is highlighted.

    ``layout.meta["sides"]`` holds the boxes and their origins, for ``linked_boxes``.
    """
    left, right = linked_boxes((before, after), selected)
    return _figure(
        [
            (before, f"{captions[0]}: {_count(before)}", left),
            (after, f"{captions[1]}: {_count(after)}", right),
        ],
        title,
        subtitle,
        colour_by,
        height,
    )


def linked_boxes(
    views: tuple[GraphView, GraphView], selected: tuple[int, int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The boxes on either side that share a model node with the selected one, itself included."""
    if selected is None:
        return (), ()
    side, index = selected
    nodes = set(views[side].nodes[index].origin)
    found = [tuple(i for i, n in enumerate(v.nodes) if nodes & set(n.origin)) for v in views]
    if index not in found[side]:
        found[side] = (*found[side], index)
    return found[0], found[1]


def set_highlight(figure: Any, boxes: Sequence[Sequence[int]]) -> None:
    """Move the outlines of a figure made here: for each side, the indices of its boxes."""
    sides = figure.layout.meta["sides"]
    outlines = [t for t in figure.data if t.name == HIGHLIGHT]
    for trace, side, indices in zip(outlines, sides, boxes, strict=True):
        places = [side["boxes"][i] for i in indices]
        trace.update(_outline_data(places))


def _figure(
    sides: Sequence[tuple[GraphView, str, tuple[int, ...]]],
    title: str,
    subtitle: str,
    colour_by: str,
    height: int,
) -> go.Figure:
    if colour_by not in COLOURINGS:
        raise ValueError(f"colour_by is {colour_by!r}; use one of {', '.join(COLOURINGS)}")
    graphs = [lay_out(view) for view, _, _ in sides]
    traces: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    shown: set[str] = set()
    for number, (graph, (_, _, boxes)) in enumerate(zip(graphs, sides, strict=True)):
        axes = {"xaxis": f"x{_suffix(number)}", "yaxis": f"y{_suffix(number)}"}
        places = [graph.centres[i] for i in boxes]
        edges += _edges(graph, axes)
        traces += _boxes(graph, colour_by, axes, shown)
        traces.append(_outline(_outline_data(places), graph.box_width, axes))
    top = 96 if len(sides) > 1 else 64
    if not height:
        tallest = max(g.height for g in graphs) + top + MARGIN_BOTTOM + RANK_HEIGHT / 2
        height = int(max(tallest, 220)) if tallest <= TALLEST else 720
    layout: dict[str, Any] = {
        "barmode": "overlay",
        "dragmode": "pan",
        "margin": {"t": top, "b": MARGIN_BOTTOM, "l": 8, "r": 8},
        "uniformtext": {"minsize": 8, "mode": "hide"},
        "legend": {"itemclick": False, "itemdoubleclick": False},
        "shapes": edges,
        "meta": {"graph": True, "sides": [_meta(g) for g in graphs]},
        "annotations": [
            _caption(caption, _domain(number, len(sides))[0])
            for number, (_, caption, _) in enumerate(sides)
            if caption
        ],
    }
    for number, graph in enumerate(graphs):
        layout |= _axes(graph, number, len(graphs), height - top - MARGIN_BOTTOM)
    return chart(traces, title, subtitle, height=height, layout=layout)


def _suffix(number: int) -> str:
    return str(number + 1) if number else ""


def _caption(text: str, x: float) -> dict[str, Any]:
    return {
        "text": f"<b>{text}</b>",
        "x": x,
        "y": 1.0,
        "xshift": 4,
        "yshift": 5,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 13},
    }


def _domain(number: int, count: int) -> tuple[float, float]:
    return (0.0, 1.0) if count == 1 else ((0.0, 0.492) if not number else (0.508, 1.0))


def _axes(graph: LayeredGraph, number: int, count: int, room: float) -> dict[str, Any]:
    """The window shows the top of the graph at a scale where labels can be read."""
    narrow = 980 if count == 1 else 480
    scale = min(1.0, max(SMALLEST, narrow / graph.width))
    span = room / scale
    upper = BOX_HEIGHT / 2 + 6
    seen = [x for x, y in graph.centres if y > upper - span] or [0.0]
    middle = (min(seen) + max(seen)) / 2
    name = _suffix(number)
    return {
        f"xaxis{name}": {
            "visible": False,
            "domain": _domain(number, count),
            "anchor": f"y{name}",
            "range": [middle - 1, middle + 1],
            "scaleanchor": f"y{name}",
        },
        f"yaxis{name}": {
            "visible": False,
            "anchor": f"x{name}",
            "range": [upper - span, upper],
        },
    }


def _edges(graph: LayeredGraph, axes: dict[str, str]) -> list[dict[str, Any]]:
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


def _edge_dots(graph: LayeredGraph) -> dict[str, Any]:
    """A dot in the middle of each arrow between two layers."""
    nodes = graph.view.nodes
    inner = [
        i
        for i, (a, b, _) in enumerate(graph.view.edges)
        if nodes[a].kind != "Input" and nodes[b].kind != "Output"
    ]
    middles = [_middle(graph.routes[i]) for i in inner]
    ends = [graph.view.edges[i] for i in inner]
    return dict(
        x=[x for x, _ in middles],
        y=[y for _, y in middles],
        mode="markers",
        name=EDGES,
        showlegend=False,
        marker={"size": 9, "color": "#ffffff", "line": {"color": EDGE, "width": 1.6}},
        customdata=inner,
        hovertext=[
            f"<b>{html.escape(nodes[a].id)} → {html.escape(nodes[b].id)}</b><br>"
            f"{html.escape(kind)}<br>click: why not fused?"
            for a, b, kind in ends
        ],
        hoverinfo="text",
        xaxis="x",
        yaxis="y",
    )


def _middle(route: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The middle of a line's last stretch: that one it shares with no other."""
    (x, y), (u, v) = route[-2], route[-1]
    return (x + u) / 2, (y + v) / 2


def _boxes(
    graph: LayeredGraph, colour_by: str, axes: dict[str, str], shown: set[str]
) -> list[dict[str, Any]]:
    """A bar trace a colour. Plotly fits each bar's text into it, or leaves it out."""
    groups: dict[str, list[int]] = {}
    for i, n in enumerate(graph.view.nodes):
        group = family_of(n.kind)
        if colour_by != "kind":
            group = getattr(n, colour_by) or "Input, output"
        groups.setdefault(group, []).append(i)
    order = [t for t, _, _ in FAMILIES]
    traces: list[dict[str, Any]] = []
    for group in sorted(groups, key=lambda g: (order.index(g) if g in order else -1, g)):
        members = groups[group]
        colour = _colour(group, colour_by)
        traces.append(
            dict(
                type="bar",
                x=[graph.centres[i][0] for i in members],
                base=[graph.centres[i][1] - BOX_HEIGHT / 2 for i in members],
                y=[BOX_HEIGHT] * len(members),
                width=graph.box_width,
                name=group,
                legendgroup=group,
                showlegend=group not in shown,
                marker={"color": colour, "cornerradius": 5, "line": {"width": 0}},
                text=[graph.labels[i] for i in members],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"size": 11, "color": text_on(colour)},
                customdata=members,
                hovertext=[_hover(graph, i) for i in members],
                hoverinfo="text",
                **axes,
            )
        )
        shown.add(group)
    return traces


def _colour(group: str, colour_by: str) -> str:
    if colour_by == "kind" or group == "Input, output":
        return family_colour(group)
    return support_colour(group) if colour_by == "support" else precision_colour(group)


def _hover(graph: LayeredGraph, index: int) -> str:
    n = graph.view.nodes[index]
    lines = [f"<b>{html.escape(n.label)}</b>", html.escape(n.detail)]
    if n.precision:
        lines.append(f"precision: {n.precision}")
    if n.origin:
        more = len(n.origin) - 6
        names = ", ".join(n.origin[:6]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"model nodes: {html.escape(names)}")
    return "<br>".join(_wrapped(x) for x in lines)


def _wrapped(text: str, width: int = 78) -> str:
    words, lines = text.split(" "), [""]
    for w in words:
        if lines[-1] and len(lines[-1]) + len(w) >= width:
            lines.append("")
        lines[-1] += f" {w}" if lines[-1] else w
    return "<br>   ".join(lines)


def _outline(data: dict[str, Any], width: float, axes: dict[str, str]) -> dict[str, Any]:
    return dict(
        type="bar",
        **data,
        width=width + 6,
        name=HIGHLIGHT,
        showlegend=False,
        hoverinfo="skip",
        marker={
            "color": "rgba(0,0,0,0)",
            "line": {"color": OUTLINE, "width": 3},
            "cornerradius": 7,
        },
        **axes,
    )


def _outline_data(places: Sequence[Sequence[float]]) -> dict[str, Any]:
    return {
        "x": [p[0] for p in places],
        "base": [p[1] - BOX_HEIGHT / 2 - 3 for p in places],
        "y": [BOX_HEIGHT + 6] * len(places),
    }


def _meta(graph: LayeredGraph) -> dict[str, Any]:
    return {
        "boxes": [list(c) for c in graph.centres],
        "height": BOX_HEIGHT,
        "origins": [list(n.origin) for n in graph.view.nodes],
        "ids": [n.id for n in graph.view.nodes],
    }


def _count(view: GraphView) -> str:
    layers = sum(n.kind not in ("Input", "Output") for n in view.nodes)
    return f"{layers} layer{'s' if layers != 1 else ''}"
