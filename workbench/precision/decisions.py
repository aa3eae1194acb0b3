"""Precision requests, resolved to a decision per layer."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.config import BuilderConfig
from workbench.datatypes import CALIBRATED, DataType
from workbench.errors import ConfigError
from workbench.network import Layer, NetworkDefinition
from workbench.patterns import matches

QUANTIZABLE = ("Conv", "Gemm", "MatMul")
"""Operators whose products run quantized; others take part inside the fused kernel around them."""
RESIDUAL = ("Add",)
"""Their other operand is quantized too when they follow such a product, so that it fuses."""
INT4_BLOCK = 32
"""Weights along the summed axis that share an INT4 scale."""
_UNTYPED = ("constant", "shape", "quantization")


@dataclass(frozen=True)
class PrecisionDecision:
    """What one layer was asked for and what it will be built as; ``blocker`` says why they differ.

    precision: of its products, INT4 where its weights alone are quantized. quantizable: whether it
    counts in INT8 coverage. stored: the type behind the model's own DequantizeLinear, where it
    reads one: the model may decide that the layer is fused with it.
    """

    layer: str
    op: str
    origin: tuple[str, ...]
    requested: DataType
    precision: DataType
    quantizable: bool
    blocker: str = ""
    stored: DataType | None = None

    @property
    def arithmetic(self) -> DataType:
        """The type that its kernel multiplies in: FLOAT where only the weights are quantized."""
        return DataType.FLOAT if self.precision is DataType.INT4 else self.precision


def resolve(network: NetworkDefinition, config: BuilderConfig) -> tuple[PrecisionDecision, ...]:
    """A decision for every layer that computes on floats.

    Raises ConfigError where a request names no node of the model.
    """
    layers = [x for x in network.layers if _computes_on_floats(x)]
    _refuse_unmatched(network, config, layers)
    decisions: list[PrecisionDecision] = []
    for place, layer in enumerate(layers):
        requested = config.default_precision
        for index, node in enumerate(layer.origin or (layer.name,)):
            named = config.precision_of(node, op=layer.op, place=place, of=len(layers))
            if not index or named is not config.default_precision:
                requested = named
        blocker = _blocker(layer, requested)
        precision = DataType.FLOAT if blocker else requested
        quantizable = layer.op in QUANTIZABLE
        decisions.append(
            PrecisionDecision(
                layer.name,
                layer.op,
                layer.origin,
                requested,
                precision,
                quantizable,
                blocker,
                _stored(layer),
            )
        )
    return tuple(decisions)


def _refuse_unmatched(
    network: NetworkDefinition, config: BuilderConfig, layers: Sequence[Layer]
) -> None:
    names = [*network.model_nodes, *(n for layer in network.layers for n in layer.origin)]
    names += [layer.name for layer in network.layers]
    for pattern, _ in config.precisions:
        if any(matches(pattern, n) for n in names):
            continue
        if any(
            matches(pattern, "", op=x.op, place=i, of=len(layers)) for i, x in enumerate(layers)
        ):
            continue
        near = difflib.get_close_matches(pattern, dict.fromkeys(names), n=3)
        raise ConfigError(
            f"no node of the model is called so, or matches: '{pattern}'",
            place="precision request",
            remedy=f"near: {', '.join(near)}" if near else f"such as: {', '.join(names[:3])}",
        )


def requested_by_layer(
    network: NetworkDefinition, decisions: Sequence[PrecisionDecision]
) -> dict[str, DataType]:
    """What each layer of a later stage was to be built as, found by origin."""
    asked = {DataType.FLOAT, *(d.arithmetic for d in decisions)}
    by_node: dict[str, PrecisionDecision] = {n: d for d in decisions for n in d.origin}
    wanted: dict[str, DataType] = {}
    for layer in network.layers:
        anchor = layer.body.anchor_node
        row = anchor.operator if anchor is not None else layer.operator
        if row is not None and (row.family == "movement" or row.name == "MaxPool"):
            # It copies or compares values, exactly in every type: it takes its neighbours'.
            wanted[layer.name] = layer.precision
            continue
        built = layer.precision
        if built not in asked:
            # No request gives this type: the model has it.
            wanted[layer.name] = built
            continue
        own = [by_node[n] for n in layer.origin if n in by_node]
        anchored = [d for d in own if d.op == layer.op] or own
        if built is DataType.INT8 and layer.op == "Softmax":
            # INT8 attention works in its products' type; its softmax was asked for FP32.
            anchored = [d for d in own if d.op == "MatMul"] or anchored
        if anchored:
            allowed = {x for d in anchored for x in (d.arithmetic, d.stored)}
            wanted[layer.name] = built if built in allowed else anchored[0].arithmetic
    return wanted


def quantizable_tensors(network: NetworkDefinition) -> tuple[str, ...]:
    """Activations that INT8 could quantize: operands of products and of residual additions."""
    names: dict[str, None] = {}
    for layer in network.layers:
        if layer.op in (*QUANTIZABLE, *RESIDUAL):
            operands = layer.inputs[:2]
            for t in operands:
                if t is not None and not t.is_constant and t.dtype is DataType.FLOAT:
                    names.setdefault(t.name)
    return tuple(names)


def channel_axes(network: NetworkDefinition) -> dict[str, int]:
    """Of each tensor that ``quantizable_tensors`` names, the axis of its channels.

    Axis 1 where a convolution reads it or makes it, else the last: the one that products sum over.
    """
    axes: dict[str, int] = {}
    for name in quantizable_tensors(network):
        tensor = network.tensor(name)
        near = {u.op for u in tensor.users} | {tensor.producer.op if tensor.producer else ""}
        rank = len(tensor.shape)
        if rank:
            axes[name] = 1 if rank > 2 and ("Conv" in near or rank == 4) else rank - 1
    return axes


def _stored(layer: Layer) -> DataType | None:
    """The type that the layer's first dequantized operand is stored in."""
    for t in layer.inputs:
        producer = t.producer if t is not None else None
        if producer is not None and producer.op == "DequantizeLinear":
            source = producer.inputs[0]
            return source.dtype if source is not None else None
    return None


def _blocker(layer: Layer, kind: DataType) -> str:
    """Why a layer cannot be built in a quantized type, or an empty text."""
    label = kind.info.label
    if kind not in (*CALIBRATED, DataType.INT4):
        return ""
    if layer.op not in QUANTIZABLE:
        if kind is DataType.INT4:
            return f"INT4 is for weights of MatMul and Gemm, {layer.op} has none"
        return f"{layer.op} has no {label} kernel of its own: FP32 unless it joins an {label} layer"
    return _int4_blocker(layer) if kind is DataType.INT4 else _operand_blocker(layer, label)


def _operand_blocker(layer: Layer, label: str) -> str:
    if layer.op == "MatMul":
        weight = layer.inputs[1]
        if weight is not None and weight.is_constant and len(weight.shape) != 2:
            return f"MatMul has a constant operand of rank {len(weight.shape)}, {label} needs 2"
        left = layer.inputs[0]
        if left is not None and left.is_constant:
            return "MatMul's constant is its left operand"
    if layer.op == "Gemm" and (layer.attributes["alpha"] != 1 or layer.attributes["transA"]):
        return f"Gemm with alpha or transA does not run in {label}"
    return ""


def _int4_blocker(layer: Layer) -> str:
    """TensorRT's rules: weights of a matrix product, in whole blocks of the summed axis."""
    weight = layer.inputs[1]
    if layer.op == "Conv":
        return "INT4 is for weights of MatMul and Gemm; a Conv's stay wider, as in TensorRT"
    if weight is None or weight.weight is None:
        return f"INT4 is for weights, and no factor of this {layer.op} is a constant"
    if len(weight.shape) != 2:
        return f"its weight has rank {len(weight.shape)}, INT4 needs 2"
    size = weight.weight.array.shape[summed_axis(layer)]
    if size % INT4_BLOCK:
        return f"it sums over {size} values, which is no multiple of INT4's block of {INT4_BLOCK}"
    return ""


def summed_axis(layer: Layer) -> int:
    """The axis of a MatMul's or Gemm's second operand that its products are summed over."""
    return 1 if layer.op == "Gemm" and layer.attributes["transB"] else 0


def _computes_on_floats(layer: Layer) -> bool:
    if (
        layer.operator is None
        or layer.on_host
        or layer.operator.family in _UNTYPED
        or layer.op == "Cast"
    ):
        return False
    reads = any(t is not None and t.dtype is DataType.FLOAT for t in layer.inputs)
    return reads and any(t.dtype is DataType.FLOAT for t in layer.outputs)
