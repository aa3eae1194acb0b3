"""A network as a picture: boxes and arrows, alone or before and after with linked highlights."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from widgets.figures.arrows import edge_dots as dots_of
from widgets.figures.arrows import edge_shapes
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
SMALLEST = 0.85
"""Scale at which labels can still be read; what is wider than its window is dragged."""
HIGHLIGHT = "highlighted"


@dataclass(frozen=True)
class _Side:
    """One graph of a figure. boxes: outlined. dots: edge -> verdict, for those with a dot."""

    view: GraphView
    caption: str = ""
    boxes: tuple[int, ...] = ()
    dots: Mapping[int, str] | None = None


def network_figure(
    view: GraphView,
    title: str,
    subtitle: str = "",
    *,
    colour_by: str = "kind",
    highlight: Iterable[int] = (),
    height: int = 0,
    edge_dots: Mapping[int, str] | None = None,
) -> go.Figure:
    """One network. ``highlight``: indices of boxes. ``height`` in pixels; 0 fits the graph.

    edge_dots: indices of edges, each with a key of ``arrows.DOTS``. Their dots are a trace named
    ``arrows.EDGES`` whose ``customdata`` are those indices.
    """
    side = _Side(view, "", tuple(highlight), edge_dots)
    return _figure([side], title, subtitle, colour_by, height)


def before_after_figure(
    before: GraphView,
    after: GraphView,
    title: str,
    subtitle: str = "",
    *,
    colour_by: str = "kind",
    selected: tuple[int, int] | None = None,
    highlight: tuple[Sequence[int], Sequence[int]] | None = None,
    height: int = 0,
    captions: tuple[str, str] = ("Before", "After"),
    edge_dots: tuple[Mapping[int, str], Mapping[int, str]] | None = None,
) -> go.Figure:
    """Two networks side by side. ``selected``: (side, box); what it is linked to is highlighted.

    highlight: the boxes of each side, where no one box is selected. ``layout.meta["sides"]`` holds
    the boxes and their origins, for ``linked_boxes``. edge_dots: as for one network, of each side.
    """
    boxes = highlight if highlight is not None else linked_boxes((before, after), selected)
    dots = edge_dots or (None, None)
    sides = [
        _Side(view, f"{caption}: {_count(view)}", tuple(outlined), marks)
        for view, caption, outlined, marks in zip(
            (before, after), captions, boxes, dots, strict=True
        )
    ]
    return _figure(sides, title, subtitle, colour_by, height)


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


def show_boxes(figure: Any, boxes: Sequence[Sequence[int]]) -> None:
    """Move the window of each side to its boxes, where one of them is out of sight."""
    for number, (side, indices) in enumerate(zip(figure.layout.meta["sides"], boxes, strict=True)):
        name = _suffix(number)
        x, y = figure.layout[f"xaxis{name}"], figure.layout[f"yaxis{name}"]
        low, high = y.range
        places = [side["boxes"][i] for i in indices]
        if not places or all(low < v < high for _, v in places):
            continue
        middle = sum(v for _, v in places) / len(places)
        across = sum(u for u, _ in places) / len(places) - sum(x.range) / 2
        with figure.batch_update():
            y.range = [middle - (high - low) / 2, middle + (high - low) / 2]
            x.range = [x.range[0] + across, x.range[1] + across]


def _figure(
    sides: Sequence[_Side], title: str, subtitle: str, colour_by: str, height: int
) -> go.Figure:
    if colour_by not in COLOURINGS:
        raise ValueError(f"colour_by is {colour_by!r}; use one of {', '.join(COLOURINGS)}")
    graphs = [lay_out(side.view) for side in sides]
    traces: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    shown: set[str] = set()
    for number, (graph, side) in enumerate(zip(graphs, sides, strict=True)):
        axes = {"xaxis": f"x{_suffix(number)}", "yaxis": f"y{_suffix(number)}"}
        places = [graph.centres[i] for i in side.boxes]
        edges += edge_shapes(graph, axes)
        traces += _boxes(graph, colour_by, axes, shown)
        traces.append(_outline(_outline_data(places), graph.box_width, axes))
        if side.dots is not None:
            traces.append(dots_of(graph, side.dots, axes))
    top = 96 if len(sides) > 1 else 64
    if not height:
        tallest = max(g.height for g in graphs) + top + MARGIN_BOTTOM + RANK_HEIGHT / 2
        height = math.ceil(max(tallest, 220)) if tallest <= TALLEST else 720
    layout: dict[str, Any] = {
        "barmode": "overlay",
        "dragmode": "pan",
        "margin": {"t": top, "b": MARGIN_BOTTOM, "l": 8, "r": 8},
        "uniformtext": {"minsize": 8, "mode": "hide"},
        "legend": {"itemclick": False, "itemdoubleclick": False},
        "shapes": edges,
        "meta": {"graph": True, "sides": [_meta(g) for g in graphs]},
        "annotations": [
            _caption(side.caption, _domain(number, len(sides))[0])
            for number, side in enumerate(sides)
            if side.caption
        ],
    }
    for number, (graph, side) in enumerate(zip(graphs, sides, strict=True)):
        focus = [graph.centres[i] for i in side.boxes]
        layout |= _axes(graph, number, len(graphs), height - top - MARGIN_BOTTOM, focus)
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


def _axes(
    graph: LayeredGraph, number: int, count: int, room: float, focus: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """The window shows the boxes in ``focus``, else the top, at a scale where text can be read."""
    narrow = 980 if count == 1 else 480
    scale = min(1.0, max(SMALLEST, narrow / graph.width))
    span = room / scale
    upper = BOX_HEIGHT / 2 + 6
    if focus and graph.height + RANK_HEIGHT / 2 > span + 1:
        middle = sum(y for _, y in focus) / len(focus)
        upper = max(min(upper, middle + span / 2), span - graph.height - RANK_HEIGHT / 2)
    seen = [x for x, y in graph.centres if upper - span < y < upper] or [0.0]
    middle = (min(seen) + max(seen)) / 2
    if focus and max(seen) - min(seen) > narrow / scale:
        middle = sum(x for x, _ in focus) / len(focus)
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
