"""A network as nodes and edges to draw, each linked to the model's own nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.network import NetworkDefinition


@dataclass(frozen=True)
class GraphNode:
    """One box: an input, a layer or an output. origin: the model nodes that it stands for.

    support: which supported subgraph of a refused model it is of, or ``refused``.
    """

    id: str
    label: str
    kind: str
    origin: tuple[str, ...]
    precision: str
    detail: str
    support: str = ""


@dataclass(frozen=True)
class GraphView:
    """Boxes and arrows (indices of boxes), with the type on each arrow."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[tuple[int, int, str], ...]

    def find(self, origin: str) -> tuple[int, ...]:
        """Boxes that stand for a model node."""
        return tuple(i for i, n in enumerate(self.nodes) if origin in n.origin)


def network_graph(network: NetworkDefinition) -> GraphView:
    """Inputs, layers and outputs of a network."""
    nodes: list[GraphNode] = []
    where: dict[str, int] = {}
    edges: list[tuple[int, int, str]] = []
    for t in network.inputs:
        where[t.name] = len(nodes)
        nodes.append(GraphNode(f"input:{t.name}", t.name, "Input", (), "", str(t.type)))
    for layer in network.layers:
        index = len(nodes)
        label = " + ".join(layer.operator_names)
        detail = f"{layer.name}: {', '.join(str(t.type) for t in layer.outputs)}"
        if layer.cause:
            detail += f" ({layer.cause.stage}: {layer.cause.reason})"
        nodes.append(
            GraphNode(layer.name, label, layer.op, layer.origin, layer.precision.info.label, detail)
        )
        for t in dict.fromkeys(t for t in layer.inputs if t is not None):
            if t.name in where:
                edges.append((where[t.name], index, str(t.type)))
        for t in layer.outputs:
            where[t.name] = index
    for t in network.outputs:
        if t.name in where:
            edges.append((where[t.name], len(nodes), str(t.type)))
        nodes.append(GraphNode(f"output:{t.name}", t.name, "Output", (), "", str(t.type)))
    return GraphView(tuple(nodes), tuple(edges))


def mapping(network: NetworkDefinition) -> Mapping[str, str]:
    """Every node of the model and what it became: a layer, or what absorbed it."""
    became = dict(network.absorbed)
    for layer in network.layers:
        for node in layer.origin:
            became[node] = layer.name
    return {n: became.get(n, "") for n in network.model_nodes}
