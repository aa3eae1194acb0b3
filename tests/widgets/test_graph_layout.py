"""Where boxes of a network's graph stand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from widgets.figures.layered import BOX_HEIGHT, LayeredGraph, lay_out
from workbench.reports import GraphView
from workbench.reports.graph import GraphNode


def graph(kinds: list[str], edges: list[tuple[int, int]]) -> GraphView:
    nodes = tuple(GraphNode(f"n{i}", k, k, (), "", "") for i, k in enumerate(kinds))
    return GraphView(nodes, tuple((a, b, "FLOAT[1]") for a, b in edges))


def overlapping(drawn: LayeredGraph) -> list[tuple[int, int]]:
    pairs = itertools.combinations(enumerate(drawn.centres), 2)
    return [
        (i, j)
        for (i, (x, y)), (j, (u, v)) in pairs
        if abs(x - u) < drawn.box_width and abs(y - v) < BOX_HEIGHT
    ]


@given(st.lists(st.lists(st.integers(0, 40), max_size=3), min_size=1, max_size=25))
def test_no_two_boxes_overlap_and_arrows_lead_down(reads: list[list[int]]) -> None:
    edges = sorted({(k % i, i) for i, ks in enumerate(reads) if i for k in ks})
    drawn = lay_out(graph(["Conv"] * len(reads), edges))
    assert not overlapping(drawn)
    assert all(drawn.centres[a][1] > drawn.centres[b][1] for a, b in edges)


def test_the_dequantize_of_a_weight_stands_just_above_its_reader() -> None:
    kinds = ["Input", "Relu", "Relu", "DequantizeLinear", "Conv"]
    drawn = lay_out(graph(kinds, [(0, 1), (1, 2), (2, 4), (3, 4)]))
    rows = [y for _, y in drawn.centres]
    assert rows[3] == pytest.approx(rows[2])
    assert rows[0] == max(rows)
