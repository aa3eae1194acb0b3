"""Putting elements in their places: Col2Im, MaxUnpool, ReverseSequence, TensorScatter, BitCast."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import REQUIRED, Array, Attributes, Inference, Operator, TensorType
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators import open_shapes
from workbench.operators.products import gamma, operand
from workbench.operators.rules import (
    absent,
    axis_of,
    certain,
    filled,
    known,
    moved,
    mover,
    numbers_of,
    numeric,
    one_dtype,
    sizes_of,
)
from workbench.operators.windows import per_axis, window_of


# -- Col2Im -------------------------------------------------------------------------------
def _col2im_types(inference: Inference) -> tuple[TensorType, ...]:
    x = numeric(inference)
    image = sizes_of(known(inference, 1, "image_shape"))
    block = numbers_of(known(inference, 2, "block_shape"), "block_shape")
    window = window_of(inference.attributes, image, block)
    if len(x.shape) != 3 or not dimensions.may_equal(
        x.shape[2:], (dimensions.volume(window.output),)
    ):
        raise InferenceError(
            f"input is {x.shape}, the blocks lie at {window.output}",
            remedy="give [N, channels x block, blocks]",
        )
    channels = dimensions.floordiv(x.shape[1], math.prod(block))
    return (TensorType(x.dtype, (x.shape[0], channels, *image)),)


def _col2im(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, image, block = inputs[0], *(tuple(int(n) for n in v) for v in inputs[1:3])
    window = window_of(attributes, image, block)
    batch, channels = x.shape[0], x.shape[1] // math.prod(block)
    columns = x.reshape(batch, channels, *block, *window.output)
    room = [
        b + max(n + e, (o - 1) * s + r)
        for b, n, e, o, s, r in zip(
            window.begin, image, window.end, window.output, window.strides, window.extent,
            strict=True,
        )
    ]  # fmt: skip
    full = np.zeros((batch, channels, *room), x.dtype)
    for tap in itertools.product(*map(range, block)):
        where = tuple(
            slice(k * d, k * d + (o - 1) * s + 1, s)
            for k, d, o, s in zip(tap, window.dilations, window.output, window.strides, strict=True)
        )
        full[(slice(None), slice(None), *where)] += columns[(slice(None), slice(None), *tap)]
    cut = tuple(slice(b, b + n) for b, n in zip(window.begin, image, strict=True))
    return (full[(slice(None), slice(None), *cut)],)


def _col2im_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    x, error = inputs[0], filled(bounds[0], inputs[0])
    if x.dtype.kind != "f":
        return (0.0,)
    own = 4 * gamma(math.prod(int(n) for n in inputs[2]), unit)
    return _col2im(attributes, (own * (np.abs(x) + error) + error, *inputs[1:]))


# -- MaxUnpool ----------------------------------------------------------------------------
def _unpooled(attributes: Attributes, sizes: Sequence[Any]) -> tuple[Any, ...]:
    kernel = attributes["kernel_shape"]
    strides = per_axis(attributes, "strides", len(sizes), 1)
    pads = per_axis(attributes, "pads", 2 * len(sizes), 0)
    return tuple(
        (n - 1) * strides[i] + kernel[i] - pads[i] - pads[i + len(sizes)]
        for i, n in enumerate(sizes)
    )


def _unpool_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    if len(inference.attributes["kernel_shape"]) != len(x.shape) - 2:
        raise InferenceError(f"kernel is {inference.attributes['kernel_shape']}, input {x.shape}")
    if inference.input(1).shape != x.shape:
        raise InferenceError(f"indices are {inference.input(1).shape}, input {x.shape}")
    if not absent(inference, 2):
        return (TensorType(x.dtype, sizes_of(known(inference, 2, "output_shape"))),)
    return (TensorType(x.dtype, (*x.shape[:2], *_unpooled(inference.attributes, x.shape[2:]))),)


def _max_unpool(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """Indices count in the tensor without output_shape, which only adds room behind it.

    Source: the standard's test ``maxunpool_export_with_output_shape``.
    """
    x, places, wanted = inputs[0], inputs[1], operand(inputs, 2)
    shape = (*x.shape[:2], *_unpooled(attributes, x.shape[2:]))
    flat = np.zeros(math.prod(shape), x.dtype)
    flat[places.reshape(-1)] = x.reshape(-1)
    y = flat.reshape(shape)
    if wanted is None:
        return (y,)
    result = np.zeros(tuple(int(n) for n in wanted), x.dtype)
    cut = tuple(slice(0, min(a, b)) for a, b in zip(result.shape, shape, strict=True))
    result[cut] = y[cut]
    return (result,)


# -- ReverseSequence ----------------------------------------------------------------------
def _reverse_types(inference: Inference) -> tuple[TensorType, ...]:
    x, lengths = inference.input(0), inference.input(1)
    a, rank = inference.attributes, len(x.shape)
    axes = axis_of(a["time_axis"], rank), axis_of(a["batch_axis"], rank)
    if sorted(axes) != [0, 1]:
        raise InferenceError(f"time and batch axis are {axes}", remedy="use 0 and 1")
    if not dimensions.may_equal(lengths.shape, (x.shape[axes[1]],)):
        raise InferenceError(f"sequence_lens is {lengths.shape}, input {x.shape}")
    return (x,)


def _reverse(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, lengths = inputs
    time_first = attributes["time_axis"] % x.ndim == 0
    rows = x if time_first else x.swapaxes(0, 1)
    time, batch = np.arange(rows.shape[0])[:, None], np.arange(rows.shape[1])
    order = np.where(time < lengths, lengths - 1 - time, time)
    found = rows[order, batch]
    return (found if time_first else found.swapaxes(0, 1),)


# -- TensorScatter ------------------------------------------------------------------------
def _scatter_types(inference: Inference) -> tuple[TensorType, ...]:
    cache, update = inference.input(0), inference.input(1)
    one_dtype(cache, update)
    axis = axis_of(inference.attributes["axis"], len(cache.shape))
    rest = [tuple(d for i, d in enumerate(t.shape) if i != axis) for t in (cache, update)]
    if axis == 0 or not dimensions.may_equal(rest[0], rest[1]):
        raise InferenceError(
            f"cache is {cache.shape}, update {update.shape}, axis {axis}",
            remedy="let them differ on the axis alone, which is not the batch",
        )
    if inference.attributes["mode"] not in ("linear", "circular"):
        raise InferenceError(f"mode is {inference.attributes['mode']!r}")
    return (cache,)


def _tensor_scatter(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    cache, update, starts = inputs[0], inputs[1], operand(inputs, 2)
    axis = attributes["axis"] % cache.ndim
    rows = np.moveaxis(np.array(cache), axis, 1)
    new = np.moveaxis(update, axis, 1)
    first = np.zeros(len(cache), np.int64) if starts is None else starts
    places = np.asarray(first)[:, None] + np.arange(new.shape[1])
    if attributes["mode"] == "circular":
        places = places % rows.shape[1]
    rows[np.arange(len(cache))[:, None], places] = new
    return (np.moveaxis(rows, 1, axis),)


# -- BitCast ------------------------------------------------------------------------------
def _bit_cast_types(inference: Inference) -> tuple[TensorType, ...]:
    x, kind = inference.input(0), inference.attributes["to"]
    if not isinstance(kind, DataType) or x.dtype.info.bits != kind.info.bits:
        raise InferenceError(f"{x.dtype} as {kind}", remedy="choose a type of as many bits")
    return (TensorType(kind, x.shape),)


def _bit_cast(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, kind = inputs[0], attributes["to"]
    if kind.info.bits >= 8:
        return (np.ascontiguousarray(x).reshape(x.shape).view(kind.numpy),)
    # One element a byte; the bits above the element's own are no part of it.
    raw = np.ascontiguousarray(x).reshape(x.shape).view(np.uint8) & ((1 << kind.info.bits) - 1)
    if kind.is_integer and kind.info.low < 0:
        half = 1 << (kind.info.bits - 1)
        return ((raw.astype(np.int8) ^ half) - half,)
    return (raw if kind.is_integer else raw.view(kind.numpy),)


def _bit_cast_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    return (0.0 if certain(bounds[0]) else np.inf,)


PLACING: tuple[Operator, ...] = (
    mover(
        "Col2Im",
        _col2im_types,
        _col2im,
        layer_type="SCATTER",
        bound=_col2im_bound,
        structural=frozenset({1, 2}),
        open=open_shapes.image,
        attributes={"dilations": None, "pads": None, "strides": None},
    ),
    mover(
        "MaxUnpool",
        _unpool_types,
        _max_unpool,
        layer_type="SCATTER",
        structural=frozenset({2}),
        open=open_shapes.same_rank,
        attributes={"kernel_shape": REQUIRED, "pads": None, "strides": None},
    ),
    mover(
        "ReverseSequence",
        _reverse_types,
        _reverse,
        layer_type="REVERSE_SEQUENCE",
        attributes={"batch_axis": 1, "time_axis": 0},
    ),
    mover(
        "TensorScatter",
        _scatter_types,
        _tensor_scatter,
        layer_type="KVCACHE_UPDATE",
        bound=moved(_tensor_scatter, data=(0, 1)),
        attributes={"axis": -2, "mode": "linear"},
    ),
    Operator(
        name="BitCast",
        infer=_bit_cast_types,
        reference=_bit_cast,
        bound=_bit_cast_bound,
        layer_type="CAST",
        family="movement",
        stored=True,
        attributes=MappingProxyType({"to": REQUIRED}),
    ),
)
