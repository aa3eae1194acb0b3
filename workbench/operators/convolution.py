"""Convolutions: Conv and ConvTranspose, in one to three spatial dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Array, Attributes, Cost, Inference, Operator, TensorType
from workbench.errors import InferenceError
from workbench.operators.products import gamma, is_exact, operand, product_bound
from workbench.operators.windows import Window, auto_pad, patches, per_axis, window_of

PATCH_BYTES = 1 << 26
"""Memory that the reference spends on unfolded patches at once."""


# -- types --------------------------------------------------------------------------------
def _checked(inference: Inference, channel_axis: int) -> tuple[TensorType, TensorType]:
    """Input and kernel, after checking types, ranks, channels and bias."""
    x, w = inference.input(0), inference.input(1)
    if not x.dtype.is_float or x.dtype is not w.dtype:
        raise InferenceError(f"input is {x.dtype}, kernel is {w.dtype}; both must be one float")
    if len(x.shape) < 3 or len(x.shape) != len(w.shape):
        raise InferenceError(f"input has rank {len(x.shape)}, kernel {len(w.shape)}; need >= 3")
    if not dimensions.is_static(w.shape):
        raise InferenceError(f"kernel {w.shape} has symbolic sizes")
    given = inference.attributes.get("kernel_shape")
    if given is not None and tuple(given) != tuple(w.shape[2:]):
        raise InferenceError(f"kernel_shape is {given}, the kernel is {w.shape[2:]}")
    group = inference.attributes["group"]
    channels, wanted = x.shape[1], w.shape[channel_axis] * (group if channel_axis else 1)
    if isinstance(channels, int) and channels != wanted:
        raise InferenceError(f"input has {channels} channels, kernel with {group} groups {wanted}")
    if w.shape[0] % group:
        raise InferenceError(f"{w.shape[0]} kernel channels do not divide into {group} groups")
    filters = w.shape[0] if channel_axis else w.shape[1] * group
    bias = inference.inputs[2] if len(inference.inputs) > 2 else None
    if bias is not None and (bias.shape != (filters,) or bias.dtype is not x.dtype):
        raise InferenceError(f"bias is {bias}, expected {TensorType(x.dtype, (filters,))}")
    return x, w


def _conv_types(inference: Inference) -> tuple[TensorType, ...]:
    x, w = _checked(inference, 1)
    window = window_of(inference.attributes, x.shape[2:], w.shape[2:])
    return (TensorType(x.dtype, (x.shape[0], w.shape[0], *window.output)),)


def _transpose_types(inference: Inference) -> tuple[TensorType, ...]:
    x, w = _checked(inference, 0)
    window = transposed_window(inference.attributes, x.shape[2:], w.shape[2:])
    filters = w.shape[1] * inference.attributes["group"]
    return (TensorType(x.dtype, (x.shape[0], filters, *window.output)),)


def transposed_window(
    attributes: Attributes, sizes: Sequence[Any], kernel: Sequence[int]
) -> Window:
    """The Window of a ConvTranspose: ``output`` is its result's sizes, begin and end its crop.

    Source: ONNX ConvTranspose-22.
    """
    rank = len(sizes)
    strides = per_axis(attributes, "strides", rank, 1)
    dilations = per_axis(attributes, "dilations", rank, 1)
    extra = per_axis(attributes, "output_padding", rank, 0)
    pads = per_axis(attributes, "pads", 2 * rank, 0)
    mode, wanted = auto_pad(attributes), attributes.get("output_shape")
    rows: list[tuple[Any, Any, Any]] = []
    for i in range(rank):
        full = (sizes[i] - 1) * strides[i] + extra[i] + (kernel[i] - 1) * dilations[i] + 1
        if wanted is None and not mode.startswith("SAME"):
            begin, end = (0, 0) if mode == "VALID" else pads[i::rank]
            rows.append((begin, end, full - begin - end))
            continue
        size = wanted[i - rank] if wanted is not None else sizes[i] * strides[i]
        total = full - size
        small = dimensions.floordiv(total, 2)
        begin = small if mode == "SAME_UPPER" else total - small
        rows.append((begin, total - begin, size))
    for begin, end, size in rows:
        if isinstance(size, int) and size < 1:
            raise InferenceError(f"cropping {begin} + {end} leaves size {size}")
    begin, end, output = (tuple(r[k] for r in rows) for k in range(3))
    return Window(tuple(kernel), strides, dilations, begin, end, output)


# -- reference ----------------------------------------------------------------------------
def convolve(x: Array, w: Array, window: Window, group: int) -> Array:
    """Grouped convolution without bias: (N, C, *sizes), (M, C/group, *kernel) -> (N, M, *out)."""
    batch, filters, rank = x.shape[0], w.shape[0], len(window.kernel)
    kernel = w.reshape(group, filters // group, -1)
    seen = patches(x, window, 0)
    positions = math.prod(window.output)
    result = np.empty((batch, group, filters // group, positions), np.result_type(x, w))
    step = max(1, PATCH_BYTES // max(1, math.prod(seen.shape[1:]) * seen.itemsize))
    axes = (0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
    for n in range(0, batch, step):
        columns = seen[n : n + step].transpose(axes)
        columns = columns.reshape(-1, group, kernel.shape[2], positions)
        np.matmul(kernel, columns, out=result[n : n + step])
    return result.reshape(batch, filters, *window.output)


def convolve_transposed(x: Array, w: Array, window: Window, group: int) -> Array:
    """The transposed convolution without bias: (N, C, *sizes), (C, M/group, *kernel)."""
    batch, channels, *sizes = x.shape
    filters = w.shape[1] * group
    kernel = w.reshape(group, channels // group, -1).swapaxes(1, 2)
    columns = np.matmul(kernel, x.reshape(batch, group, channels // group, -1))
    columns = columns.reshape(batch, filters, *window.kernel, *sizes)
    reach = [(n - 1) * s + e for n, s, e in zip(sizes, window.strides, window.extent, strict=True)]
    # Output padding may reach beyond what the kernel writes; a negative crop widens.
    before = [max(-b, 0) for b in window.begin]
    room = [
        p + max(r, max(b, 0) + o)
        for p, r, b, o in zip(before, reach, window.begin, window.output, strict=True)
    ]
    full = np.zeros((batch, filters, *room), columns.dtype)
    for tap in itertools.product(*map(range, window.kernel)):
        target = tuple(
            slice(p + k * d, p + k * d + (n - 1) * s + 1, s)
            for p, k, d, n, s in zip(
                before, tap, window.dilations, sizes, window.strides, strict=True
            )
        )
        full[(slice(None), slice(None), *target)] += columns[(slice(None), slice(None), *tap)]
    cut = tuple(
        slice(p + b, p + b + o) for p, b, o in zip(before, window.begin, window.output, strict=True)
    )
    return full[(slice(None), slice(None), *cut)]


def _apply(attributes: Attributes, x: Array, w: Array, *, transposed: bool) -> Array:
    shape = transposed_window if transposed else window_of
    window = shape(attributes, x.shape[2:], w.shape[2:])
    work = convolve_transposed if transposed else convolve
    return work(x, w, window, attributes["group"])


def _with_bias(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + bias.reshape(-1, *(1,) * (y.ndim - 2))


def _conv(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    y = _apply(attributes, inputs[0], inputs[1], transposed=False)
    return (_with_bias(y, operand(inputs, 2)),)


def _transpose(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    y = _apply(attributes, inputs[0], inputs[1], transposed=True)
    return (_with_bias(y, operand(inputs, 2)),)


# -- bounds and cost ----------------------------------------------------------------------
def _bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    unit: float,
    *,
    transposed: bool,
) -> tuple[Any, ...]:
    x, w, bias = inputs[0], inputs[1], operand(inputs, 2)
    terms = (w.shape[0] // attributes["group"] if transposed else w.shape[1]) * math.prod(
        w.shape[2:]
    )
    if bias is not None:
        terms += 1
    error = product_bound(
        lambda a, b: _apply(attributes, a, b, transposed=transposed),
        (x, w),
        (bounds[0], bounds[1]),
        terms=terms,
        unit=unit,
    )
    if bias is None:
        return (error,)
    e_bias = operand(bounds, 2)
    own = 4 * gamma(terms, unit) * (np.abs(bias) + e_bias) + (0.0 if is_exact(e_bias) else e_bias)
    return (_with_bias(error, np.broadcast_to(own, bias.shape)),)


def _conv_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    return _bound(attributes, inputs, bounds, unit, transposed=False)


def _transpose_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    return _bound(attributes, inputs, bounds, unit, transposed=True)


def _moved(inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> int:
    return sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)


def _conv_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    w = inputs[1]
    assert w is not None
    terms = int(dimensions.volume(w.shape[1:])) + (operand(inputs, 2) is not None) / 2
    size = int(dimensions.volume(outputs[0].shape))
    return Cost(int(2 * terms * size), _moved(inputs, outputs))


def _transpose_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    x, w = inputs[0], inputs[1]
    assert x is not None and w is not None
    products = int(dimensions.volume(x.shape)) * int(dimensions.volume(w.shape[1:]))
    bias = int(dimensions.volume(outputs[0].shape)) if operand(inputs, 2) is not None else 0
    return Cost(2 * products + bias, _moved(inputs, outputs))


_GEOMETRY = {
    "auto_pad": "NOTSET",
    "dilations": None,
    "group": 1,
    "kernel_shape": None,
    "pads": None,
    "strides": None,
}

CONVOLUTION: tuple[Operator, ...] = (
    Operator(
        name="Conv",
        infer=_conv_types,
        reference=_conv,
        bound=_conv_bound,
        layer_type="CONVOLUTION",
        family="convolution",
        attributes=MappingProxyType(_GEOMETRY),
        cost=_conv_cost,
    ),
    Operator(
        name="ConvTranspose",
        infer=_transpose_types,
        reference=_transpose,
        bound=_transpose_bound,
        layer_type="DECONVOLUTION",
        family="convolution",
        attributes=MappingProxyType({**_GEOMETRY, "output_padding": None, "output_shape": None}),
        cost=_transpose_cost,
    ),
)
