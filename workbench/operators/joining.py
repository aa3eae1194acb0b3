"""Joining, splitting, repeating and padding: Concat, Split, Expand, Tile, Pad."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import (
    REQUIRED,
    Array,
    Attributes,
    Inference,
    Operator,
    TensorType,
)
from workbench.errors import InferenceError
from workbench.operators import open_shapes
from workbench.operators.numerals import is_text
from workbench.operators.products import operand
from workbench.operators.rules import (
    absent,
    axes_of,
    axis_of,
    broadcast_shape,
    known,
    moved,
    mover,
    numbers_of,
    one_dtype,
    range_of,
    sizes_of,
)


# -- Concat, Split ------------------------------------------------------------------------
def _concat_types(inference: Inference) -> tuple[TensorType, ...]:
    types = [inference.input(i) for i in range(len(inference.inputs))]
    dtype, rank = one_dtype(*types), len(types[0].shape)
    axis = axis_of(inference.attributes["axis"], rank)
    shape = list(types[0].shape)
    for t in types[1:]:
        if len(t.shape) != rank:
            raise InferenceError(f"{types[0]} and {t} differ in rank", remedy="reshape one of them")
        for i, d in enumerate(t.shape):
            if i == axis:
                shape[i] = shape[i] + d
            elif isinstance(d, int):
                if isinstance(shape[i], int) and shape[i] != d:
                    raise InferenceError(
                        f"{types[0]} and {t} differ on axis {i}: {shape[i]} and {d}",
                        remedy=f"only axis {axis} may differ",
                    )
                shape[i] = d
    return (TensorType(dtype, tuple(shape)),)


def _concat(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (np.concatenate(inputs, axis=attributes["axis"]),)


def _split_types(inference: Inference) -> tuple[TensorType, ...]:
    x, count = inference.input(0), inference.attributes["num_outputs"]
    axis = axis_of(inference.attributes["axis"], len(x.shape))
    size = x.shape[axis]
    if not absent(inference, 1):
        parts = sizes_of(known(inference, 1, "split"))
        total: Any = sum(parts)
        if isinstance(total, int) and isinstance(size, int) and total != size:
            raise InferenceError(
                f"parts {parts} add to {total}, axis {axis} has {size}", remedy="mend split"
            )
    elif count is None:
        raise InferenceError(
            "neither split nor num_outputs is given", remedy=f"set num_outputs={inference.outputs}"
        )
    else:
        part = dimensions.ceildiv(size, count)
        parts = (part,) * (count - 1) + (size - part * (count - 1),)
    if len(parts) != inference.outputs or any(range_of(p)[1] < 0 for p in parts):
        raise InferenceError(
            f"axis {axis} of size {size} splits into {parts}, for {inference.outputs} outputs",
            remedy="give one part an output",
        )
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    return tuple(TensorType(x.dtype, (*before, p, *after)) for p in parts)


def _split(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, axis, count = inputs[0], attributes["axis"], attributes["num_outputs"]
    if len(inputs) > 1 and inputs[1] is not None:
        limits = np.cumsum(inputs[1])[:-1]
    else:
        part = -(-x.shape[axis] // count)
        limits = np.arange(1, count) * part
    return tuple(np.split(x, limits, axis=axis))


# -- Expand, Tile, Pad --------------------------------------------------------------------
def _expand_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    shape = TensorType(x.dtype, sizes_of(known(inference, 1, "shape")))
    return (TensorType(x.dtype, broadcast_shape(x, shape)),)


def _expand(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, shape = inputs
    target = tuple(index(size) for size in np.asarray(shape).reshape(-1).tolist())
    return (np.broadcast_to(x, np.broadcast_shapes(x.shape, target)),)


def _tile_types(inference: Inference) -> tuple[TensorType, ...]:
    x, repeats = inference.input(0), sizes_of(known(inference, 1, "repeats"))
    if len(repeats) != len(x.shape):
        raise InferenceError(f"repeats {repeats} for {x}", remedy="give one an axis")
    sizes = tuple(d * r for d, r in zip(x.shape, repeats, strict=True))
    return (TensorType(x.dtype, sizes),)


def _tile(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, repeats = inputs
    return (np.tile(x, tuple(int(r) for r in repeats)),)


_PAD_MODES = ("constant", "reflect", "edge", "wrap")


def _pad_types(inference: Inference) -> tuple[TensorType, ...]:
    x, pads = inference.input(0), sizes_of(known(inference, 1, "pads"))
    axes = range(len(x.shape))
    if not absent(inference, 3):
        axes = axes_of(numbers_of(known(inference, 3, "axes"), "axes"), len(x.shape))
    if len(pads) != 2 * len(axes):
        raise InferenceError(f"pads {pads} for {len(axes)} axes", remedy="give two an axis")
    if inference.attributes["mode"] not in _PAD_MODES:
        raise InferenceError(
            f"mode is {inference.attributes['mode']!r}", remedy=f"use one of {_PAD_MODES}"
        )
    shape = list(x.shape)
    for i, axis in enumerate(axes):
        shape[axis] = shape[axis] + pads[i] + pads[i + len(axes)]
        if range_of(shape[axis])[1] < 0:
            raise InferenceError(f"pads {pads} crop axis {axis} of {x} away", remedy="crop less")
    return (TensorType(x.dtype, tuple(shape)),)


def _pad(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """Negative pads crop, before the positive ones repeat what is left."""
    x, pads, value, axes = (operand(inputs, i) for i in range(4))
    chosen = range(x.ndim) if axes is None else [int(a) for a in axes]
    around, crop = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
    for i, axis in enumerate(chosen):
        begin, end = int(pads[i]), int(pads[i + len(chosen)])
        around[axis] = (max(begin, 0), max(end, 0))
        crop[axis] = slice(max(-begin, 0), x.shape[axis] + min(end, 0))
    x = x[tuple(crop)]
    if attributes["mode"] != "constant":
        return (np.pad(x, around, mode=attributes["mode"]),)
    nothing = "" if x.dtype == object and is_text(x) else 0
    fill = nothing if value is None else np.asarray(value).reshape(()).item()
    return (np.pad(x, around, constant_values=fill),)


_SECOND = frozenset({1})

JOINS: tuple[Operator, ...] = (
    mover(
        "Concat",
        _concat_types,
        _concat,
        layer_type="CONCATENATION",
        bound=moved(_concat, data=None),
        attributes={"axis": REQUIRED},
        symbolic=True,
    ),
    mover(
        "Split",
        _split_types,
        _split,
        layer_type="SLICE",
        structural=_SECOND,
        attributes={"axis": 0, "num_outputs": None},
        symbolic=True,
        open=open_shapes.same_rank,
    ),
    mover(
        "Expand",
        _expand_types,
        _expand,
        layer_type="SLICE",
        structural=_SECOND,
        symbolic=True,
        open=open_shapes.expanded,
    ),
    mover(
        "Tile",
        _tile_types,
        _tile,
        layer_type="SLICE",
        structural=_SECOND,
        symbolic=True,
        open=open_shapes.same_rank,
    ),
    mover(
        "Pad",
        _pad_types,
        _pad,
        layer_type="PADDING",
        bound=moved(_pad, data=(0, 2)),
        structural=frozenset({1, 2, 3}),
        attributes={"mode": "constant"},
        open=open_shapes.same_rank,
    ),
)
