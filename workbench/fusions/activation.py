"""A function of one element after a product: ReLU, Clip, GELU, a Cast..."""

from __future__ import annotations

from workbench.fusions.anchors import PRODUCTS, main_output, too_large
from workbench.network import Layer
from workbench.network.graph import is_literal
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule, not_same_shape


def is_unary(layer: Layer) -> bool:
    """Whether the layer is a pointwise operator of one tensor (limits and scalars aside)."""
    operator = layer.operator
    if operator is None or not operator.pointwise:
        return False
    read = {t for i, t in enumerate(layer.inputs) if t and not is_literal(t, operator, i)}
    return len(read) == 1


def _refuse(match: Match) -> Refusal | None:
    result, out = match.root.outputs[0], main_output(match.layer("anchor"))
    if result.shape != out.shape:
        return not_same_shape(result, out)
    if not result.dtype.is_float:
        return Refusal(
            f"'{result.name}' is {result.dtype.value}: a product's kernel finishes in floats",
            code="type_mismatch",
        )
    return too_large(*match.layers)


ACTIVATION = RewriteRule(
    "activation",
    lambda op: op.layer(
        is_unary, op.anchored(PRODUCTS).called("anchor"), described="a function of one element"
    ),
    refuse=_refuse,
    about="A product and the activation that follows it are one kernel.",
)
