"""Precision requests, resolved per layer and written into the graph as Cast and Q/DQ."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.body import CONSTANT, Body, BodyInput, Literal, Node, TensorType
from workbench.calibration import CalibrationResult
from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.errors import CalibrationError, ConfigError
from workbench.network import Cause, Layer, NetworkDefinition, Tensor, Weight
from workbench.operators import operator_named
from workbench.records import Attempt, Refusal, Stage

QUANTIZABLE = ("Conv", "Gemm", "MatMul")
"""Operators whose products run in INT8; others take part inside the fused kernel around them."""
RESIDUAL = ("Add",)
"""Their other operand is quantized too when they follow an INT8 product, so that it fuses."""
_UNTYPED = ("constant", "shape", "quantization")


@dataclass(frozen=True)
class PrecisionDecision:
    """What one layer was asked for and what it will be built as; ``blocker`` says why they differ.

    quantizable: whether it counts in INT8 coverage. stored: the type behind the model's own
    DequantizeLinear, where it reads one: the model may decide that the layer is fused with it.
    """

    layer: str
    op: str
    origin: tuple[str, ...]
    requested: DataType
    precision: DataType
    quantizable: bool
    blocker: str = ""
    stored: DataType | None = None


def resolve(network: NetworkDefinition, config: BuilderConfig) -> tuple[PrecisionDecision, ...]:
    """A decision for every layer that computes on floats.

    Raises ConfigError where a request names no node of the model.
    """
    _refuse_unmatched(network, config)
    decisions: list[PrecisionDecision] = []
    for layer in network.layers:
        if not _computes_on_floats(layer):
            continue
        requested = config.precision_of(layer.origin[0] if layer.origin else layer.name)
        for node in layer.origin[1:]:
            named = config.precision_of(node)
            if named is not config.default_precision:
                requested = named
        precision, blocker = requested, ""
        quantizable = layer.op in QUANTIZABLE
        if requested is DataType.INT8 and not quantizable:
            precision = DataType.FLOAT
            blocker = (
                f"{layer.op} has no INT8 kernel of its own: FP32 unless it joins an INT8 layer"
            )
        if requested is DataType.INT8 and quantizable and (why := _weights_blocker(layer)):
            precision, blocker = DataType.FLOAT, why
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


def _refuse_unmatched(network: NetworkDefinition, config: BuilderConfig) -> None:
    names = [*network.model_nodes, *(n for layer in network.layers for n in layer.origin)]
    names += [layer.name for layer in network.layers]
    for pattern, _ in config.precisions:
        if pattern not in names and not any(fnmatch.fnmatchcase(n, pattern) for n in names):
            near = difflib.get_close_matches(pattern, names, n=3)
            raise ConfigError(
                f"no node of the model is called so, or matches: '{pattern}'",
                place="precision request",
                remedy=f"near: {', '.join(near)}" if near else f"such as: {', '.join(names[:3])}",
            )


def requested_by_layer(
    network: NetworkDefinition, decisions: Sequence[PrecisionDecision]
) -> dict[str, DataType]:
    """What each layer of a later stage was to be built as, found by origin."""
    asked = {DataType.FLOAT, *(d.precision for d in decisions)}
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
        if anchored:
            allowed = {x for d in anchored for x in (d.precision, d.stored)}
            wanted[layer.name] = built if built in allowed else anchored[0].precision
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


# -- Cast ---------------------------------------------------------------------------------
def write_casts(
    network: NetworkDefinition, decisions: Sequence[PrecisionDecision]
) -> tuple[Attempt, ...]:
    """Write BF16 and FP16 requests as Casts around each layer (pairs cancel in Fuse)."""
    attempts: list[Attempt] = []
    casts: dict[tuple[str, DataType], Tensor] = {}
    for d in decisions:
        if d.precision in (DataType.BF16, DataType.HALF):
            _cast_layer(network, network.layer(d.layer), d.precision, casts)
            attempts.append(
                Attempt(
                    "write_cast",
                    (d.layer,),
                    True,
                    stage=Stage.PRECISION,
                    detail=f"{d.layer} in {d.precision.info.label}",
                )
            )
        elif d.blocker:
            refusal = Refusal(d.blocker, d.layer, code="no_kernel")
            attempts.append(
                Attempt("int8_request", (d.layer,), False, refusal, stage=Stage.PRECISION)
            )
    return tuple(attempts)


def _cast_layer(
    network: NetworkDefinition,
    layer: Layer,
    kind: DataType,
    casts: dict[tuple[str, DataType], Tensor],
) -> None:
    operator = layer.operator
    assert operator is not None
    inputs: list[Tensor | None] = []
    for t in layer.inputs:
        if t is None or t.dtype is not DataType.FLOAT:
            inputs.append(t)
            continue
        if (t.name, kind) not in casts:
            casts[t.name, kind] = _cast_of(network, t, kind, layer.name)
        inputs.append(casts[t.name, kind])
    label = kind.info.label.lower()
    new = network.add_layer(
        operator,
        inputs,
        layer.attributes,
        name=f"{layer.name}_{label}",
        outputs=[network.unique(f"{t.name}_{label}") for t in layer.outputs],
        origin=layer.origin,
        cause=layer.cause,
    )
    for old, out in zip(layer.outputs, new.outputs, strict=True):
        result = out
        if out.dtype is kind:
            cause = Cause("Precision", f"{layer.name} computes in {kind.info.label}")
            back = network.add_layer(
                "Cast", [out], {"to": DataType.FLOAT}, name=f"{layer.name}_to_fp32", cause=cause
            )
            result = back.outputs[0]
        network.replace_uses(old, result)
    name = layer.name
    network.remove_layer(layer)
    network.rename_layer(new, name)


def _cast_of(network: NetworkDefinition, t: Tensor, kind: DataType, reader: str) -> Tensor:
    label = kind.info.label.lower()
    if t.weight is not None:
        return network.add_weight(cast_weight(t.weight, kind))
    cause = Cause("Precision", f"{reader} computes in {kind.info.label}")
    layer = network.add_layer(
        "Cast",
        [t],
        {"to": kind},
        name=f"{t.name}_to_{label}",
        outputs=[network.unique(f"{t.name}_{label}")],
        cause=cause,
    )
    return layer.outputs[0]


def cast_weight(weight: Weight, kind: DataType) -> Weight:
    """The weight in another type, with its recipe."""
    cast = operator_named("Cast")
    node = Node(cast, ("w",), ("y",), cast.complete({"to": kind}))
    body = Body((_input("w", weight),), (node,), ("y",))
    return Weight.derive(f"{weight.name}.{kind.info.label.lower()}", body, (weight,))


# -- Q/DQ ---------------------------------------------------------------------------------
def write_qdq(
    network: NetworkDefinition,
    decisions: Sequence[PrecisionDecision],
    calibration: CalibrationResult,
) -> tuple[Attempt, ...]:
    """Write INT8 requests as QuantizeLinear/DequantizeLinear pairs.

    Activations: per tensor, symmetric, from the calibration. Weights: per output channel,
    symmetric. Raises CalibrationError for a tensor without a range.
    """
    attempts: list[Attempt] = []
    pairs: dict[str, Tensor] = {}
    int8 = {d.layer for d in decisions if d.precision is DataType.INT8}
    for d in decisions:
        if d.layer not in int8:
            continue
        layer = network.layer(d.layer)
        for index, t in enumerate(layer.inputs[:2]):
            if t is None:
                continue
            if t.weight is not None:
                axis = _channel_axis(layer)
                new = _quantized_weight(network, t.weight, axis, layer.name)
            else:
                new = _quantized(network, t, calibration, pairs, layer.name)
            network.replace_input(layer, index, new)
        attempts.append(
            Attempt(
                "write_qdq", (d.layer,), True, stage=Stage.CALIBRATE, detail=f"{d.layer} in INT8"
            )
        )
    for layer in list(network.layers):
        if layer.op in RESIDUAL and layer.operator is not None:
            attempts.extend(_quantize_residual(network, layer, int8, calibration, pairs))
    return tuple(attempts)


def _quantize_residual(
    network: NetworkDefinition,
    layer: Layer,
    int8: set[str],
    calibration: CalibrationResult,
    pairs: dict[str, Tensor],
) -> list[Attempt]:
    def fuses(t: Tensor | None) -> bool:
        made = t.producer if t is not None else None
        return made is not None and made.name in int8 and t is not None and len(t.users) == 1

    main = [i for i, t in enumerate(layer.inputs) if fuses(t)]
    if not main:
        return []
    done: list[Attempt] = []
    for index, t in enumerate(layer.inputs):
        if index == main[0] or t is None or t.is_constant or t.name not in calibration.ranges:
            continue
        producer = t.producer
        if producer is not None and producer.op == "DequantizeLinear":
            continue
        new = _quantized(network, t, calibration, pairs, layer.name)
        network.replace_input(layer, index, new)
        done.append(
            Attempt(
                "write_qdq_residual",
                (layer.name,),
                True,
                stage=Stage.CALIBRATE,
                detail=f"residual '{t.name}' in INT8",
            )
        )
    return done


def _quantized(
    network: NetworkDefinition,
    t: Tensor,
    calibration: CalibrationResult,
    pairs: dict[str, Tensor],
    reader: str,
) -> Tensor:
    if t.name in pairs:
        return pairs[t.name]
    found = calibration.ranges.get(t.name)
    if found is None:
        raise CalibrationError(
            f"there is no range for it, which {reader} needs in INT8",
            place=f"tensor '{t.name}'",
            remedy="calibrate this network again",
        )
    scale = network.constant(np.float32(found.scale), f"{t.name}.scale")
    zero = network.constant(np.int8(0), f"{t.name}.zero_point")
    cause = Cause("Calibrate", f"{reader} runs in INT8")
    q = network.add_layer(
        "QuantizeLinear", [t, scale, zero], name=f"{t.name}_quantize", cause=cause
    )
    dq = network.add_layer(
        "DequantizeLinear", [q.outputs[0], scale, zero], name=f"{t.name}_dequantize", cause=cause
    )
    pairs[t.name] = dq.outputs[0]
    return dq.outputs[0]


def _quantized_weight(network: NetworkDefinition, weight: Weight, axis: int, reader: str) -> Tensor:
    scale = Weight.derive(f"{weight.name}.scale", _scale_body(weight, axis), (weight,))
    stored = Weight.derive(
        f"{weight.name}.int8", _quantize_body(weight, scale, axis), (weight, scale)
    )
    cause = Cause("Calibrate", f"{reader} runs in INT8")
    tensors = [network.add_weight(stored), network.add_weight(scale)]
    dq = network.add_layer(
        "DequantizeLinear", tensors, {"axis": axis}, name=f"{weight.name}_dequantize", cause=cause
    )
    return dq.outputs[0]


def _scale_body(weight: Weight, axis: int) -> Body:
    """scale[channel] = max(max |w|, tiny) / 127."""
    others = np.array([a for a in range(weight.array.ndim) if a != axis], np.int64)
    rows = {n: operator_named(n) for n in ("Abs", "ReduceMax", "Max", "Div")}
    nodes = (
        _literal("axes", others),
        _literal("tiny", np.float32(1e-12)),
        _literal("levels", np.float32(127)),
        Node(rows["Abs"], ("w",), ("a",), rows["Abs"].complete({})),
        Node(rows["ReduceMax"], ("a", "axes"), ("m",), rows["ReduceMax"].complete({"keepdims": 0})),
        Node(rows["Max"], ("m", "tiny"), ("t",), rows["Max"].complete({})),
        Node(rows["Div"], ("t", "levels"), ("s",), rows["Div"].complete({})),
    )
    return Body((_input("w", weight),), nodes, ("s",))


def _quantize_body(weight: Weight, scale: Weight, axis: int) -> Body:
    quantize = operator_named("QuantizeLinear")
    channels = weight.array.shape[axis]
    nodes = (
        _literal("zero", np.zeros(channels, np.int8)),
        Node(quantize, ("w", "s", "zero"), ("q",), quantize.complete({"axis": axis})),
    )
    return Body((_input("w", weight), _input("s", scale)), nodes, ("q",))


def _literal(name: str, array: object) -> Node:
    return Node(CONSTANT, (), (name,), {"value": Literal.of(np.asarray(array))})


def _input(name: str, weight: Weight) -> BodyInput:
    return BodyInput(name, TensorType(DataType.of(weight.array), weight.array.shape), constant=True)


def _channel_axis(layer: Layer) -> int:
    """The output-channel axis of the weight operand."""
    weight = layer.inputs[1]
    assert weight is not None
    if layer.op == "Conv":
        return 0
    if layer.op == "Gemm":
        return 0 if layer.attributes["transB"] else 1
    return len(weight.shape) - 1


def _stored(layer: Layer) -> DataType | None:
    """The type that the layer's first dequantized operand is stored in."""
    for t in layer.inputs:
        producer = t.producer if t is not None else None
        if producer is not None and producer.op == "DequantizeLinear":
            source = producer.inputs[0]
            return source.dtype if source is not None else None
    return None


def _weights_blocker(layer: Layer) -> str:
    if layer.op == "MatMul":
        weight = layer.inputs[1]
        if weight is not None and weight.is_constant and len(weight.shape) != 2:
            return f"MatMul has a constant operand of rank {len(weight.shape)}, INT8 needs 2"
        left = layer.inputs[0]
        if left is not None and left.is_constant:
            return "MatMul's constant is its left operand"
    if layer.op == "Gemm" and (layer.attributes["alpha"] != 1 or layer.attributes["transA"]):
        return "Gemm with alpha or transA does not run in INT8"
    return ""


def _computes_on_floats(layer: Layer) -> bool:
    if layer.operator is None or layer.operator.family in _UNTYPED or layer.op == "Cast":
        return False
    reads = any(t is not None and t.dtype is DataType.FLOAT for t in layer.inputs)
    return reads and any(t.dtype is DataType.FLOAT for t in layer.outputs)
