"""INT8 decisions, written into the graph as QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.body import CONSTANT, Body, Literal, Node
from workbench.calibration import CalibrationResult
from workbench.datatypes import DataType
from workbench.errors import CalibrationError
from workbench.network import Cause, Layer, NetworkDefinition, Tensor, Weight
from workbench.operators import operator_named
from workbench.precision.casts import weight_input
from workbench.precision.decisions import RESIDUAL, PrecisionDecision
from workbench.records import Attempt, Stage


def write_qdq(
    network: NetworkDefinition,
    decisions: Sequence[PrecisionDecision],
    calibration: CalibrationResult,
    *,
    weight_scales: str = "channel",
) -> tuple[Attempt, ...]:
    """Write INT8 requests as QuantizeLinear/DequantizeLinear pairs.

    Activations: per tensor, symmetric, from the calibration. Weights: symmetric over their largest
    magnitude per output ``channel``, or over all of them, the same in each channel (``tensor``).
    Raises CalibrationError for a tensor without a range.
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
                body = _scale_body(t.weight, axis, shared=weight_scales == "tensor")
                new = _quantized_weight(network, t.weight, axis, body, layer.name)
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


def _quantized_weight(
    network: NetworkDefinition, weight: Weight, axis: int, scales: Body, reader: str
) -> Tensor:
    scale = Weight.derive(f"{weight.name}.scale", scales, (weight,))
    stored = Weight.derive(
        f"{weight.name}.int8", _quantize_body(weight, scale, axis), (weight, scale)
    )
    cause = Cause("Calibrate", f"{reader} runs in INT8")
    tensors = [network.add_weight(stored), network.add_weight(scale)]
    dq = network.add_layer(
        "DequantizeLinear", tensors, {"axis": axis}, name=f"{weight.name}_dequantize", cause=cause
    )
    return dq.outputs[0]


def _scale_body(weight: Weight, axis: int, *, shared: bool) -> Body:
    """scale[channel] = max(max |w|, tiny) / 127, over the channel or, shared, over all of w."""
    channels = weight.array.shape[axis]
    others = [a for a in range(weight.array.ndim) if shared or a != axis]
    rows = {n: operator_named(n) for n in ("Abs", "ReduceMax", "Max", "Div", "Expand")}
    nodes = [
        _literal("axes", np.array(others, np.int64)),
        _literal("tiny", np.float32(1e-12)),
        _literal("levels", np.float32(127)),
        Node(rows["Abs"], ("w",), ("a",), rows["Abs"].complete({})),
        Node(rows["ReduceMax"], ("a", "axes"), ("m",), rows["ReduceMax"].complete({"keepdims": 0})),
        Node(rows["Max"], ("m", "tiny"), ("t",), rows["Max"].complete({})),
        Node(rows["Div"], ("t", "levels"), ("s",), rows["Div"].complete({})),
    ]
    if shared:
        nodes.append(_literal("channels", np.array([channels], np.int64)))
        nodes.append(
            Node(rows["Expand"], ("s", "channels"), ("each",), rows["Expand"].complete({}))
        )
    return Body((weight_input("w", weight),), tuple(nodes), (nodes[-1].outputs[0],))


def _quantize_body(weight: Weight, scale: Weight, axis: int) -> Body:
    quantize = operator_named("QuantizeLinear")
    channels = weight.array.shape[axis]
    nodes = (
        _literal("zero", np.zeros(channels, np.int8)),
        Node(quantize, ("w", "s", "zero"), ("q",), quantize.complete({"axis": axis})),
    )
    return Body((weight_input("w", weight), weight_input("s", scale)), nodes, ("q",))


def _literal(name: str, array: object) -> Node:
    return Node(CONSTANT, (), (name,), {"value": Literal.of(np.asarray(array))})


def _channel_axis(layer: Layer) -> int:
    """The output-channel axis of the weight operand."""
    weight = layer.inputs[1]
    assert weight is not None
    if layer.op == "Conv":
        return 0
    if layer.op == "Gemm":
        return 0 if layer.attributes["transB"] else 1
    return len(weight.shape) - 1
