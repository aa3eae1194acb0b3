"""Provenance, both ways: the nodes of the model, and the layers, weights and passes they became."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.network.store import LayerStore


@dataclass(frozen=True)
class Provenance:
    """Which layers stand for which nodes of the model.

    nodes: model node -> the layers that have its work; empty where a weight or a pass absorbed it,
    as ``absorbed`` then says. layers: layer -> its model nodes; empty for an inserted layer, whose
    reason ``inserted`` gives. unmapped: model nodes that are nowhere; there must be none.
    """

    nodes: Mapping[str, tuple[str, ...]]
    layers: Mapping[str, tuple[str, ...]]
    absorbed: Mapping[str, str]
    inserted: Mapping[str, str]

    @property
    def unmapped(self) -> tuple[str, ...]:
        return tuple(n for n, x in self.nodes.items() if not x and n not in self.absorbed)

    def of(self, name: str) -> tuple[str, ...]:
        """For a node its layers, or what absorbed it; for a layer its nodes, or its cause."""
        if name in self.nodes:
            return self.nodes[name] or (self.absorbed[name],)
        return self.layers[name] or (self.inserted[name],)


def provenance(network: LayerStore) -> Provenance:
    """The provenance of a network, in the order of the model's nodes and of its layers."""
    nodes: dict[str, list[str]] = {n: [] for n in network.model_nodes}
    for layer in network.layers:
        for node in layer.origin:
            nodes.setdefault(node, []).append(layer.name)
    return Provenance(
        {n: tuple(x) for n, x in nodes.items()},
        {x.name: x.origin for x in network.layers},
        {n: text for n, text in network.absorbed.items() if not nodes.get(n)},
        {x.name: f"{x.cause.stage}: {x.cause.reason}" for x in network.layers if x.cause},
    )
