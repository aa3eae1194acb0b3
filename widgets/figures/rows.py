"""Rows of boxes: long arrows cut into stretches, and an order of each row with few crossings.

Source: K. Sugiyama, S. Tagawa and M. Toda, "Methods for Visual Understanding of Hierarchical
System Structures", IEEE Transactions on Systems, Man, and Cybernetics 11 (1981).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 24
PATIENCE = 4
"""Sweeps without fewer crossings after which the order stays."""

Rows = list[list[int]]
Neighbours = list[list[int]]


@dataclass(frozen=True)
class Layering:
    """Boxes 0 to ``boxes - 1``, and after them the bends: where an arrow crosses a row.

    rows: boxes and bends from left to right, the top row first. above, below: of each, what it is
    joined to in the row before and after. Every stretch of an arrow leads from a row to the next.
    trunks: of each box, its bends by row; all the arrows that leave a box share them.
    """

    boxes: int
    rows: Rows
    above: Neighbours
    below: Neighbours
    trunks: tuple[dict[int, int], ...]


def layering(ranks: Sequence[int], edges: Sequence[tuple[int, int]]) -> Layering:
    """Boxes in the rows that ``ranks`` gives, in an order with few crossings.

    edges: each leads from a box to one of a higher rank.
    """
    top = min(ranks, default=0)
    rows: Rows = [[] for _ in range(max(ranks, default=0) - top + 1)]
    for box, rank in enumerate(ranks):
        rows[rank - top].append(box)
    joints: list[tuple[int, int]] = []
    trunks: tuple[dict[int, int], ...] = tuple({} for _ in ranks)
    count = len(ranks)
    for a, b in dict.fromkeys(edges):
        last, trunk = a, trunks[a]
        for rank in range(ranks[a] + 1, ranks[b]):
            if rank not in trunk:
                trunk[rank] = count
                rows[rank - top].append(count)
                joints.append((last, count))
                count += 1
            last = trunk[rank]
        joints.append((last, b))
    above: Neighbours = [[] for _ in range(count)]
    below: Neighbours = [[] for _ in range(count)]
    for a, b in joints:
        below[a].append(b)
        above[b].append(a)
    return Layering(len(ranks), _untangled(rows, above, below), above, below, trunks)


def _untangled(rows: Rows, above: Neighbours, below: Neighbours) -> Rows:
    """The rows in the best order that the sweeps came across."""
    order = _by_depth(rows, above, below)
    best, fewest, stale = [list(r) for r in order], crossings(order, below), 0
    for sweep in range(SWEEPS):
        if not fewest or stale == PATIENCE:
            break
        _sweep(order, above if sweep % 2 == 0 else below, sweep)
        found = crossings(order, below)
        stale += 1
        if found < fewest:
            best, fewest, stale = [list(r) for r in order], found, 0
    return best


def _by_depth(rows: Rows, above: Neighbours, below: Neighbours) -> Rows:
    """Each row in the order in which a walk from the top finds it: what is joined stays near."""
    row_of = {v: i for i, row in enumerate(rows) for v in row}
    ordered: Rows = [[] for _ in rows]
    seen: set[int] = set()
    for first in (v for row in rows for v in row):
        stack = [first]
        while stack:
            v = stack.pop()
            if v not in seen:
                seen.add(v)
                ordered[row_of[v]].append(v)
                # Downwards first, so that a chain is walked to its end.
                stack += [*reversed(above[v]), *reversed(below[v])]
    return ordered


def _sweep(rows: Rows, neighbours: Neighbours, number: int) -> None:
    """Put each row in the order of its neighbours' mean places, in place, row after row."""
    down = number % 2 == 0
    ties = -1 if number % 4 >= 2 else 1
    for fixed, moving in pairwise(rows if down else rows[::-1]):
        place = {v: i for i, v in enumerate(fixed)}
        mean = {
            v: sum(place[w] for w in neighbours[v]) / len(neighbours[v])
            for v in moving
            if neighbours[v]
        }
        joined = sorted(list(mean)[::ties], key=mean.__getitem__)
        rest = iter(joined)
        moving[:] = [next(rest) if v in mean else v for v in moving]


def crossings(rows: Sequence[Sequence[int]], below: Neighbours) -> int:
    """How many pairs of stretches cross."""
    total = 0
    for upper, lower in pairwise(rows):
        place = {v: i for i, v in enumerate(lower)}
        passed: list[int] = []
        for v in upper:
            ends = sorted(place[w] for w in below[v])
            total += sum(len(passed) - bisect_right(passed, end) for end in ends)
            for end in ends:
                insort(passed, end)
    return total
