"""Spectra: DFT, STFT and MelWeightMatrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Array, Attributes, Cost, Inference, Operator, TensorType
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators import open_shapes
from workbench.operators.products import gamma, operand
from workbench.operators.rules import absent, axis_of, filled, known, numbers_of, sizes_of
from workbench.operators.tracking import nudged


def _number(values: Sequence[Any], index: int) -> int | None:
    given = operand(values, index)
    return None if given is None else int(np.asarray(given).reshape(()))


def _complex(x: Array) -> Array:
    """The last axis, one real number or a pair, as complex numbers of its precision."""
    return x[..., 0] + 0j if x.shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]


def _pairs(x: Array, dtype: Any) -> Array:
    return np.stack((x.real, x.imag), axis=-1).astype(dtype)


# -- DFT ----------------------------------------------------------------------------------
def _dft_types(inference: Inference) -> tuple[TensorType, ...]:
    x, rank = inference.input(0), len(inference.input(0).shape)
    if not x.dtype.is_float or rank < 2 or x.shape[-1] not in (1, 2):
        raise InferenceError(f"input is {x}", remedy="give floats with a last axis of 1 or 2")
    axis = _dft_axis(inference.value(2), rank) if not absent(inference, 2) else rank - 2
    if not absent(inference, 2):
        known(inference, 2, "axis")
    a, size = inference.attributes, x.shape[axis]
    length = size
    if not absent(inference, 1):
        (length,) = sizes_of(known(inference, 1, "dft_length"))
    elif a["onesided"] and a["inverse"]:
        length = 2 * (size - 1)
    shape = list(x.shape)
    shape[axis], shape[-1] = length, 2
    if a["onesided"] and a["inverse"]:
        shape[-1] = 1
    elif a["onesided"]:
        if x.shape[-1] != 1:
            raise InferenceError("onesided of a complex input", remedy="give a real signal")
        shape[axis] = dimensions.floordiv(length, 2) + 1
    return (TensorType(x.dtype, tuple(shape)),)


def _dft_axis(value: Any, rank: int) -> int:
    (axis,) = (-2,) if value is None else numbers_of(np.asarray(value), "axis")
    if axis_of(axis, rank) == rank - 1:
        raise InferenceError("axis is the last: it holds real and imaginary part")
    return axis_of(axis, rank)


def _dft(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    axis = _dft_axis(operand(inputs, 2), x.ndim)
    length = _number(inputs, 1)
    if attributes["onesided"] and attributes["inverse"]:
        whole = np.fft.irfft(_complex(x), length, axis)
        return (whole[..., None].astype(x.dtype),)
    if attributes["onesided"]:
        return (_pairs(np.fft.rfft(x[..., 0], length, axis), x.dtype),)
    found = (np.fft.ifft if attributes["inverse"] else np.fft.fft)(_complex(x), length, axis)
    return (_pairs(found, x.dtype),)


def _dft_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    """A sum of N products with twiddle factors, each of which is rounded too."""
    x = inputs[0]
    axis = _dft_axis(operand(inputs, 2), x.ndim)
    length = _number(inputs, 1) or outputs[0].shape[axis]
    taken = np.take(x, np.arange(min(x.shape[axis], length)), axis)
    error = np.take(filled(bounds[0], x), np.arange(taken.shape[axis]), axis)
    own = 4 * gamma(2 * length + 8, unit)
    total = (own * (np.abs(taken) + error) + error).sum(axis=(axis, -1), keepdims=True)
    if attributes["inverse"]:
        # The other half of a one-sided spectrum is the mirror of this one.
        total = total * (2 if attributes["onesided"] else 1) / length
    return (np.broadcast_to(total, outputs[0].shape),)


def _transform_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    """5·n·log2(n) operations of a complex transform. Source: Cooley and Tukey."""
    size = int(dimensions.volume(outputs[0].shape))
    moved = sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)
    return Cost(int(5 * size * math.log2(max(size, 2))), moved)


# -- STFT ---------------------------------------------------------------------------------
def _frame(inference: Inference) -> tuple[int, Any]:
    """Step and length of the frames."""
    (step,) = numbers_of(known(inference, 1, "frame_step"), "frame_step")
    if not absent(inference, 3):
        (length,) = numbers_of(known(inference, 3, "frame_length"), "frame_length")
        return step, length
    if absent(inference, 2):
        raise InferenceError("needs a window or frame_length", remedy="give one of them")
    return step, inference.input(2).shape[0]


def _stft_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    if not x.dtype.is_float or len(x.shape) not in (2, 3):
        raise InferenceError(f"signal is {x}", remedy="give [batch, length, 1 or 2]")
    step, length = _frame(inference)
    if not absent(inference, 2) and inference.input(2).shape != (length,):
        raise InferenceError(f"window is {inference.input(2).shape}, frames have {length}")
    frames = dimensions.floordiv(x.shape[1] - length, step) + 1
    bins = length // 2 + 1 if inference.attributes["onesided"] else length
    return (TensorType(x.dtype, (x.shape[0], frames, bins, 2)),)


def _frames(inputs: Sequence[Any], x: Array) -> Array:
    """The windowed frames (batch, frames, length) of complex or real numbers."""
    window, length = operand(inputs, 2), _number(inputs, 3)
    length = len(window) if length is None else length
    step = _number(inputs, 1) or 1
    views = np.lib.stride_tricks.sliding_window_view(x, length, axis=1)[:, ::step]
    return views if window is None else views * window


def _stft(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    x = x if x.ndim == 3 else x[..., None]
    if attributes["onesided"] and x.shape[2] == 1:
        return (_pairs(np.fft.rfft(_frames(inputs, x[..., 0]), axis=2), x.dtype),)
    found = np.fft.fft(_frames(inputs, _complex(x)), axis=2)
    if attributes["onesided"]:
        found = found[:, :, : found.shape[2] // 2 + 1]
    return (_pairs(found, x.dtype),)


def _stft_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    x, window = inputs[0], operand(inputs, 2)
    error = filled(bounds[0], x)
    size = np.abs(x) + error
    if x.ndim == 3:
        size, error = size.sum(axis=2), error.sum(axis=2)
    plain = [x, inputs[1], None, operand(inputs, 3)]
    if plain[3] is None and window is not None:
        plain[3] = np.asarray(len(window))
    frames, spread = _frames(plain, size), _frames(plain, error)
    if window is not None:
        e_window = filled(bounds[2], window)
        spread = spread * (np.abs(window) + e_window) + frames * e_window
        frames = frames * (np.abs(window) + e_window)
    own = 4 * gamma(2 * frames.shape[2] + 10, unit)
    total = (own * frames + spread).sum(axis=2)[:, :, None, None]
    return (np.broadcast_to(total, outputs[0].shape),)


# -- MelWeightMatrix ----------------------------------------------------------------------
def _mel_types(inference: Inference) -> tuple[TensorType, ...]:
    (bins,), (length,) = (
        numbers_of(known(inference, i, n), n) for i, n in ((0, "num_mel_bins"), (1, "dft_length"))
    )
    kind: DataType = inference.attributes["output_datatype"]
    return (TensorType(kind, (length // 2 + 1, bins)),)


def _mel_matrix(inputs: Sequence[Any], low: Array, high: Array) -> Array:
    """Triangles between edges that are equidistant in mel. Source: ONNX MelWeightMatrix-17."""
    bins, length, rate = (_number(inputs, i) or 0 for i in range(3))
    edges_mel = [2595 * np.log10(1 + float(f) / 700) for f in (low, high)]
    step = (edges_mel[1] - edges_mel[0]) / (bins + 2)
    hertz = 700 * (10 ** ((np.arange(bins + 2) * step + edges_mel[0]) / 2595) - 1)
    edges = np.floor((length + 1) * hertz / rate).astype(np.int64)
    rows = np.arange(length // 2 + 1)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (rows - left) / np.maximum(centre - left, 1)
    falling = (right - rows) / np.maximum(right - centre, 1)
    rising = np.where(centre == left, rows == centre, rising)
    inside = (rows >= left) & (rows <= centre)
    return np.where((rows >= centre) & (rows < right), falling, np.where(inside, rising, 0.0))


def _mel(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    kind: DataType = attributes["output_datatype"]
    low, high = np.asarray(inputs[3]).reshape(()), np.asarray(inputs[4]).reshape(())
    return (_mel_matrix(inputs, low, high).astype(kind.numpy),)


def _mel_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    """An edge rounded down from its frequency may fall one bin lower, or higher."""
    edges = [np.asarray(inputs[i], np.float64).reshape(()) for i in (3, 4)]
    deltas = [
        np.max(filled(bounds[i], inputs[i])) + 16 * unit * (abs(e) + 700)
        for i, e in zip((3, 4), edges, strict=True)
    ]
    change = nudged(lambda low, high: _mel_matrix(inputs, low, high), edges, deltas)
    return (change + 8 * unit * np.abs(outputs[0]),)


SPECTRAL: tuple[Operator, ...] = (
    Operator(
        name="DFT",
        infer=_dft_types,
        reference=_dft,
        bound=_dft_bound,
        layer_type="DFT",
        family="spectral",
        structural=frozenset({1, 2}),
        open=open_shapes.same_rank,
        cost=_transform_cost,
        attributes=MappingProxyType({"inverse": 0, "onesided": 0}),
    ),
    Operator(
        name="STFT",
        infer=_stft_types,
        reference=_stft,
        bound=_stft_bound,
        layer_type="STFT",
        family="spectral",
        structural=frozenset({1, 3}),
        open=open_shapes.frames,
        cost=_transform_cost,
        attributes=MappingProxyType({"onesided": 1}),
    ),
    Operator(
        name="MelWeightMatrix",
        infer=_mel_types,
        reference=_mel,
        bound=_mel_bound,
        layer_type="FILL",
        family="spectral",
        structural=frozenset({0, 1, 2, 3, 4}),
        open=open_shapes.bands,
        attributes=MappingProxyType({"output_datatype": DataType.FLOAT}),
    ),
)
