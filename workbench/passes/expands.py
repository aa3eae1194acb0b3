"""Expand in front of pointwise layers: copies that broadcasting makes needless."""

from __future__ import annotations

from dataclasses import dataclass

from workbench import dimensions
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.network.graph import is_literal
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Match, Replaced, RewriteRule


@dataclass(frozen=True)
class Expands(RulePass):
    """Leaves an Expand out where its reader broadcasts anyway, and moves it behind one that cannot.

    An attention mask is then computed once a token, not once a pair of tokens.
    """

    name: str = "expands"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """Left out where possible, else moved on."""
        return (EXPAND_LEFT_OUT, EXPAND_LATER)


def _is_pointwise(layer: Layer) -> bool:
    return layer.operator is not None and layer.operator.pointwise


def _before(match: Match) -> tuple[Tensor, list[Tensor | None]]:
    """The Expand's input, and the reader's operands with it in the Expand's place."""
    expand = match.layer("expand")
    x = expand.inputs[0]
    assert x is not None
    return x, [x if t is expand.outputs[0] else t for t in match.root.inputs]


def _no_broadcast(match: Match) -> Refusal | None:
    _, operands = _before(match)
    out = match.root.outputs[0]
    shape = dimensions.broadcast(*(t.shape for t in operands if t is not None))
    if shape == out.shape:
        return None
    return Refusal(
        f"without it '{match.root.name}' would give {list(shape)}, not {list(out.shape)}",
        code="shape_mismatch",
    )


def _left_out(network: NetworkDefinition, match: Match) -> Replaced:
    root, (_, operands) = match.root, _before(match)
    assert root.operator is not None
    return network.add_layer(root.operator, operands, root.attributes, name=root.name).outputs[0]


EXPAND_LEFT_OUT = RewriteRule(
    "expand_left_out",
    lambda op: op.layer(
        _is_pointwise, op.Expand(...).called("expand"), described="a pointwise layer"
    ),
    _left_out,
    _no_broadcast,
    shares_inner=True,
    about="A pointwise layer broadcasts by itself: the copies are not written.",
)


def _one_operand(layer: Layer) -> bool:
    """Whether all but one operand are numbers."""
    operator = layer.operator
    if operator is None or not operator.pointwise:
        return False
    return (
        sum(t is not None and not is_literal(t, operator, i) for i, t in enumerate(layer.inputs))
        == 1
    )


def _grows(match: Match) -> Refusal | None:
    expand = match.layer("expand").outputs[0]
    if match.root.outputs[0].shape != expand.shape:
        return Refusal(f"'{match.root.name}' has another shape than it", code="shape_mismatch")
    return None


def _later(network: NetworkDefinition, match: Match) -> Replaced:
    root, expand, (_, operands) = match.root, match.layer("expand"), _before(match)
    assert root.operator is not None and expand.operator is not None
    small = network.add_layer(
        root.operator, operands, root.attributes, name=root.name, origin=root.origin
    )
    return network.add_layer(
        expand.operator,
        [small.outputs[0], *expand.inputs[1:]],
        expand.attributes,
        name=expand.name,
        origin=expand.origin,
    ).outputs[0]


EXPAND_LATER = RewriteRule(
    "expand_later",
    lambda op: op.layer(
        _one_operand, op.Expand(...).called("expand"), described="a function of one element"
    ),
    _later,
    _grows,
    about="A function of one element is computed before the copies are made.",
)
