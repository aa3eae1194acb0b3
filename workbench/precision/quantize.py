"""INT8, FP8 and INT4 decisions, written into the graph as QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from workbench.body import CONSTANT, Body, Literal, Node
from workbench.calibration import CalibrationResult
from workbench.datatypes import CALIBRATED, DataType
from workbench.errors import CalibrationError
from workbench.network import Cause, Layer, NetworkDefinition, Tensor, Weight
from workbench.operators import operator_named
from workbench.precision.casts import weight_input
from workbench.precision.decisions import INT4_BLOCK, RESIDUAL, PrecisionDecision, summed_axis
from workbench.records import Attempt, Stage


def write_qdq(
    network: NetworkDefinition,
    decisions: Sequence[PrecisionDecision],
    calibration: CalibrationResult | None,
    *,
    weight_scales: str = "channel",
) -> tuple[Attempt, ...]:
    """Write INT8 and FP8 requests as QuantizeLinear/DequantizeLinear pairs, INT4 as weights.

    Activations: per tensor, symmetric, from the calibration. Weights: symmetric over their largest
    magnitude per output ``channel``, or over all of them, the same in each channel (``tensor``);
    INT4's over each block of 32 along the summed axis. The largest magnitude is stored as 127, 448
    (FP8 E4M3) or 7. Raises CalibrationError for a tensor without a range.
    """
    return _Writing(network, calibration, weight_scales).write(decisions)


@dataclass
class _Writing:
    """One call of ``write_qdq``; pairs: what was quantized already, by tensor and type."""

    network: NetworkDefinition
    calibration: CalibrationResult | None
    weight_scales: str
    pairs: dict[tuple[str, DataType], Tensor] = field(default_factory=dict)

    def write(self, decisions: Sequence[PrecisionDecision]) -> tuple[Attempt, ...]:
        kinds = {d.layer: d.precision for d in decisions if d.precision in CALIBRATED}
        done: list[Attempt] = []
        for d in decisions:
            if d.layer in kinds:
                self._quantize_operands(self.network.layer(d.layer), d.precision)
                detail = f"{d.layer} in {d.precision.info.label}"
            elif d.precision is DataType.INT4:
                self._quantize_weight(self.network.layer(d.layer), 1, DataType.INT4)
                detail = f"weights of {d.layer} in INT4, blocks of {INT4_BLOCK}; products in FP32"
            else:
                continue
            done.append(_attempt("write_qdq", d.layer, detail))
        for layer in self.network.layers:
            if layer.op in RESIDUAL and layer.operator is not None:
                done.extend(self._quantize_residual(layer, kinds))
        return tuple(done)

    def _quantize_operands(self, layer: Layer, kind: DataType) -> None:
        for index, t in enumerate(layer.inputs[:2]):
            if t is not None and t.weight is not None:
                self._quantize_weight(layer, index, kind)
            elif t is not None:
                self.network.replace_input(layer, index, self._quantized(t, kind, layer.name))

    def _quantize_residual(self, layer: Layer, kinds: Mapping[str, DataType]) -> list[Attempt]:
        ranges = self.calibration.ranges if self.calibration is not None else {}
        makers = [_maker(t) if t is not None and len(t.users) == 1 else "" for t in layer.inputs]
        main = next((i for i, name in enumerate(makers) if name in kinds), None)
        if main is None:
            return []
        kind = kinds[makers[main]]
        done: list[Attempt] = []
        for index, t in enumerate(layer.inputs):
            if index == main or t is None or t.is_constant or t.name not in ranges:
                continue
            if t.producer is not None and t.producer.op == "DequantizeLinear":
                continue
            self.network.replace_input(layer, index, self._quantized(t, kind, layer.name))
            detail = f"residual '{t.name}' in {kind.info.label}"
            done.append(_attempt("write_qdq_residual", layer.name, detail))
        return done

    def _quantized(self, t: Tensor, kind: DataType, reader: str) -> Tensor:
        """An activation through QuantizeLinear and DequantizeLinear, once a type."""
        if (t.name, kind) in self.pairs:
            return self.pairs[t.name, kind]
        found = self.calibration.ranges.get(t.name) if self.calibration is not None else None
        if found is None:
            raise CalibrationError(
                f"there is no range for it, which {reader} needs in {kind.info.label}",
                place=f"tensor '{t.name}'",
                remedy="calibrate this network again",
            )
        network, label = self.network, f"{t.name}{_suffix(kind)}"
        scale = network.constant(np.float32(found.threshold / kind.info.high), f"{label}.scale")
        inputs = [scale]
        if kind.is_integer:
            inputs.append(network.constant(np.int8(0), f"{label}.zero_point"))
        cause = Cause("Calibrate", f"{reader} runs in {kind.info.label}")
        q = network.add_layer(
            *("QuantizeLinear", [t, *inputs], _stored_as(kind)),
            name=f"{label}_quantize",
            cause=cause,
        )
        dq = network.add_layer(
            *("DequantizeLinear", [q.outputs[0], *inputs]),
            name=f"{label}_dequantize",
            cause=cause,
        )
        self.pairs[t.name, kind] = dq.outputs[0]
        return dq.outputs[0]

    def _quantize_weight(self, layer: Layer, index: int, kind: DataType) -> None:
        """Store a constant operand in the type; what read it reads a DequantizeLinear."""
        operand = layer.inputs[index]
        assert operand is not None and operand.weight is not None
        weight = operand.weight
        if kind is DataType.INT4:
            axis = summed_axis(layer)
            scales, grain = _block_scales(weight, axis), {"axis": axis, "block_size": INT4_BLOCK}
        else:
            axis = _channel_axis(layer)
            shared = self.weight_scales == "tensor"
            scales, grain = _channel_scales(weight, axis, kind, shared=shared), {"axis": axis}
        name = f"{weight.name}{_suffix(kind)}"
        scale = Weight.derive(f"{name}.scale", scales, (weight,))
        body = _quantize_body(weight, scale, kind, grain)
        stored = Weight.derive(f"{weight.name}.{kind.value.lower()}", body, (weight, scale))
        tensors = [self.network.add_weight(stored), self.network.add_weight(scale)]
        what = "has weights" if kind is DataType.INT4 else "runs"
        dq = self.network.add_layer(
            *("DequantizeLinear", tensors, grain),
            name=f"{name}_dequantize",
            cause=Cause("Calibrate", f"{layer.name} {what} in {kind.info.label}"),
        )
        self.network.replace_input(layer, index, dq.outputs[0])


def _attempt(rule: str, layer: str, detail: str) -> Attempt:
    return Attempt(rule, (layer,), True, stage=Stage.CALIBRATE, detail=detail)


def _maker(t: Tensor) -> str:
    return t.producer.name if t.producer is not None else ""


def _suffix(kind: DataType) -> str:
    """What tells the names of a type's tensors from INT8's, which have none."""
    return "" if kind is DataType.INT8 else f".{kind.value.lower()}"


def _stored_as(kind: DataType) -> dict[str, object]:
    """QuantizeLinear's attributes; INT8 is told by its zero point."""
    return {} if kind is DataType.INT8 else {"output_dtype": kind}


def _channel_scales(weight: Weight, axis: int, kind: DataType, *, shared: bool) -> Body:
    """scale[channel] = max(max |w|, tiny) / high, over the channel or, shared, over all of w."""
    channels = weight.array.shape[axis]
    others = [a for a in range(weight.array.ndim) if shared or a != axis]
    nodes = [_literal("axes", np.array(others, np.int64)), *_largest("w", kind)]
    if shared:
        nodes.append(_literal("channels", np.array([channels], np.int64)))
        nodes.append(_node("Expand", ("s", "channels"), "each"))
    return Body((weight_input("w", weight),), tuple(nodes), (nodes[-1].outputs[0],))


def _block_scales(weight: Weight, axis: int) -> Body:
    """The same over each block of 32 along an axis; shape as the weight's, that axis divided."""
    shape = list(weight.array.shape)
    blocks = [*shape[:axis], shape[axis] // INT4_BLOCK, INT4_BLOCK, *shape[axis + 1 :]]
    nodes = (
        _literal("blocks", np.array(blocks, np.int64)),
        _node("Reshape", ("w", "blocks"), "b"),
        _literal("axes", np.array([axis + 1], np.int64)),
        *_largest("b", DataType.INT4),
    )
    return Body((weight_input("w", weight),), nodes, ("s",))


def _largest(source: str, kind: DataType) -> list[Node]:
    """``s``: the largest magnitude over ``axes``, stored as the type's largest number."""
    return [
        _literal("tiny", np.float32(1e-12)),
        _literal("levels", np.float32(kind.info.high)),
        _node("Abs", (source,), "a"),
        _node("ReduceMax", ("a", "axes"), "m", keepdims=0),
        _node("Max", ("m", "tiny"), "t"),
        _node("Div", ("t", "levels"), "s"),
    ]


def _quantize_body(weight: Weight, scale: Weight, kind: DataType, grain: Mapping[str, int]) -> Body:
    quantize = operator_named("QuantizeLinear")
    nodes: tuple[Node, ...] = ()
    operands = ("w", "s")
    if kind is DataType.INT8:
        channels = weight.array.shape[grain["axis"]]
        nodes, operands = (_literal("zero", np.zeros(channels, np.int8)),), ("w", "s", "zero")
    attributes = quantize.complete({**grain, **_stored_as(kind)})
    nodes = (*nodes, Node(quantize, operands, ("q",), attributes))
    return Body((weight_input("w", weight), weight_input("s", scale)), nodes, ("q",))


def _node(op: str, inputs: tuple[str, ...], output: str, **attributes: int) -> Node:
    operator = operator_named(op)
    return Node(operator, inputs, (output,), operator.complete(attributes))


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
