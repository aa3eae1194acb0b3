"""Subgraphs: a partly supported model as groups of nodes, each supported as a whole or not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from onnx import GraphProto, NodeProto


@dataclass(frozen=True)
class Subgraph:
    """Nodes, by index in the graph, in its order; all of them supported, or none."""

    nodes: tuple[int, ...]
    supported: bool


def producers_of(graph: GraphProto) -> list[frozenset[int]]:
    """Each node's producers, by index; the nodes must be in topological order."""
    producer = {v: i for i, n in enumerate(graph.node) for v in n.output if v}
    return [frozenset(producer[v] for v in names_read(n) if v in producer) for n in graph.node]


def partitioned(
    before: Sequence[Collection[int]], unsupported: Collection[int]
) -> tuple[Subgraph, ...]:
    """Nodes in groups that can run one after another, in this order.

    before: each node's producers, of smaller index. Groups are convex, and the graph of groups
    has no cycle. Groups of supported nodes are maximal: no two could be one, since a path through
    an unsupported node joins them; so there are as few as can be. Their nodes need not be
    connected.
    """
    blocked = frozenset(unsupported)
    levels: list[int] = []
    for i, makers in enumerate(before):
        if i in blocked:
            levels.append(max((levels[m] for m in makers), default=0))
        else:
            # One level up where something unsupported must run first.
            levels.append(max((levels[m] + (m in blocked) for m in makers), default=1))
    groups: dict[tuple[int, bool], list[int]] = {}
    for i, level in enumerate(levels):
        groups.setdefault((level, i in blocked), []).append(i)
    return tuple(Subgraph(tuple(nodes), not b) for (_, b), nodes in sorted(groups.items()))


def names_read(node: NodeProto) -> Iterator[str]:
    """What a node reads, the graphs inside it included."""
    yield from (v for v in node.input if v)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from names_read(inner)
            yield from (v.name for v in graph.output)
