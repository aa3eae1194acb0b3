"""Weight-only quantization: a product takes in the DequantizeLinear of its 4-bit weights."""

from __future__ import annotations

from workbench.datatypes import DataType
from workbench.fusions.anchors import too_large
from workbench.fusions.dequantize import factor_index
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule, not_constant

FOUR_BITS = frozenset({DataType.INT4, DataType.UINT4})


def _refuse(match: Match) -> Refusal | None:
    reader, dq = match.layer("reader"), match.layer("dq")
    stored, tensor = dq.inputs[0], dq.outputs[0]
    if stored is None or stored.dtype not in FOUR_BITS:
        return Refusal("its weights are not of 4 bits", code="not_four_bits")
    if dq.cause is not None:
        return Refusal(
            f"'{dq.name}' was written for an INT4 request, which shows what the weights lose",
            code="requested",
        )
    for t in dq.inputs:
        if t is not None and not t.is_constant:
            return not_constant(t)
    if factor_index(reader, tensor) != 1 or len(tensor.shape) != 2:
        return Refusal(
            f"'{reader.name}' does not multiply by '{tensor.name}' as its second factor, a matrix",
            code="not_the_second_factor",
        )
    return too_large(*match.layers)


WEIGHT_ONLY = RewriteRule(
    "weight_only",
    lambda op: op.anchored(
        frozenset({"Gemm", "MatMul"}), op.DequantizeLinear(...).called("dq")
    ).called("reader"),
    refuse=_refuse,
    about="A product reads its 4-bit weights itself: a GPU's kernel, two from each byte.",
)
