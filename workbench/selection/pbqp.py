"""Partitioned boolean quadratic programming: one choice a node, costs on nodes and edges.

Reductions of degree 0, 1 and 2 are exact; where a node of higher degree remains, it is fixed at
its locally best choice and the answer is labelled heuristic, with a lower bound.
Source: Scholz and Eckstein, "Register Allocation for Irregular Architectures", LCTES 2002.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]
Edges = dict[tuple[int, int], Matrix]


@dataclass(frozen=True)
class Solution:
    """choices: an index per node. cost: of these choices. exact: whether it is the optimum.

    lower_bound: no assignment costs less (equal to ``cost`` when exact).
    """

    choices: tuple[int, ...]
    cost: float
    exact: bool
    lower_bound: float


def add_costs(
    edges: MutableMapping[tuple[int, int], Matrix], pair: tuple[int, int], costs: Matrix
) -> None:
    """Costs of a pair of nodes, beside those that the pair may have already."""
    edges[pair] = edges[pair] + costs if pair in edges else costs


def cost_of(
    nodes: Sequence[Matrix], edges: Mapping[tuple[int, int], Matrix], choices: Sequence[int]
) -> float:
    """Cost of an assignment."""
    total = sum(float(n[c]) for n, c in zip(nodes, choices, strict=True))
    return total + sum(float(m[choices[a], choices[b]]) for (a, b), m in edges.items())


def solve(nodes: Sequence[Matrix], edges: Mapping[tuple[int, int], Matrix]) -> Solution:
    """Minimise the sum of ``nodes[i][x_i]`` and ``edges[i, j][x_i, x_j]``.

    Infinite costs forbid. Ties resolve to the smallest index.
    """
    return _Problem(nodes, edges).solve()


class _Problem:
    def __init__(self, nodes: Sequence[Matrix], edges: Mapping[tuple[int, int], Matrix]) -> None:
        self.given = (nodes, edges)
        self.cost = [np.array(n, float) for n in nodes]
        self.links: list[dict[int, Matrix]] = [{} for _ in nodes]
        for (a, b), m in edges.items():
            self._connect(a, b, np.asarray(m, float))
        self.undo: list[tuple[int, dict[int, Matrix], Matrix]] = []
        self.exact = True

    def solve(self) -> Solution:
        waiting = set(range(len(self.cost)))
        while waiting:
            # Lowest degree first; within a degree, the lowest index (deterministic).
            node = min(waiting, key=lambda i: (min(len(self.links[i]), 3), i))
            degree = len(self.links[node])
            if degree <= 2:
                self._reduce(node)
            else:
                node = max(waiting, key=lambda i: (len(self.links[i]), -i))
                self._fix(node)
            waiting.discard(node)
        choices = [0] * len(self.cost)
        for node, links, cost in reversed(self.undo):
            total = cost.copy()
            for other, m in links.items():
                total = total + m[:, choices[other]]
            choices[node] = int(np.argmin(total))
        nodes, edges = self.given
        value = cost_of(nodes, edges, choices)
        bound = value
        if not self.exact:
            bound = sum(float(np.min(n)) for n in nodes) + sum(
                float(np.min(m)) for m in edges.values()
            )
        return Solution(tuple(choices), value, self.exact, bound)

    def _connect(self, a: int, b: int, m: Matrix) -> None:
        self.links[a][b] = self.links[a][b] + m if b in self.links[a] else m
        self.links[b][a] = self.links[a][b].T

    def _detach(self, node: int) -> dict[int, Matrix]:
        links = self.links[node]
        self.links[node] = {}
        for other in links:
            del self.links[other][node]
        return links

    def _reduce(self, node: int) -> None:
        links = self._detach(node)
        self.undo.append((node, links, self.cost[node]))
        own = self.cost[node]
        match list(links.items()):
            case [(a, m)]:
                self.cost[a] = self.cost[a] + np.min(own[:, None] + m, axis=0)
            case [(a, m), (b, n)]:
                joint = np.min(own[:, None, None] + m[:, :, None] + n[:, None, :], axis=0)
                self._connect(a, b, joint)
            case _:
                pass

    def _fix(self, node: int) -> None:
        self.exact = False
        links = self._detach(node)
        total = self.cost[node].copy()
        for other, m in links.items():
            total += np.min(m + self.cost[other][None, :], axis=1)
        choice = int(np.argmin(total))
        fixed = np.full(len(total), np.inf)
        fixed[choice] = self.cost[node][choice]
        self.undo.append((node, {}, fixed))
        for other, m in links.items():
            self.cost[other] = self.cost[other] + m[choice]
