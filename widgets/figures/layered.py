"""Where the boxes and arrows of a network's graph go: layers from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from widgets.figures.alignment import abscissas
from widgets.figures.rows import layering
from workbench.reports import GraphView

BOX_HEIGHT = 21.0
RANK_HEIGHT = 33.0
GAP = 18.0
BEND = 12.0
"""Room that an arrow takes where it crosses a row."""
CHARACTER = 6.7
"""Width of an average character of the 11 px label."""
LONGEST = 26

Point = tuple[float, float]
_SHORT = {
    "BatchNormalization": "BatchNorm",
    "LayerNormalization": "LayerNorm",
    "QuantizeLinear": "Quantize",
    "DequantizeLinear": "Dequantize",
    "GlobalAveragePool": "GlobalAvgPool",
}
_WRAPPING = ("QuantizeLinear", "DequantizeLinear", "Cast")


@dataclass(frozen=True)
class LayeredGraph:
    """A graph laid out, in pixels at scale 1; y grows upwards and the first layer is at the top.

    centres: of each box. routes: each edge's line, from the edge of one box to that of the next.
    labels: what fits on each box.
    """

    view: GraphView
    labels: tuple[str, ...]
    centres: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]
    box_width: float

    @property
    def width(self) -> float:
        xs = [x for x, _ in self.centres] or [0.0]
        return max(xs) - min(xs) + self.box_width

    @property
    def height(self) -> float:
        return -min((y for _, y in self.centres), default=0.0) + BOX_HEIGHT

    def lines(self) -> Iterator[Sequence[Point]]:
        """What to draw of the routes: arrows from one box share a trunk, which is drawn once."""
        drawn: set[tuple[Point, ...]] = set()
        for route in self.routes:
            shared = 0
            while shared < len(route) - 2 and route[shared : shared + 2] in drawn:
                shared += 1
            drawn.update(pairwise(route))
            yield route[shared:]


def lay_out(view: GraphView) -> LayeredGraph:
    """Place a graph's boxes and route its arrows."""
    labels = tuple(label_of(n.label, n.precision) for n in view.nodes)
    box_width = CHARACTER * max((len(x) for x in labels), default=8) + 16
    rows = ranks(view)
    found = layering(rows, [(a, b) for a, b, _ in view.edges])
    widths = [box_width if v < found.boxes else BEND for v in range(len(found.above))]
    top = min(rows, default=0)
    heights = {rank: (top - rank) * RANK_HEIGHT for rank in range(top, top + len(found.rows))}
    xs = abscissas(found, lambda v, w: (widths[v] + widths[w]) / 2 + GAP)
    centres = tuple((xs[i], heights[rank]) for i, rank in enumerate(rows))
    routes = tuple(
        _route(
            centres[a],
            [(xs[found.trunks[a][r]], heights[r]) for r in range(rows[a] + 1, rows[b])],
            centres[b],
        )
        for a, b, _ in view.edges
    )
    return LayeredGraph(view, labels, centres, routes, box_width)


def ranks(view: GraphView) -> list[int]:
    """The row of each box: below all that it reads.

    What reads nothing, such as the DequantizeLinear of a weight, stands just above its first
    reader, so that no arrow runs past the whole graph. Edges lead from earlier boxes to later ones.
    """
    before: list[list[int]] = [[] for _ in view.nodes]
    after: list[list[int]] = [[] for _ in view.nodes]
    for a, b, _ in view.edges:
        before[b].append(a)
        after[a].append(b)
    found = [0] * len(view.nodes)
    for i, read in enumerate(before):
        found[i] = max((found[k] + 1 for k in read), default=0)
    for i, n in enumerate(view.nodes):
        if n.kind != "Input" and not before[i] and after[i]:
            found[i] = min(found[k] for k in after[i]) - 1
    return found


def label_of(operators: str, precision: str) -> str:
    """A box's text: what it computes, and its precision unless FP32.

    The casts and quantizations around an operator are what the precision says already.
    """
    names = operators.split(" + ")
    computing = [n for n in names if n not in _WRAPPING] or names
    runs: list[list[str]] = []
    for n in (_SHORT.get(n, n) for n in computing):
        if runs and runs[-1][0] == n:
            runs[-1].append(n)
        else:
            runs.append([n])
    text = " + ".join(r[0] if len(r) == 1 else f"{len(r)}×{r[0]}" for r in runs)
    suffix = f" · {precision}" if precision not in ("", "FP32") else ""
    room = LONGEST - len(suffix)
    return (text if len(text) <= room else f"{text[: room - 1].rstrip(' +')}…") + suffix


def _route(start: Point, bends: list[Point], end: Point) -> tuple[Point, ...]:
    """A line that moves sideways only between the ranks, so that it crosses no box."""
    half = BOX_HEIGHT / 2
    points = [(start[0], start[1] - half)]
    for x, y in bends:
        points += [(x, y + half), (x, y - half)]
    points.append((end[0], end[1] + half))
    return tuple(points)
