"""Dead layers: what nobody reads goes."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.passes.rule_pass import RulePass
from workbench.rewrite import Match, RewriteRule


@dataclass(frozen=True)
class DeadLayers(RulePass):
    """Removes layers whose outputs are neither read nor network outputs."""

    name: str = "dead_layers"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """One rule, rooted at the layer."""
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
    return not any(t.users or t.is_network_output for t in layer.outputs)


def _nothing(network: NetworkDefinition, match: Match) -> dict[Tensor, Tensor]:
    return {}
