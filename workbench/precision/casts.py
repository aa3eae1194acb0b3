"""BF16 and FP16 decisions, written into the graph as Cast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.body import CONSTANT, Body, BodyInput, Literal, Node, TensorType
from workbench.datatypes import DataType
from workbench.network import Cause, Layer, NetworkDefinition, Tensor, Weight
from workbench.operators import operator_named
from workbench.precision.decisions import PrecisionDecision
from workbench.records import Attempt, Refusal, Stage


def write_casts(
    network: NetworkDefinition, decisions: Sequence[PrecisionDecision]
) -> tuple[Attempt, ...]:
    """Write BF16 and FP16 requests as Casts around each layer (pairs cancel in Fuse)."""
    attempts: list[Attempt] = []
    casts: dict[tuple[str, DataType], Tensor] = {}
    for d in decisions:
        if d.precision in (DataType.BF16, DataType.HALF):
            layer = network.layer(d.layer)
            detail = f"{d.layer} in {d.precision.info.label}{_saturated(layer, d.precision)}"
            _cast_layer(network, layer, d.precision, casts)
            attempts.append(
                Attempt("write_cast", (d.layer,), True, stage=Stage.PRECISION, detail=detail)
            )
        elif d.blocker:
            refusal = Refusal(d.blocker, d.layer, code="no_kernel")
            attempts.append(
                Attempt(
                    f"{d.requested.value.lower()}_request",
                    (d.layer,),
                    False,
                    refusal,
                    stage=Stage.PRECISION,
                )
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
    public: list[tuple[str, Tensor]] = []
    for old, out in zip(layer.outputs, new.outputs, strict=True):
        public.append((old.name, out))
        result = out
        if out.dtype is kind:
            cause = Cause("Precision", f"{layer.name} computes in {kind.info.label}")
            back = network.add_layer(
                "Cast", [out], {"to": DataType.FLOAT}, name=f"{layer.name}_to_fp32", cause=cause
            )
            result = back.outputs[0]
            public[-1] = (old.name, result)
        network.replace_uses(old, result)
    name = layer.name
    network.remove_layer(layer)
    network.rename_layer(new, name)
    for known, result in public:
        # By the model's names Calibrate finds the range of what a quantized layer reads of it.
        if result.name != known:
            network.rename_tensor(result, known)


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
    """The weight in another type, with its recipe.

    Finite values beyond the type's range become its largest, as in TensorRT: a mask's -3.4e38
    must not become an infinity, which times zero is NaN. Infinities stay.
    """
    cast, w = operator_named("Cast"), weight_input("w", weight)
    to = cast.complete({"to": kind})
    nodes: tuple[Node, ...] = (Node(cast, ("w",), ("y",), to),)
    if beyond(weight, kind):
        own, limit = weight.array.dtype, kind.info.high
        nodes = (
            Node(CONSTANT, (), ("low",), {"value": Literal.of(np.array(-limit, own))}),
            Node(CONSTANT, (), ("high",), {"value": Literal.of(np.array(limit, own))}),
            _apply("Clip", ("w", "low", "high"), "clipped"),
            _apply("IsInf", ("w",), "infinite"),
            _apply("Where", ("infinite", "w", "clipped"), "kept"),
            Node(cast, ("kept",), ("y",), to),
        )
    return Weight.derive(
        f"{weight.name}.{kind.info.label.lower()}", Body((w,), nodes, ("y",)), (weight,)
    )


def beyond(weight: Weight, kind: DataType) -> int:
    """How many of a weight's finite values ``kind`` can't hold: they would become infinite."""
    array = weight.array
    if array.size and -kind.info.high <= array.min() and array.max() <= kind.info.high:
        return 0
    # After the cast: what lies just beyond the largest number (65504 < x < 65520) rounds to it.
    with np.errstate(over="ignore"):
        became = np.isinf(array.astype(kind.numpy))
    return int(np.count_nonzero(became & np.isfinite(array)))


def _saturated(layer: Layer, kind: DataType) -> str:
    told = ""
    for t in layer.inputs:
        if t is not None and t.dtype is DataType.FLOAT and t.weight is not None:
            count = beyond(t.weight, kind)
            if count:
                limit = f"{kind.info.high:g}"
                told += f"; {count} of {t.weight.array.size} values of {t.name} clipped to ±{limit}"
    return told


def _apply(op: str, inputs: tuple[str, ...], output: str) -> Node:
    operator = operator_named(op)
    return Node(operator, inputs, (output,), operator.complete({}))


def weight_input(name: str, weight: Weight) -> BodyInput:
    """The constant input of a recipe that reads ``weight``."""
    return BodyInput(name, TensorType(DataType.of(weight.array), weight.array.shape), constant=True)
