"""Dead layers: what nobody reads goes."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.body import HostType
from workbench.dimensions import symbols_of
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.passes.rule_pass import RulePass
from workbench.rewrite import Match, RewriteRule


@dataclass(frozen=True)
class DeadLayers(RulePass):
    """Removes layers whose outputs are neither read nor network outputs."""

    name: str = "dead_layers"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """One rule, rooted at the layer. What decides a size stays: that size may be read."""
        return (
            RewriteRule(
                self.name,
                lambda op: op.layer(_is_dead, described="a layer nobody reads"),
                _nothing,
                exact=True,
                host=True,
                about="What nobody reads need not be computed.",
            ),
        )


def _is_dead(layer: Layer) -> bool:
    if any(t.users or t.is_network_output for t in layer.outputs):
        return False
    return not (layer.on_host and _decides_a_size(layer))


def _decides_a_size(layer: Layer) -> bool:
    """Whether a size that only the data decides is found here; others may be computed from it."""
    known = {s for t in layer.inputs for s in _symbols(t)}
    return any(not _symbols(t) <= known for t in layer.outputs)


def _symbols(tensor: Tensor | None) -> set[str]:
    if tensor is None or isinstance(tensor.type, HostType):
        return set()
    return {s for d in tensor.shape for s in symbols_of(d)}


def _nothing(network: NetworkDefinition, match: Match) -> dict[Tensor, Tensor]:
    return {}
