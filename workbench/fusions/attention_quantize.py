"""An attention's result is quantized where it is computed, when an INT8 or FP8 product reads it."""

from __future__ import annotations

from workbench.datatypes import DataType
from workbench.fusions.anchors import too_large
from workbench.fusions.attention import is_attention
from workbench.fusions.quantize import per_tensor
from workbench.network import Layer
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule

WRITTEN = (DataType.INT8, DataType.UINT8, DataType.FP8)


def _finishes_in_floats(layer: Layer) -> bool:
    return is_attention(layer) and layer.outputs[0].dtype.is_float


def _not_quantized(match: Match) -> Refusal | None:
    kind = match.root.outputs[0].dtype
    if kind not in WRITTEN:
        return Refusal(
            f"'{match.root.name}' quantizes to {kind.info.label}, which no product reads as it is",
            code="type",
        )
    return per_tensor(match.root) or too_large(*match.layers)


ATTENTION_QUANTIZE = RewriteRule(
    "attention_quantize",
    lambda op: op.QuantizeLinear(
        op.layer(_finishes_in_floats, described="an attention", operators={"Softmax"}).called(
            "anchor"
        ),
        ...,
    ),
    refuse=_not_quantized,
    about="An attention writes what an INT8 product reads: its result never exists in floats.",
)
