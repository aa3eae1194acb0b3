"""Weight-only quantization: a product takes in the DequantizeLinear of its 4-bit weights."""

from __future__ import annotations

from workbench.datatypes import DataType
from workbench.fusions.anchors import too_large
from workbench.fusions.dequantize import factor_index
from workbench.network import Layer
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule, not_constant

FOUR_BITS = frozenset({DataType.INT4, DataType.UINT4})


def _stores_four_bits(layer: Layer) -> bool:
    stored = layer.get_input(0) if layer.op == "DequantizeLinear" else None
    return layer.operator is not None and stored is not None and stored.dtype in FOUR_BITS


def _refuse(match: Match) -> Refusal | None:
    reader, dq = match.layer("reader"), match.layer("dq")
    tensor = dq.outputs[0]
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
        frozenset({"Gemm", "MatMul"}),
        op.layer(_stores_four_bits, described="a DequantizeLinear of 4 bits").called("dq"),
    ).called("reader"),
    refuse=_refuse,
    about="A product reads its 4-bit weights itself: a GPU's kernel, two from each byte.",
)
