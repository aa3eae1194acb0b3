"""Types of the nodes' outputs, and the values that shape arithmetic knows at build time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body.operator import CONSTANT, Attributes, Inference, Node, Operator
from workbench.body.values import Array, TensorType, widened
from workbench.datatypes import DataType
from workbench.dimensions import SymbolicDim
from workbench.errors import InferenceError, NetworkError, ValueNeeded

SMALL = 1024
"""Largest element count of a value that inference computes ahead of folding."""


def infer(
    nodes: Sequence[Node],
    types: Mapping[str, TensorType],
    values: Mapping[str, Array] | None = None,
) -> tuple[dict[str, TensorType], dict[str, Array]]:
    """Types of every value, and the values known at build time (shape arithmetic included)."""
    known_types: dict[str, TensorType] = dict(types)
    known: dict[str, Array] = dict(values or {})
    for n in nodes:
        node_types, node_values = infer_node(
            n.operator,
            n.attributes,
            tuple(known_types[v] if v else None for v in n.inputs),
            tuple(known.get(v) if v else None for v in n.inputs),
            len(n.outputs),
            place=f"{n.op} '{n.outputs[0]}'",
        )
        for o, t, v in zip(n.outputs, node_types, node_values, strict=False):
            if o:
                known_types[o] = t
                if v is not None:
                    known[o] = v
    return known_types, known


def infer_node(
    operator: Operator,
    attributes: Attributes,
    inputs: tuple[TensorType | None, ...],
    values: tuple[Array | None, ...],
    outputs: int = 1,
    *,
    place: str = "",
) -> tuple[tuple[TensorType, ...], tuple[Array | None, ...]]:
    """Output types of one node, and output values where shape arithmetic gives them."""
    try:
        types = operator.infer(Inference(attributes, inputs, values, outputs))
    except NetworkError as e:
        if e.place:
            raise
        if isinstance(e, ValueNeeded):
            raise ValueNeeded(e.problem, index=e.index, place=place, remedy=e.remedy) from None
        raise InferenceError(e.problem, place=place, remedy=e.remedy) from None
    if operator is CONSTANT:
        return types, (attributes["value"].array(),)
    unknown = (None,) * len(types)
    if operator.name == "Shape":
        assert inputs[0] is not None
        start, end = attributes["start"], attributes["end"]
        return types, (_sizes(inputs[0].shape[slice(start, end)]),)
    if operator.name == "Size":
        assert inputs[0] is not None
        return types, (_sizes((dimensions.volume(inputs[0].shape),)).reshape(()),)
    ready = operator.symbolic and all(
        v is not None for v, t in zip(values, inputs, strict=False) if t is not None
    )
    if not ready or any(v is not None and v.size > SMALL for v in values):
        return types, unknown
    if any(not dimensions.is_static(t.shape) or dimensions.volume(t.shape) > SMALL for t in types):
        return types, unknown
    try:
        # Comparisons of unbound sizes have no answer; then the value is simply not known.
        with np.errstate(all="ignore"):
            given = [None if v is None else widened(v) for v in values]
            results = operator.reference(attributes, given)[: len(types)]
    except (TypeError, NetworkError):
        return types, unknown
    return types, tuple(_settled(r, t) for r, t in zip(results, types, strict=True))


def _sizes(sizes: Sequence[Any]) -> Array:
    out = np.empty(len(sizes), object)
    out[:] = list(sizes)
    return _settled(out, TensorType(DataType.INT64, (len(sizes),)))


def _settled(value: Any, type_: TensorType) -> Array:
    """Numeric where every element is a number."""
    array = np.asarray(value)
    if array.dtype == object and not any(isinstance(v, SymbolicDim) for v in array.reshape(-1)):
        return array.astype(type_.dtype.numpy)
    return array if array.dtype == object else array.astype(type_.dtype.numpy, copy=False)
