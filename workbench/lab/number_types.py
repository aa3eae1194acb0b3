"""Number types: what each can store, where it runs, and what it does to a tensor of yours.

Rounding is that of the formats' definitions: float types by ml_dtypes (to nearest, ties to even),
TF32 by hand, integers as ONNX QuantizeLinear does (x / scale in FP32, ties to even, saturated).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.devices import Device
from workbench.errors import ConfigError

TF32 = "TF32"
"""Not a storage type: FP32 whose products are taken with 10 bits behind the point."""
TF32_BITS = 10
INT4_BLOCK, FP4_BLOCK = 32, 16
"""Elements of the last axis that share a scale; 16 is NVFP4's."""


@dataclass(frozen=True)
class NumberType:
    """One row of the table of types.

    bits: of storage, an element. low, high: finite range. smallest_normal, smallest_step: smallest
    positive normal number, and smallest positive number at all (the integer 1 for integers). eps:
    from 1 to the next number; largest_relative_error: of rounding a number in the normal range, NaN
    for integers, whose error is half a step everywhere. runs: ``native`` on the device,
    ``emulated``, or what it is there for. scale: what shares one scale, where the type needs one.
    """

    label: str
    dtype: DataType
    bits: int
    low: float
    high: float
    smallest_normal: float
    smallest_step: float
    eps: float
    largest_relative_error: float
    runs: str
    scale: str


@dataclass(frozen=True)
class RoundTrip:
    """What became of a tensor in a type and back.

    max_abs: largest |x - y|. relative_l2: ‖x - y‖ / ‖x‖. sqnr_db: that in decibels. lost: share of
    the values that became infinite or NaN, or zero though they were not. bits: stored bits a value,
    scales included.
    """

    label: str
    values: Array
    max_abs: float
    relative_l2: float
    sqnr_db: float
    lost: float
    bits: float


USUAL: tuple[DataType | str, ...] = (
    DataType.FLOAT,
    TF32,
    DataType.HALF,
    DataType.BF16,
    DataType.FP8,
    DataType.FP8E5M2,
    DataType.INT8,
    DataType.UINT8,
    DataType.INT4,
    DataType.FP4,
    DataType.INT32,
    DataType.INT64,
    DataType.BOOL,
)
"""TensorRT's types, in the order of the table."""

_ROLES = {
    DataType.UINT8: "input and output only",
    DataType.FP4: "documented; rounding emulated",
    DataType.INT4: "weights only, emulated",
    DataType.BOOL: "conditions",
}
_COUNTS = (DataType.INT32, DataType.INT64, DataType.UINT32, DataType.UINT64)
_SCALES = {
    DataType.FP8: "tensor or channel",
    DataType.FP8E5M2: "tensor or channel",
    DataType.FP8E4M3FNUZ: "tensor or channel",
    DataType.FP8E5M2FNUZ: "tensor or channel",
    DataType.INT8: "tensor or channel",
    DataType.INT16: "tensor or channel",
    DataType.INT2: "tensor or channel",
    DataType.UINT8: "tensor or channel, with a zero point",
    DataType.UINT16: "tensor or channel, with a zero point",
    DataType.UINT4: "tensor or channel, with a zero point",
    DataType.UINT2: "tensor or channel, with a zero point",
    DataType.INT4: f"block of {INT4_BLOCK}",
    DataType.FP4: f"block of {FP4_BLOCK}, scales in FP8 E4M3",
}
_NUMERIC = ("float", "integer")


def holds_real_numbers(dtype: DataType) -> bool:
    """Whether it stores real numbers, rather than counts, scales or conditions."""
    return dtype.info.kind in _NUMERIC and dtype not in (*_COUNTS, DataType.E8M0)


def number_types(device: Device | None = None, *, every: bool = False) -> tuple[NumberType, ...]:
    """TensorRT's types, or with ``every`` all that ONNX has for numbers too.

    device: where ``runs`` is asked; without one it says ``not asked``.
    """
    kinds: list[DataType | str] = list(USUAL)
    if every:
        kinds += [t for t in DataType if t not in kinds and t.info.kind in _NUMERIC]
    return tuple(_row(kind, device) for kind in kinds)


def _row(kind: DataType | str, device: Device | None) -> NumberType:
    dtype = _storage(kind)
    info = dtype.info
    runs = _runs(kind, device)
    if info.kind != "float":
        low, high = info.low, info.high
        return NumberType(
            info.label,
            dtype,
            info.bits,
            low,
            high,
            1.0,
            1.0,
            1.0,
            math.nan,
            runs,
            _scale_text(dtype),
        )
    if dtype is DataType.E8M0:
        least = 2.0**-127
        return NumberType(
            *("E8M0", dtype, 8, least, info.high, least, least, 1.0, 1 / 3, runs, "is a scale")
        )
    found = ml_dtypes.finfo(info.numpy)
    eps, step = float(found.eps), float(found.smallest_subnormal)
    if kind == TF32:
        eps = 2.0**-TF32_BITS
        step = float(found.smallest_normal) * eps
    label = _label(kind)
    return NumberType(
        *(label, dtype, info.bits, info.low, info.high, float(found.smallest_normal), step),
        *(eps, eps / (2 + eps), runs, _scale_text(dtype)),
    )


def _storage(kind: DataType | str) -> DataType:
    return DataType.FLOAT if kind == TF32 else DataType.of(kind)


def _label(kind: DataType | str) -> str:
    if kind == TF32:
        return TF32
    dtype = DataType.of(kind)
    return "FP8 E4M3" if dtype is DataType.FP8 else dtype.info.label


def _scale_text(dtype: DataType) -> str:
    return _SCALES.get(dtype, "none")


def _runs(kind: DataType | str, device: Device | None) -> str:
    dtype = _storage(kind)
    if kind != TF32 and dtype in _ROLES:
        return _ROLES[dtype]
    if dtype in _COUNTS:
        return "indices, sizes, sums"
    if device is None:
        return "not asked"
    if kind == TF32:
        capable = [f for f in device.fingerprint.features if f.startswith("sm_")]
        native = device.kind == "gpu" and bool(capable) and int(capable[0][3:]) >= 80
    else:
        native = device.native(dtype)
    return "native" if native else "emulated"


# -- rounding -------------------------------------------------------------------------------
def to_tf32(values: Array) -> Array:
    """FP32 values rounded to 10 bits behind the point, ties to even; NaN stays NaN.

    Source: NVIDIA A100 whitepaper (2020): 8 bits of exponent, 10 of mantissa. A number that rounds
    beyond the largest becomes infinite.
    """
    x = np.ascontiguousarray(values, np.float32)
    bits = x.view(np.uint32)
    drop = np.uint32(23 - TF32_BITS)
    odd = (bits >> drop) & np.uint32(1)
    half = np.uint32((1 << (int(drop) - 1)) - 1)
    kept = (bits + half + odd) & ~np.uint32((1 << int(drop)) - 1)
    return np.where(np.isnan(x), x, kept.view(np.float32))


def round_trip(values: Any, kind: DataType | str, *, axis: int | None = None) -> RoundTrip:
    """A tensor stored in a type and read back as FP32.

    kind: a DataType, its name, or ``"TF32"``. axis: one scale a channel of this axis where the type
    needs a scale; else one a tensor; INT4 and FP4 have one a block of the last axis. The largest
    magnitude of what shares a scale is stored as the type's largest number. Raises ConfigError for
    a type that holds no real numbers, or values that are not finite.
    """
    x = np.asarray(values, np.float32)
    if not x.size or not np.all(np.isfinite(x)):
        what = "it holds NaN or infinity" if x.size else f"it is empty {x.shape}"
        raise ConfigError(what, place="tensor of the table of types")
    known = isinstance(kind, str) and kind.upper() == TF32
    dtype = DataType.FLOAT if known else DataType.of(kind)
    if not holds_real_numbers(dtype):
        raise ConfigError(f"{dtype.info.label} stores no real numbers", place="round_trip")
    if known:
        return _judged(TF32, x, to_tf32(x), 32.0)
    back, bits = _stored(x, dtype, axis)
    return _judged(_label(dtype), x, back, bits)


def _stored(x: Array, dtype: DataType, axis: int | None) -> tuple[Array, float]:
    """(the values that come back, stored bits a value)."""
    info = dtype.info
    if dtype in (DataType.INT4, DataType.FP4):
        return _blocked(x, dtype)
    if dtype.is_float and dtype not in _SCALES:
        with np.errstate(over="ignore"):
            return x.astype(info.numpy).astype(np.float32), float(info.bits)
    if dtype.is_integer and info.low == 0:
        return _affine(x, dtype, axis)
    scale = _scales(np.abs(x), axis) / np.float32(info.high)
    return _scaled(x, scale, dtype), info.bits + 32.0 * scale.size / x.size


def _scales(magnitudes: Array, axis: int | None) -> Array:
    """Largest magnitude a tensor or a channel, shaped to divide it; 1 where all is zero."""
    others = None if axis is None else tuple(a for a in range(magnitudes.ndim) if a != axis)
    largest = magnitudes.max(axis=others, keepdims=True).astype(np.float32)
    return np.where(largest > 0, largest, np.float32(1))


def _scaled(x: Array, scale: Array, dtype: DataType) -> Array:
    """x / scale rounded to the type, and times scale again."""
    info = dtype.info
    # A scale that is subnormal may be rounded to zero.
    safe = np.maximum(scale, np.float32(np.finfo(np.float32).tiny)).astype(np.float32)
    ratio = x / safe
    if dtype.is_integer:
        # Symmetric: -128 (or -8) is left out, as TensorRT does.
        stored = np.clip(np.rint(ratio), -info.high, info.high)
    else:
        stored = np.clip(ratio, info.low, info.high).astype(info.numpy).astype(np.float32)
    return (stored * safe).astype(np.float32)


def _affine(x: Array, dtype: DataType, axis: int | None) -> tuple[Array, float]:
    """Unsigned: the range from the smallest to the largest value, zero included."""
    others = None if axis is None else tuple(a for a in range(x.ndim) if a != axis)
    low = np.minimum(x.min(axis=others, keepdims=True), 0)
    high = np.maximum(x.max(axis=others, keepdims=True), 0)
    scale = np.where(high > low, (high - low) / np.float32(dtype.info.high), 1).astype(np.float32)
    zero = np.clip(np.rint(-low / scale), 0, dtype.info.high)
    stored = np.clip(np.rint(x / scale) + zero, 0, dtype.info.high)
    bits = dtype.info.bits + (32.0 + dtype.info.bits) * scale.size / x.size
    return ((stored - zero) * scale).astype(np.float32), bits


def _blocked(x: Array, dtype: DataType) -> tuple[Array, float]:
    """One scale a block of the last axis; FP4's scales are FP8 E4M3 over one FP32 a tensor."""
    block = INT4_BLOCK if dtype is DataType.INT4 else FP4_BLOCK
    rows = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    short = -rows.shape[1] % block
    padded = np.pad(rows, ((0, 0), (0, short))).reshape(rows.shape[0], -1, block)
    scale = _block_scales(np.abs(padded), dtype)
    back = _scaled(padded, scale, dtype).reshape(rows.shape[0], -1)[:, : rows.shape[1]]
    per_scale, whole = (32.0, 0.0) if dtype is DataType.INT4 else (8.0, 32.0)
    return back.reshape(x.shape), dtype.info.bits + (per_scale * scale.size + whole) / x.size


def _block_scales(magnitudes: Array, dtype: DataType) -> Array:
    largest = magnitudes.max(axis=-1, keepdims=True)
    scale = largest / np.float32(dtype.info.high)
    if dtype is DataType.FP4:
        fp8 = DataType.FP8.info
        whole = np.float32(max(float(scale.max()) / fp8.high, np.finfo(np.float32).tiny))
        scale = (scale / whole).astype(fp8.numpy).astype(np.float32) * whole
    return np.where(scale > 0, scale, np.float32(1)).astype(np.float32)


def _judged(label: str, x: Array, back: Array, bits: float) -> RoundTrip:
    wide, other = x.astype(np.float64), back.astype(np.float64)
    lost = ~np.isfinite(other) | ((other == 0) & (wide != 0))
    if not np.all(np.isfinite(other)):
        return RoundTrip(label, back, math.inf, math.inf, -math.inf, float(lost.mean()), bits)
    error = wide - other
    norm, off = float(np.linalg.norm(wide)), float(np.linalg.norm(error))
    relative = off / norm if norm else 0.0
    sqnr = -20.0 * math.log10(relative) if relative else math.inf
    return RoundTrip(
        label, back, float(np.abs(error).max()), relative, sqnr, float(lost.mean()), bits
    )


# -- two per byte ---------------------------------------------------------------------------
def pack_int4(values: Any) -> Array:
    """Four-bit integers two per byte, the first in the low half, as ONNX stores INT4; uint8 [n/2].

    An odd last one is followed by zero. Raises ConfigError for a value beyond -8..7.
    """
    flat = np.asarray(values).astype(np.int64).reshape(-1)
    if flat.size and (flat.min() < -8 or flat.max() > 7):
        raise ConfigError(f"{flat.min()}..{flat.max()} is beyond -8..7", place="pack_int4")
    halves = np.append(flat, np.zeros(flat.size % 2, np.int64)).astype(np.uint8) & 0x0F
    return (halves[0::2] | (halves[1::2] << 4)).astype(np.uint8)


def unpack_int4(packed: Array, count: int) -> Array:
    """What ``pack_int4`` packed, int8."""
    halves = np.stack([packed & 0x0F, packed >> 4], axis=1).reshape(-1)[:count]
    return ((halves.astype(np.int8) ^ 8) - 8).astype(np.int8)
