"""Shape arithmetic: an operand whose value follows from the inputs' shapes is written down."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.network import Layer, NetworkDefinition
from workbench.network.graph import is_literal
from workbench.passes.rule_pass import RulePass
from workbench.rewrite import Match, Replaced, RewriteRule
from workbench.rewrite.derive import known_value


@dataclass(frozen=True)
class ShapeArithmetic(RulePass):
    """Detaches layers from the computation of their shapes, axes and scalars.

    A size that is only bound at run time stays symbolic; the layers that computed it become dead.
    """

    name: str = "shape_arithmetic"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """One rule, rooted at the layer that reads the known value."""
        return (
            RewriteRule(
                self.name,
                lambda op: op.layer(
                    _reads_known, described="a layer that reads a known value"
                ).called("layer"),
                _written_down,
                exact=True,
                about="A shape that follows from the inputs' shapes needs no computing.",
            ),
        )


def _is_known(layer: Layer, index: int) -> bool:
    tensor, operator = layer.inputs[index], layer.operator
    if tensor is None or operator is None or tensor.producer is None:
        return False
    return is_literal(tensor, operator, index)


def _reads_known(layer: Layer) -> bool:
    """A known operand is left, and the output is not itself known (then it will be dead)."""
    if layer.operator is None or all(t.value is not None for t in layer.outputs):
        return False
    return any(_is_known(layer, i) for i in range(len(layer.inputs)))


def _written_down(network: NetworkDefinition, match: Match) -> Replaced:
    layer = match.layer("layer")
    assert layer.operator is not None
    inputs = [
        known_value(network, t) if t is not None and _is_known(layer, i) else t
        for i, t in enumerate(layer.inputs)
    ]
    new = network.add_layer(
        layer.operator, inputs, layer.attributes, name=layer.name, outputs=len(layer.outputs)
    )
    return dict(zip(layer.outputs, new.outputs, strict=True))
