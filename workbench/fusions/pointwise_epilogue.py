"""A pointwise layer, or a fused diamond of them, after a product."""

from __future__ import annotations

from workbench.fusions.anchors import PRODUCTS, epilogue_operand, main_output, too_large
from workbench.fusions.rows import left_to_a_norm
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule, not_same_shape


def _refuse(match: Match) -> Refusal | None:
    anchor, tail = match.layer("anchor"), match.root
    out, result = main_output(anchor), tail.outputs[0]
    if result.shape != out.shape:
        return not_same_shape(result, out)
    if not result.dtype.is_float:
        return Refusal(
            f"'{result.name}' is {result.dtype.value}: a product's kernel finishes in floats",
            code="type_mismatch",
        )
    for operand in tail.operands:
        if operand is not out:
            refusal = epilogue_operand(operand, anchor)
            if refusal is not None:
                return refusal
    if any(t is not out and not t.is_constant for t in tail.operands):
        refusal = left_to_a_norm(result)
        if refusal is not None:
            return refusal
    return too_large(*match.layers)


POINTWISE_EPILOGUE = RewriteRule(
    "pointwise_epilogue",
    lambda op: op.pointwise(op.anchored(PRODUCTS).called("anchor")),
    refuse=_refuse,
    about="A product's kernel finishes with any pointwise formula of its own result.",
)
"""GELU and SiLU written out arrive here: their diamond is one layer by then."""
