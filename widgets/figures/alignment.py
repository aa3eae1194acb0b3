"""How far to the right each box stands: arrows as straight as the order of the rows allows.

Source: U. Brandes and B. Köpf, "Fast and Simple Horizontal Coordinate Assignment", Graph Drawing
2001, LNCS 2265 (2002), and its erratum, arXiv:2008.01252. Compaction is by longest paths over
blocks rather than by their classes, as in dagre.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from widgets.figures.rows import Layering, Neighbours, Rows

Conflicts = frozenset[tuple[int, int]]
Step = Callable[[int, int], float]


def abscissas(found: Layering, step: Step) -> list[float]:
    """Of each box and bend, its middle.

    step(v, w): the least distance of two that stand side by side. Four layouts, leaning to each
    corner, give four places for each; its own is the mean of the two in the middle.
    """
    bent = _conflicts(found)
    leaning: list[list[float]] = []
    for neighbours, rows in ((found.above, found.rows), (found.below, found.rows[::-1])):
        leaning.append(_compact(rows, _blocks(rows, neighbours, bent), step))
        mirrored = [row[::-1] for row in rows]
        blocks = _blocks(mirrored, neighbours, bent)
        leaning.append([-x for x in _compact(mirrored, blocks, step)])
    narrowest = min(leaning, key=lambda xs: max(xs, default=0.0) - min(xs, default=0.0))
    shifted = [
        _shifted(xs, max(narrowest) - max(xs) if mirrored else min(narrowest) - min(xs))
        for xs, mirrored in zip(leaning, (False, True, False, True), strict=True)
        if xs
    ]
    return [sum(sorted(places)[1:3]) / 2 for places in zip(*shifted, strict=True)]


def _shifted(xs: list[float], by: float) -> list[float]:
    return [x + by for x in xs]


def _conflicts(found: Layering) -> Conflicts:
    """Stretches that cross one between two bends: long arrows stay straight, these don't."""
    marked: set[tuple[int, int]] = set()
    for upper, lower in pairwise(found.rows):
        place = {v: i for i, v in enumerate(upper)}
        left, scanned = 0, 0
        for i, v in enumerate(lower):
            trunk = next((w for w in found.above[v] if min(v, w) >= found.boxes), None)
            if trunk is None and i < len(lower) - 1:
                continue
            right = place[trunk] if trunk is not None else len(upper) - 1
            for w in lower[scanned : i + 1]:
                marked.update(
                    (u, w)
                    for u in found.above[w]
                    if not left <= place[u] <= right and min(u, w) < found.boxes
                )
            scanned, left = i + 1, right
    return frozenset(marked)


def _blocks(rows: Rows, neighbours: Neighbours, bent: Conflicts) -> list[int]:
    """Of each box and bend, the first of its block: those that stand right below one another.

    neighbours: of each, those in the row before. Each stands below the middle one of them, where
    that crosses nothing aligned so far.
    """
    block = list(range(len(neighbours)))
    place = {v: i for row in rows for i, v in enumerate(row)}
    for _, row in pairwise(rows):
        last = -1
        for v in row:
            near = sorted(neighbours[v], key=place.__getitem__)
            middle = (len(near) - 1) / 2
            for k in sorted({int(middle), int(middle + 0.5)}) if near else ():
                w = near[k]
                if block[v] == v and place[w] > last and not {(v, w), (w, v)} & bent:
                    block[v], last = block[w], place[w]
    return block


def _compact(rows: Rows, block: list[int], step: Step) -> list[float]:
    """As far left as the order in the rows allows, then each block as near its right as it can."""
    after: dict[int, dict[int, float]] = {b: {} for b in block}
    for row in rows:
        for v, w in pairwise(row):
            a, b = block[v], block[w]
            after[a][b] = max(after[a].get(b, 0.0), step(v, w))
    order = _topological(after)
    place = dict.fromkeys(order, 0.0)
    for a in order:
        for b, distance in after[a].items():
            place[b] = max(place[b], place[a] + distance)
    for a in reversed(order):
        if after[a]:
            place[a] = min(place[b] - distance for b, distance in after[a].items())
    return [place[b] for b in block]


def _topological(after: dict[int, dict[int, float]]) -> list[int]:
    """Blocks in an order from left to right. Aligned stretches never cross, so there is one."""
    waiting = dict.fromkeys(after, 0)
    for following in after.values():
        for b in following:
            waiting[b] += 1
    ready = [b for b, count in waiting.items() if not count]
    order: list[int] = []
    while ready:
        a = ready.pop()
        order.append(a)
        for b in after[a]:
            waiting[b] -= 1
            if not waiting[b]:
                ready.append(b)
    assert len(order) == len(after), "blocks stand in a circle"
    return order
