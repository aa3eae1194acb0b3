"""Reading and writing at indices: Slice, the Gather and Scatter operators, OneHot."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import (
    Array,
    Attributes,
    BoundRule,
    Inference,
    Operator,
    Reference,
    TensorType,
)
from workbench.dimensions import Shape
from workbench.errors import InferenceError
from workbench.operators import misfits, open_shapes
from workbench.operators.products import operand
from workbench.operators.rules import (
    absent,
    at_least,
    axes_of,
    axis_of,
    certain,
    filled,
    known,
    mover,
    numbers_of,
    one_dtype,
    range_of,
    sizes_of,
)

END = 2**31 - 1
"""A slice limit of at least this (or at most its negative) means "to the end"."""


# -- Slice --------------------------------------------------------------------------------
def sliced_size(size: Any, start: Any, end: Any, step: int) -> Any:
    """How many elements Slice takes from an axis; sizes and limits may be symbolic."""
    if dimensions.is_static((size, start, end)):
        return len(sliced_range(size, start, end, step))
    if step < 0:
        first = size - 1
        if start != -1 and not (isinstance(start, int) and start >= END):
            first = dimensions.minimum(_limit(start, size, 0, size), size - 1)
        last = _limit(end, size, -1, size - 1)
        return dimensions.ceildiv(at_least(0, first - last), -step)
    first, last = _limit(start, size, 0, size), _limit(end, size, 0, size)
    if last == size and isinstance(start, int) and -END < start < END:
        # size - max(size + start, 0), and size - min(start, size).
        taken = dimensions.minimum(-start, size) if start < 0 else size - start
    else:
        taken = last - first
    return dimensions.ceildiv(at_least(0, taken), step)


def sliced_range(size: int, start: int, end: int, step: int) -> range:
    """The indices that Slice takes from an axis.

    As Python's, but a backward slice that starts before the first element starts at it.
    """
    first, last = (v + size if v < 0 else v for v in (start, end))
    if step < 0:
        return range(min(max(first, 0), size - 1), min(max(last, -1), size - 1), step)
    return range(min(max(first, 0), size), min(max(last, 0), size), step)


def _limit(value: Any, size: Any, low: int, high: Any) -> Any:
    """A slice limit counted from the front and kept between ``low`` and ``high``."""
    if isinstance(value, int) and abs(value) >= END:
        return high if value > 0 else low
    if range_of(value)[1] < 0:
        return at_least(low, size + value)
    return value if range_of(high - value)[0] >= 0 else dimensions.minimum(value, high)


def _slice_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    rank = len(x.shape)
    starts, ends = (sizes_of(known(inference, i, n)) for i, n in ((1, "starts"), (2, "ends")))
    axes = range(len(starts))
    if not absent(inference, 3):
        axes = axes_of(numbers_of(known(inference, 3, "axes"), "axes"), rank)
    steps = (1,) * len(starts)
    if not absent(inference, 4):
        steps = numbers_of(known(inference, 4, "steps"), "steps")
    if not len(starts) == len(ends) == len(axes) == len(steps) <= rank or 0 in steps:
        raise InferenceError(
            f"starts {starts}, ends {ends}, axes {tuple(axes)}, steps {steps} of rank {rank}",
            remedy="give one of each per sliced axis, no step of 0",
        )
    shape = list(x.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        shape[axis] = sliced_size(shape[axis], start, end, step)
    return (TensorType(x.dtype, tuple(shape)),)


def _slice(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    starts, ends, axes, steps = (operand(inputs, i) for i in range(1, 5))
    axes = range(len(starts)) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        taken = sliced_range(x.shape[int(axis)], _index(start), _index(end), int(step))
        stop = taken.stop if taken.stop >= 0 else None
        index[int(axis)] = slice(taken.start, stop, taken.step) if taken else slice(0)
    return (x[tuple(index)],)


def _index(value: Any) -> int:
    return operator.index(value)  # TypeError for a symbolic size


# -- Gather -------------------------------------------------------------------------------
def _check_indices(indices: TensorType, value: Array | None, size: Any, what: str) -> None:
    if not indices.dtype.is_integer:
        raise InferenceError(f"{what} are {indices.dtype!r}", remedy="cast them to INT64")
    if value is None or value.dtype == object or not isinstance(size, int) or not value.size:
        return
    low, high = int(value.min()), int(value.max())
    if low < -size or high >= size:
        bad = low if low < -size else high
        raise InferenceError(f"index {bad} lies outside size {size}", remedy="mend the indices")


def _gather_types(inference: Inference) -> tuple[TensorType, ...]:
    x, indices = inference.input(0), inference.input(1)
    axis = axis_of(inference.attributes["axis"], len(x.shape))
    _check_indices(indices, inference.value(1), x.shape[axis], "indices")
    return (TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])),)


def _gather(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, indices = inputs
    return (np.asarray(np.take(x, indices, axis=attributes["axis"])),)


def _elements_types(inference: Inference) -> tuple[TensorType, ...]:
    x, indices = inference.input(0), inference.input(1)
    axis = axis_of(inference.attributes["axis"], len(x.shape))
    if len(indices.shape) != len(x.shape):
        raise InferenceError(
            f"indices have rank {len(indices.shape)}, the data {len(x.shape)}",
            remedy="give indices of the data's rank",
        )
    _check_indices(indices, inference.value(1), x.shape[axis], "indices")
    return (TensorType(x.dtype, indices.shape),)


def _element_index(shape: Shape, indices: Array, axis: int, size: int) -> tuple[Array, ...]:
    """The full index of every element that ``indices`` names along ``axis``."""
    grid = list(np.indices(indices.shape, sparse=True))
    grid[axis] = np.where(indices < 0, indices + size, indices)
    return tuple(grid)


def _gather_elements(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, indices = inputs
    axis = attributes["axis"] % x.ndim
    return (x[_element_index(x.shape, indices, axis, x.shape[axis])],)


def _index_depth(x: TensorType, indices: TensorType, batch: int) -> int:
    """How many axes of the data an index tuple names."""
    depth = indices.shape[-1] if indices.shape else 0
    if not 0 <= batch < max(1, min(len(x.shape), len(indices.shape))):
        raise InferenceError(
            f"batch_dims is {batch}, the data is {x}, the indices are {indices}",
            remedy="give it less than both ranks",
        )
    if not isinstance(depth, int) or not 0 < depth <= len(x.shape) - batch:
        raise InferenceError(
            f"indices {indices} name {depth} axes of {x} after {batch} batch axes",
            remedy="give a constant last size from 1 to the data's rank",
        )
    return depth


def _gather_nd_types(inference: Inference) -> tuple[TensorType, ...]:
    x, indices = inference.input(0), inference.input(1)
    batch = inference.attributes["batch_dims"]
    depth = _index_depth(x, indices, batch)
    _check_indices(indices, None, 0, "indices")
    return (TensorType(x.dtype, (*indices.shape[:-1], *x.shape[batch + depth :])),)


def _gather_nd(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, indices = inputs
    batch = attributes["batch_dims"]
    places = indices.shape[:-1]
    grid = np.indices(places, sparse=True)[:batch]
    return (x[(*grid, *np.moveaxis(indices, -1, 0))],)


# -- Scatter ------------------------------------------------------------------------------
def _check_updates(
    attributes: Attributes, x: TensorType, updates: TensorType, expected: Shape
) -> None:
    one_dtype(x, updates)
    reduction = attributes["reduction"]
    if reduction != "none" and reduction not in _REDUCTIONS:
        raise InferenceError(
            f"reduction is {reduction!r}", remedy=f"use none, {', '.join(_REDUCTIONS)}"
        )
    misfit = len(updates.shape) != len(expected) or any(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(updates.shape, expected, strict=False)
    )
    if misfit:
        raise InferenceError(
            f"updates are {updates}, the indices name {expected}", remedy="make the shapes equal"
        )


def _scatter_elements_types(inference: Inference) -> tuple[TensorType, ...]:
    x, indices, updates = (inference.input(i) for i in range(3))
    _elements_types(inference)
    _check_updates(inference.attributes, x, updates, indices.shape)
    return (x,)


def _scatter_nd_types(inference: Inference) -> tuple[TensorType, ...]:
    x, indices, updates = (inference.input(i) for i in range(3))
    depth = _index_depth(x, indices, 0)
    _check_updates(inference.attributes, x, updates, (*indices.shape[:-1], *x.shape[depth:]))
    return (x,)


_REDUCTIONS = MappingProxyType(
    {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
)


def _write(reduction: str, x: Array, index: tuple[Array, ...], updates: Array) -> Array:
    out = np.array(x)
    if reduction == "none":
        out[index] = updates
    else:
        _REDUCTIONS[reduction].at(out, index, updates)
    return out


def _scatter_elements(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, indices, updates = inputs
    axis = attributes["axis"] % x.ndim
    index = _element_index(x.shape, indices, axis, x.shape[axis])
    return (_write(attributes["reduction"], x, index, updates),)


def _scatter_nd(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, indices, updates = inputs
    return (_write(attributes["reduction"], x, tuple(np.moveaxis(indices, -1, 0)), updates),)


def _scattered(reference: Reference) -> BoundRule:
    """The operands' bounds scattered alike; sums and products round once an update, any order."""

    def bound(
        attributes: Attributes, inputs: Any, bounds: Any, outputs: Any, unit: float
    ) -> tuple[Any, ...]:
        x, indices, updates = inputs
        if not certain(bounds[1]):
            return (np.inf,)
        errors = filled(bounds[0], x), filled(bounds[2], updates)
        kind = attributes["reduction"]
        if kind in ("none", "max", "min"):
            how = {"reduction": "none" if kind == "none" else "max"}
            return reference({**attributes, **how}, (errors[0], indices, errors[1]))
        large = np.abs(x) + errors[0], np.abs(updates) + errors[1]
        (count,) = reference(
            {**attributes, "reduction": "add"}, (0.0 * large[0], indices, np.ones(updates.shape))
        )
        (size,) = reference(attributes, (large[0], indices, large[1]))
        if kind == "mul":
            own = 0.0 if x.dtype.kind != "f" else 4 * count * unit * size
            return (size - np.abs(outputs[0]) + own,)
        (spread,) = reference(attributes, (errors[0], indices, errors[1]))
        return (spread + (0.0 if x.dtype.kind != "f" else 4 * count * unit * size),)

    return bound


# -- OneHot -------------------------------------------------------------------------------
def _one_hot_types(inference: Inference) -> tuple[TensorType, ...]:
    indices, values = inference.input(0), inference.input(2)
    (depth,) = sizes_of(known(inference, 1, "depth"))
    axis = axis_of(inference.attributes["axis"], len(indices.shape) + 1)
    shape = (*indices.shape[:axis], depth, *indices.shape[axis:])
    return (TensorType(values.dtype, shape),)


def _one_hot(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    indices, depth, values = inputs
    depth = int(np.asarray(depth).reshape(()))
    axis = attributes["axis"] % (indices.ndim + 1)
    places = np.expand_dims(np.where(indices < 0, indices + depth, indices), axis)
    shape = [1] * (indices.ndim + 1)
    shape[axis] = depth
    return (np.where(places == np.arange(depth).reshape(shape), values[1], values[0]),)


def _one_hot_bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
    if not certain(e[0]):
        return (np.inf,)
    return (np.max(e[2]),)


INDEXING: tuple[Operator, ...] = (
    mover(
        "Slice",
        _slice_types,
        _slice,
        layer_type="SLICE",
        structural=frozenset({1, 2, 3, 4}),
        symbolic=True,
        open=open_shapes.sliced,
    ),
    mover(
        "Gather",
        _gather_types,
        _gather,
        layer_type="GATHER",
        attributes={"axis": 0},
        symbolic=True,
        misfit=misfits.along_axis,
    ),
    mover(
        "GatherElements",
        _elements_types,
        _gather_elements,
        layer_type="GATHER",
        attributes={"axis": 0},
        misfit=misfits.along_axis,
    ),
    mover(
        "GatherND",
        _gather_nd_types,
        _gather_nd,
        layer_type="GATHER",
        attributes={"batch_dims": 0},
        misfit=misfits.tuples,
    ),
    mover(
        "ScatterElements",
        _scatter_elements_types,
        _scatter_elements,
        layer_type="SCATTER",
        bound=_scattered(_scatter_elements),
        attributes={"axis": 0, "reduction": "none"},
        misfit=misfits.along_axis,
    ),
    mover(
        "ScatterND",
        _scatter_nd_types,
        _scatter_nd,
        layer_type="SCATTER",
        bound=_scattered(_scatter_nd),
        attributes={"reduction": "none"},
        misfit=misfits.tuples,
    ),
    mover(
        "OneHot",
        _one_hot_types,
        _one_hot,
        layer_type="ONE_HOT",
        bound=_one_hot_bound,
        structural=frozenset({1}),
        attributes={"axis": -1},
        open=open_shapes.one_hot,
    ),
)
