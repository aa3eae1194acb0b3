"""INT8 attention: both products of integers, and the softmax between them, are one layer.

The graph says where it quantizes: queries, keys, values, probabilities. All of it happens inside,
so that neither scores nor probabilities go to memory, and heads are read where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from workbench.datatypes import DataType
from workbench.fusions.anchors import too_large
from workbench.fusions.attention import factors_of, is_attention, pointwise_span, wrong_axis
from workbench.fusions.quantize import parameters, per_tensor
from workbench.network import Layer, Tensor
from workbench.records import Refusal
from workbench.rewrite import Match, Miss, RewriteRule

PROBABILITIES = (DataType.INT8, DataType.UINT8)


def is_integer_attention(layer: Layer) -> bool:
    """Whether the layer is a fused attention whose products are of integers."""
    return is_attention(layer) and "DequantizeLinear" in layer.operator_names


def _made_by(tensor: Tensor | None, operator: str) -> Layer | None:
    """The layer of one operator that makes a tensor, None for any other."""
    made = tensor.producer if tensor is not None else None
    return made if made is not None and made.op == operator and made.operator is not None else None


@dataclass(frozen=True)
class SoftmaxBetweenIntegerProducts:
    """Finds the product with V, of which every factor is dequantized, as are Q's and K's."""

    operators: frozenset[str] = frozenset({"MatMul"})
    depth: int = 6
    size: int = 8

    def find(self, layer: Layer) -> Iterator[Match]:
        """The one INT8 attention that ends here, if one does."""
        if layer.operator is None:
            return
        dequantize = _made_by(layer.inputs[0], "DequantizeLinear")
        quantize = dequantize and _made_by(dequantize.inputs[0], "QuantizeLinear")
        softmax = quantize and _made_by(quantize.inputs[0], "Softmax")
        before = pointwise_span(softmax.inputs[0], "MatMul") if softmax else None
        if not (dequantize and quantize and softmax and before):
            return
        scores = before[-1]
        factors = (scores.inputs[0], scores.inputs[1], layer.inputs[1])
        stored = [_made_by(t, "DequantizeLinear") for t in factors]
        known = [x for x in stored if x is not None]
        if len(known) != len(stored):
            return
        inside = {layer, quantize, dequantize, *before, *known}
        rest = sorted(inside, key=lambda x: x.place)
        named = {
            **{"scores": scores, "softmax": softmax, "values": layer},
            **{"quantize": quantize, "dequantize": dequantize},
            **{f"factor{k}": x for k, x in enumerate(known)},
        }
        yield Match((softmax, *rest), layer, {}, named, softmax)

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """None: ATTENTION tells of products of other types."""
        return None


def _refuse(match: Match) -> Refusal | None:
    softmax = match.layer("softmax")
    rank = len(softmax.outputs[0].shape)
    refusal = wrong_axis(softmax)
    if refusal is not None:
        return refusal
    if softmax.outputs[0].dtype is not DataType.FLOAT:
        return Refusal(f"'{softmax.name}' is not of float32", code="mixed_types")
    for k, label in enumerate(("queries", "keys", "values")):
        layer = match.layer(f"factor{k}")
        refusal = _factor(layer, label, rank)
        if refusal is not None:
            return refusal
    for name in ("quantize", "dequantize"):
        refusal = _one_scale(match.layer(name))
        if refusal is not None:
            return refusal
    stored = match.layer("quantize").outputs[0]
    if stored.dtype not in PROBABILITIES:
        return Refusal(f"its probabilities '{stored.name}' are {stored.dtype}", code="type")
    return too_large(*match.layers)


def _factor(layer: Layer, label: str, rank: int) -> Refusal | None:
    stored = layer.inputs[0]
    assert stored is not None
    if stored.is_constant:
        return Refusal(
            f"its {label} '{stored.name}' are a constant: a product with weights has its own "
            "kernel",
            code="constant_factor",
        )
    if stored.dtype is not DataType.INT8:
        return Refusal(f"its {label} '{stored.name}' are {stored.dtype}, not INT8", code="type")
    if len(stored.shape) != rank:
        return Refusal(f"its {label} '{stored.name}' have {len(stored.shape)} axes", code="rank")
    return _one_scale(layer)


def _one_scale(layer: Layer) -> Refusal | None:
    """Why a Q or DQ is not one known float32 scale around 0, or None."""
    refusal = per_tensor(layer)
    if refusal is not None:
        return refusal
    scale, *zeros = parameters(layer)
    if scale.dtype is not DataType.FLOAT:
        return Refusal(f"the scale '{scale.name}' is {scale.dtype}, not float32", code="type")
    for t in zeros:
        if t.value is None or np.any(t.value):
            return Refusal(
                f"'{t.name}' is not 0: attention's integer products have no zero point",
                remedy="quantize it symmetrically",
                code="zero_point",
                tensors=(t.name,),
            )
    return None


INTEGER_ATTENTION = RewriteRule(
    "integer_attention",
    SoftmaxBetweenIntegerProducts(),
    refuse=_refuse,
    about="INT8 attention: scores and quantized probabilities never go to memory.",
)


def without_kernel(device: str) -> RewriteRule:
    """The rule on a device none of whose kernels takes INT8 attention as a whole."""
    refusal = Refusal(
        f"no kernel on {device} multiplies integers on both sides of a softmax: its products and "
        "the softmax run apart, each in a kernel of its own",
        code="device",
    )
    return replace(INTEGER_ATTENTION, refuse=lambda match: _refuse(match) or refusal)


# -- what queries, keys and values are quantized from -------------------------------------
def _not_taken(match: Match) -> Refusal | None:
    attention, before = match.layer("anchor"), match.layer("before")
    made = before.outputs[0]
    body, operands = attention.body, attention.operands
    reads = {i.name for i, t in zip(body.inputs, operands, strict=True) if t is made}
    if reads & factors_of(body).others:
        return Refusal(f"'{before.name}' makes the mask, which is read in floats", code="mask")
    if made.dtype is not DataType.INT8:
        return Refusal(f"'{made.name}' is {made.dtype}, not INT8", code="type")
    return _one_scale(before) or too_large(*match.layers)


INTEGER_ATTENTION_QUANTIZE = RewriteRule(
    "integer_attention_quantize",
    lambda op: op.layer(
        is_integer_attention,
        op.QuantizeLinear(...).called("before"),
        described="an INT8 attention",
        operators={"Softmax"},
    ).called("anchor"),
    refuse=_not_taken,
    about="Queries, keys and values are quantized where they are packed for their products.",
)
