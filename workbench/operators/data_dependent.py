"""Operators whose output sizes only the data decides: NonZero, Unique, Compress, suppression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import (
    Array,
    Attributes,
    HostType,
    Inference,
    InferRule,
    Operator,
    Reference,
    TensorType,
    UnrankedType,
)
from workbench.datatypes import DataType
from workbench.errors import ExecutionError, InferenceError
from workbench.operators.products import operand
from workbench.operators.rules import axis_of, no_error


# -- NonZero ------------------------------------------------------------------------------
def _non_zero_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    rank = inference.later(0) if isinstance(x, HostType) else len(x.shape)
    return (TensorType(DataType.INT64, (rank, inference.later(1))),)


def _non_zero(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (x,) = inputs
    if not x.ndim:
        return (np.zeros((0, int(bool(x))), np.int64),)
    return (np.stack(np.nonzero(x)).astype(np.int64),)


# -- Unique -------------------------------------------------------------------------------
def _unique_types(inference: Inference) -> tuple[TensorType, ...]:
    x, axis = inference.input(0), inference.attributes["axis"]
    if axis is None:
        count = inference.later(0)
        whole = inference.later(0, 2) if isinstance(x, HostType) else dimensions.volume(x.shape)
        y = TensorType(x.dtype, (count,))
    elif isinstance(x, HostType):
        count, whole = inference.later(0, 1), inference.later(0, 2)
        y = UnrankedType(x.dtype)
    else:
        axis = axis_of(axis, len(x.shape))
        count, whole = inference.later(axis), x.shape[axis]
        y = TensorType(x.dtype, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    found, places = (TensorType(DataType.INT64, (n,)) for n in (count, whole))
    return (y, found, places, found)[: inference.outputs]


def _unique(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """As numpy.unique: NaNs that stand alone are one value; slices that hold one all differ."""
    (x,) = inputs
    axis = attributes["axis"]
    items = x.reshape(-1) if axis is None else x
    where = 0 if axis is None else axis % x.ndim
    # Strings along an axis are compared by their ranks among all of them.
    ranked = x.dtype == object and axis is not None
    compared = np.unique(x, return_inverse=True)[1].reshape(x.shape) if ranked else items
    _, first, inverse, counts = np.unique(
        compared,
        return_index=True,
        return_inverse=True,
        return_counts=True,
        axis=None if axis is None else where,
    )
    inverse = inverse.reshape(-1)
    if not attributes["sorted"]:
        order = np.argsort(first)
        first, counts = first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return np.take(items, first, where), first, inverse, counts


# -- Compress -----------------------------------------------------------------------------
def _compress_types(inference: Inference) -> tuple[TensorType, ...]:
    x, condition = inference.input(0), inference.input(1)
    if condition.dtype is not DataType.BOOL:
        raise InferenceError(f"the condition is {condition}", remedy="insert a Cast to BOOL")
    if not isinstance(condition, HostType) and len(condition.shape) != 1:
        raise InferenceError(f"the condition is {condition}", remedy="give one axis")
    axis = inference.attributes["axis"]
    if axis is None:
        return (TensorType(x.dtype, (inference.later(0),)),)
    if isinstance(x, HostType):
        return (x,)
    axis = axis_of(axis, len(x.shape))
    shape = (*x.shape[:axis], inference.later(axis), *x.shape[axis + 1 :])
    return (TensorType(x.dtype, shape),)


def _compress(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """A condition that is shorter than the axis leaves out what it does not reach."""
    x, condition = inputs
    return (np.compress(condition, x, axis=attributes["axis"]),)


# -- NonMaxSuppression --------------------------------------------------------------------
def _suppression_types(inference: Inference) -> tuple[TensorType, ...]:
    boxes, scores = inference.input(0), inference.input(1)
    for t, what in ((boxes, "boxes"), (scores, "scores")):
        if not isinstance(t, HostType) and len(t.shape) != 3:
            raise InferenceError(f"{what} are {t}", remedy="give three axes")
    if not isinstance(boxes, HostType) and boxes.shape[2] != 4:
        raise InferenceError(f"boxes are {boxes}", remedy="give four numbers a box")
    return (TensorType(DataType.INT64, (inference.later(0), 3)),)


def _suppression(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """Boxes by falling score, ties by index; one that overlaps a kept one too much is left out."""
    boxes, scores = inputs[0], inputs[1]
    limits = (operand(inputs, i) for i in (2, 3, 4))
    most, overlap, least = (None if v is None else v.reshape(-1)[0] for v in limits)
    if scores.shape[::2] != boxes.shape[:2]:
        raise ExecutionError(
            f"boxes are {boxes.shape}, scores {scores.shape}",
            remedy="give scores of [batches, classes, boxes]",
        )
    kept: list[tuple[int, int, int]] = []
    for batch, sample in enumerate(_corners(boxes, attributes["center_point_box"])):
        for kind, graded in enumerate(scores[batch]):
            order = np.argsort(-graded, kind="stable")
            if least is not None:
                order = order[graded[order] > least]
            chosen = _greedy(sample, order, int(most or 0), np.float32(overlap or 0))
            kept += [(batch, kind, k) for k in chosen]
    return (np.array(kept, np.int64).reshape(-1, 3),)


def _corners(boxes: Array, centred: int) -> Array:
    """Boxes as low and high corners, [..., 2, 2]: first the low one."""
    pairs = boxes.reshape(*boxes.shape[:2], 2, 2)
    if centred:
        middle, half = pairs[:, :, 0], pairs[:, :, 1] / 2
        return np.stack((middle - half, middle + half), axis=2)
    return np.sort(pairs, axis=2)


def _greedy(boxes: Array, order: Array, most: int, overlap: Any) -> list[int]:
    """At most so many of the boxes in order, none of which overlaps an earlier one by more."""
    sides = boxes[:, 1] - boxes[:, 0]
    areas = sides[:, 0] * sides[:, 1]
    chosen: list[int] = []
    while len(order) and len(chosen) < most:
        box, order = int(order[0]), order[1:]
        chosen.append(box)
        low = np.maximum(boxes[order, 0], boxes[box, 0])
        high = np.minimum(boxes[order, 1], boxes[box, 1])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        union = areas[order] + areas[box] - shared
        real = (shared > 0) & (areas[order] > 0) & (areas[box] > 0) & (union > 0)
        ratio = np.divide(shared, union, out=np.zeros_like(shared), where=real)
        order = order[~(real & (ratio > overlap))]
    return chosen


# -- rows ---------------------------------------------------------------------------------
def _row(
    name: str,
    infer: InferRule,
    reference: Reference,
    layer_type: str,
    attributes: Mapping[str, Any] = MappingProxyType({}),
    *,
    stored: bool = False,
) -> Operator:
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=no_error,
        layer_type=layer_type,
        family="data dependent",
        attributes=MappingProxyType(dict(attributes)),
        host=True,
        stored=stored,
    )


DATA_DEPENDENT: tuple[Operator, ...] = (
    _row("NonZero", _non_zero_types, _non_zero, "NON_ZERO"),
    _row("Unique", _unique_types, _unique, "UNIQUE", {"axis": None, "sorted": 1}),
    _row("Compress", _compress_types, _compress, "GATHER", {"axis": None}, stored=True),
    _row("NonMaxSuppression", _suppression_types, _suppression, "NMS", {"center_point_box": 0}),
)
