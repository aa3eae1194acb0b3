"""A residual connection: the sum of a product and a tensor of its shape, in both orders."""

from __future__ import annotations

from workbench.fusions.anchors import PRODUCTS, main_output, too_large
from workbench.fusions.rows import left_to_a_norm
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule, not_same_shape


def _refuse(match: Match) -> Refusal | None:
    out, r = main_output(match.layer("anchor")), match["r"]
    if r.shape != out.shape:
        return not_same_shape(r, out, reader=match.root)
    return left_to_a_norm(match.root.outputs[0]) or too_large(*match.layers)


RESIDUAL = RewriteRule(
    "residual",
    lambda op, r: op.Add(op.anchored(PRODUCTS).called("anchor"), op.computed(r)),
    refuse=_refuse,
    about="A product adds the residual while its result is still in registers.",
)
