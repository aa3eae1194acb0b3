"""Identities: layers that hand their input on unchanged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.body import RESHAPES
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.passes.rule_pass import RulePass
from workbench.rewrite import Match, Replaced, RewriteRule

OF_ONE = frozenset({"Concat", "Sum", "Mean", "Max", "Min"})
NEUTRAL: dict[str, tuple[float, tuple[int, ...]]] = {
    "Add": (0.0, (0, 1)),
    "Sub": (0.0, (1,)),
    "Mul": (1.0, (0, 1)),
    "Div": (1.0, (1,)),
    "Pow": (1.0, (1,)),
}
"""Operator -> the neutral value, and the operands that may have it."""
SAME_TYPE = RESHAPES | {"Cast", "Expand"}
"""Operators that do nothing when the output's type and shape are the input's."""
IDLE: dict[str, tuple[int, int]] = {"Pad": (1, 0), "Slice": (4, 1), "Tile": (1, 1)}
"""Operators that do nothing if the shape stays and this operand has this value everywhere.

A Slice by steps of 1 that keeps the shape is the whole.
"""
SETTLED = frozenset({"Abs", "Ceil", "Floor", "Relu", "Round", "Sign"})
"""Functions that change their own results no more."""
INVOLUTIONS = frozenset({"Neg", "Not"})
"""Functions that undo themselves."""


@dataclass(frozen=True)
class Identities(RulePass):
    """Removes x + 0, x * 1, Identity, idle Dropout, Cast to the same type, Concat of one...

    And a function of which a second time changes nothing, or undoes the first.
    """

    name: str = "identities"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """A layer that does nothing; one that does what the one before did."""
        return (
            APPLIED_TWICE,
            RewriteRule(
                self.name,
                lambda op: op.layer(_does_nothing, described="a layer that does nothing").called(
                    "layer"
                ),
                _the_input,
                about="A layer that hands its input on unchanged is left out.",
            ),
        )


def _repeats(layer: Layer) -> bool:
    source = layer.inputs[0] if layer.inputs else None
    before = source.producer if source is not None else None
    again = layer.op in SETTLED | INVOLUTIONS and layer.operator is not None
    return again and before is not None and before.op == layer.op and before.operator is not None


def _once(network: NetworkDefinition, match: Match) -> Replaced:
    root, first = match.root, match.layer("first")
    tensor = first.outputs[0] if root.op in SETTLED else first.inputs[0]
    assert tensor is not None
    return {root.outputs[0]: tensor}


APPLIED_TWICE = RewriteRule(
    "applied_twice",
    lambda op: op.layer(
        _repeats,
        op.layer(lambda x: x.operator is not None, described="a function").called("first"),
        described="the same function again",
        operators=SETTLED | INVOLUTIONS,
    ),
    _once,
    shares_inner=True,
    about="ReLU of a ReLU is the first; the negative of a negative is what it was.",
)


def handed_on(layer: Layer) -> Tensor | None:
    """The input that the layer's first output always equals, or None."""
    if layer.operator is None or not layer.inputs or layer.inputs[0] is None:
        return None
    first, out = layer.inputs[0], layer.outputs[0]
    op = layer.operator.name
    if op == "Identity" or (op == "Dropout" and layer.get_input(2) is None):
        return first
    if op in OF_ONE and sum(t is not None for t in layer.inputs) == 1:
        return first
    if op in SAME_TYPE and first.type == out.type:
        return first
    if op == "Split" and len(layer.outputs) == 1:
        return first
    if op in IDLE and first.type == out.type and _is_idle(layer):
        return first
    if op == "Transpose" and _keeps_order(layer):
        return first
    return _neutral(layer) if op in NEUTRAL else None


def _is_idle(layer: Layer) -> bool:
    """Whether a layer that keeps the shape keeps every element in its place, too."""
    operand, value = IDLE[layer.op]
    given = layer.get_input(operand)
    if given is None:
        return layer.op == "Slice"
    known = given.weight is not None and given.weight.array.size > 0
    return known and bool(np.all(given.value == value))


def _neutral(layer: Layer) -> Tensor | None:
    value, places = NEUTRAL[layer.op]
    for i in places:
        constant, other = layer.inputs[i], layer.inputs[1 - i]
        if constant is None or other is None or constant.weight is None:
            continue
        array = constant.weight.array
        if other.type == layer.outputs[0].type and array.size and bool(np.all(array == value)):
            return other
    return None


def _keeps_order(layer: Layer) -> bool:
    perm = layer.attributes["perm"]
    return perm is not None and tuple(perm) == tuple(range(len(perm)))


def _does_nothing(layer: Layer) -> bool:
    unread = not any(t.users or t.is_network_output for t in layer.outputs[1:])
    return unread and handed_on(layer) is not None


def _the_input(network: NetworkDefinition, match: Match) -> Replaced:
    layer = match.layer("layer")
    tensor = handed_on(layer)
    assert tensor is not None
    return {layer.outputs[0]: tensor}
