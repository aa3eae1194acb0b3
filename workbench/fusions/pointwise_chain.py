"""Pointwise layers that feed each other: one pass over memory instead of several."""

from __future__ import annotations

from workbench.datatypes import DataType
from workbench.fusions.anchors import too_large
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule, not_same_shape

MAX_OPERANDS = 12
"""Tensors that one generated kernel reads."""


def _refuse(match: Match) -> Refusal | None:
    inner, result = match.layer("first").outputs[0], match.root.outputs[0]
    if inner.shape != result.shape:
        return not_same_shape(inner, result)
    if DataType.STRING in (inner.dtype, result.dtype):
        return Refusal("strings stay on the host", code="type_mismatch")
    read = {t for x in match.layers for t in x.operands if t is not inner}
    if len(read) > MAX_OPERANDS:
        return Refusal(
            f"together they read {len(read)} tensors, one kernel reads {MAX_OPERANDS}",
            code="too_large",
        )
    return too_large(*match.layers)


POINTWISE_CHAIN = RewriteRule(
    "pointwise_chain",
    lambda op: op.pointwise(op.pointwise().called("first")),
    refuse=_refuse,
    about="Pointwise layers in a row, or in a diamond, are one generated kernel.",
)
"""Two at a time: a diamond closes once its sides are one layer."""
