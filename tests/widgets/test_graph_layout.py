"""Where boxes of a network's graph stand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from widgets.figures.layered import BOX_HEIGHT, RANK_HEIGHT, LayeredGraph, lay_out
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


@given(st.lists(st.lists(st.integers(0, 40), max_size=3), min_size=1, max_size=25))
def test_no_arrow_runs_through_a_box(reads: list[list[int]]) -> None:
    edges = sorted({(k % i, i) for i, ks in enumerate(reads) if i for k in ks})
    drawn = lay_out(graph(["Conv"] * len(reads), edges))
    half = drawn.box_width / 2
    for route in drawn.routes:
        for (x, top), (u, bottom) in itertools.pairwise(route):
            assert x == u or top - bottom <= RANK_HEIGHT - BOX_HEIGHT  # sideways only between rows
            inside = [(a, b) for a, b in drawn.centres if bottom < b < top and abs(a - x) < half]
            assert not inside


def test_branches_that_need_not_cross_do_not() -> None:
    chains = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 5), (3, 6), (5, 7), (4, 8), (7, 8), (6, 8)]
    drawn = lay_out(graph(["Conv"] * 9, sorted(chains)))
    rows = [[drawn.centres[i][0] for i in row] for row in ((1, 2, 3), (4, 5, 6))]
    orders = [sorted(range(3), key=xs.__getitem__) for xs in rows]
    assert orders[0] == orders[1]


def test_a_skip_connection_is_a_straight_line_beside_a_straight_chain() -> None:
    chain = [(i, i + 1) for i in range(6)]
    drawn = lay_out(graph(["Conv"] * 7, sorted([*chain, (0, 6)])))
    assert len({x for x, _ in drawn.centres[1:6]}) == 1
    assert len({x for x, _ in drawn.routes[sorted([*chain, (0, 6)]).index((0, 6))][1:-1]}) == 1


def test_arrows_from_one_box_share_a_trunk_that_is_drawn_once() -> None:
    edges = [(0, 1), (0, 5), (0, 6), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]
    drawn = lay_out(graph(["Conv"] * 7, edges))
    short, long = drawn.routes[1], drawn.routes[2]
    assert short[:-1] == long[: len(short) - 1]
    lines = list(drawn.lines())
    assert lines[1] == short
    assert len(lines[2]) < len(long)
    assert lines[2][-1] == long[-1]


def test_a_graph_of_nothing_and_graphs_in_parts_are_drawn() -> None:
    assert lay_out(graph([], [])).centres == ()
    apart = [
        (0, 1),
        (0, 2),
        (0, 8),
        (1, 2),
        (1, 3),
        (1, 9),
        (2, 3),
        (3, 4),
        (3, 7),
        (4, 8),
        (4, 14),
    ]
    apart += [(10, 12), (10, 13), (11, 12), (11, 17), (13, 17), (15, 22)]
    assert not overlapping(lay_out(graph(["Conv"] * 24, apart)))


def test_the_dequantize_of_a_weight_stands_just_above_its_reader() -> None:
    kinds = ["Input", "Relu", "Relu", "DequantizeLinear", "Conv"]
    drawn = lay_out(graph(kinds, [(0, 1), (1, 2), (2, 4), (3, 4)]))
    rows = [y for _, y in drawn.centres]
    assert rows[3] == pytest.approx(rows[2])
    assert rows[0] == max(rows)
