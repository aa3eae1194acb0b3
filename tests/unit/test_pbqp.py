from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.selection.pbqp import cost_of, solve


@st.composite
def problems(draw):
    count = draw(st.integers(1, 7))
    sizes = [draw(st.integers(1, 3)) for _ in range(count)]
    cost = st.integers(0, 50).map(float)
    nodes = [np.array([draw(cost) for _ in range(s)]) for s in sizes]
    edges = {}
    for a, b in itertools.combinations(range(count), 2):
        if draw(st.booleans()):
            rows = [[draw(cost) for _ in range(sizes[b])] for _ in range(sizes[a])]
            edges[a, b] = np.array(rows)
    return nodes, edges


def best_by_brute_force(nodes, edges):
    every = itertools.product(*(range(len(n)) for n in nodes))
    return min(cost_of(nodes, edges, choices) for choices in every)


@given(problems())
@settings(max_examples=150, deadline=None)
def test_an_exact_solution_is_the_optimum_and_a_heuristic_one_lies_above_its_lower_bound(problem):
    nodes, edges = problem
    solution = solve(nodes, edges)
    best = best_by_brute_force(nodes, edges)
    assert solution.cost == cost_of(nodes, edges, solution.choices)
    if solution.exact:
        assert solution.cost == best
    assert solution.lower_bound <= best <= solution.cost


def test_chains_and_rejoining_branches_are_solved_exactly():
    rng = np.random.default_rng(0)
    nodes = [rng.integers(0, 9, 3).astype(float) for _ in range(8)]
    pairs = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5), (5, 6), (6, 7)]
    edges = {p: rng.integers(0, 9, (3, 3)).astype(float) for p in pairs}
    solution = solve(nodes, edges)
    assert solution.exact
    assert solution.cost == best_by_brute_force(nodes, edges)


def test_a_forbidden_pair_is_never_chosen():
    nodes = [np.array([0.0, 5.0]), np.array([0.0, 5.0])]
    edges = {(0, 1): np.array([[np.inf, 1.0], [1.0, 1.0]])}
    solution = solve(nodes, edges)
    assert solution.choices != (0, 0)
    assert solution.cost == 6.0
