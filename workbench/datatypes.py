"""DataType and the one table of number formats: storage, accumulator, range, rounding."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from workbench.errors import ConfigError, NetworkError


class DataType(enum.Enum):
    """Element types, spelled as TensorRT's Python API spells them; ONNX's others follow."""

    FLOAT = "FLOAT"
    HALF = "HALF"
    BF16 = "BF16"
    FP8 = "FP8"
    FP4 = "FP4"
    E8M0 = "E8M0"
    INT4 = "INT4"
    INT8 = "INT8"
    UINT8 = "UINT8"
    INT32 = "INT32"
    INT64 = "INT64"
    BOOL = "BOOL"
    # Types that ONNX has and TensorRT has not.
    DOUBLE = "DOUBLE"
    FP8E5M2 = "FP8E5M2"
    FP8E4M3FNUZ = "FP8E4M3FNUZ"
    FP8E5M2FNUZ = "FP8E5M2FNUZ"
    UINT4 = "UINT4"
    INT2 = "INT2"
    UINT2 = "UINT2"
    INT16 = "INT16"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    COMPLEX64 = "COMPLEX64"
    COMPLEX128 = "COMPLEX128"
    STRING = "STRING"

    @property
    def info(self) -> NumberFormat:
        """The table row of this type."""
        return FORMATS[self]

    @property
    def numpy(self) -> np.dtype[Any]:
        """NumPy dtype of one stored element (sub-byte types are stored one per byte)."""
        return FORMATS[self].numpy

    @property
    def itemsize(self) -> int:
        """Bytes of one element in an execution buffer."""
        return FORMATS[self].numpy.itemsize

    @property
    def is_float(self) -> bool:
        return FORMATS[self].kind == "float"

    @property
    def is_integer(self) -> bool:
        return FORMATS[self].kind == "integer"

    @classmethod
    def of(cls, value: Any) -> DataType:
        """The DataType of an array, NumPy dtype, or name (``float32``, ``FP16``, ``bf16``)."""
        if isinstance(value, DataType):
            return value
        if isinstance(value, str) and value.upper() in _ALIASES:
            return _ALIASES[value.upper()]
        try:
            dtype = np.dtype(getattr(value, "dtype", value))
        except TypeError:
            names = ", ".join(_ALIASES)
            raise ConfigError(f"no type is called {value!r}", remedy=f"known: {names}") from None
        if dtype.kind in "OUSTV" and dtype not in _BY_NUMPY:
            return cls.STRING
        try:
            return _BY_NUMPY[dtype]
        except KeyError:
            raise NetworkError(f"no DataType stores NumPy dtype {dtype}") from None

    def __repr__(self) -> str:
        return self.value

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class NumberFormat:
    """How one DataType stores numbers.

    bits: stored bits an element. eps: distance from 1.0 to the next number (0 for integers).
    low, high: finite range. accumulator: the type in which products of this type are summed.
    """

    numpy: np.dtype[Any]
    bits: int
    kind: str
    eps: float
    low: float
    high: float
    accumulator: str
    label: str

    @property
    def tiny(self) -> float:
        """Absolute error of storing a float near zero, where ``eps`` is no longer relative.

        The smallest subnormal; for types with float32's exponent or a wider one the smallest
        normal number, because kernels may flush their subnormals to zero. 0 for other kinds.
        """
        if self.kind != "float":
            return 0.0
        if self.numpy == ml_dtypes.float8_e8m0fnu:
            return 2.0**-127
        info = ml_dtypes.finfo(self.numpy)
        wide = info.minexp <= -126
        return float(info.smallest_normal if wide else info.smallest_subnormal)


def _float(dtype: Any, bits: int, label: str, accumulator: str = "FLOAT") -> NumberFormat:
    info = ml_dtypes.finfo(dtype)
    eps = float(info.eps)
    return NumberFormat(
        np.dtype(dtype), bits, "float", eps, float(info.min), float(info.max), accumulator, label
    )


def _integer(dtype: Any, bits: int, label: str, accumulator: str = "INT32") -> NumberFormat:
    info = ml_dtypes.iinfo(dtype)
    return NumberFormat(
        np.dtype(dtype), bits, "integer", 0.0, float(info.min), float(info.max), accumulator, label
    )


def _other(dtype: Any, bits: int, kind: str, label: str) -> NumberFormat:
    return NumberFormat(np.dtype(dtype), bits, kind, 0.0, 0.0, 1.0, "", label)


FORMATS: dict[DataType, NumberFormat] = {
    DataType.FLOAT: _float(np.float32, 32, "FP32"),
    DataType.HALF: _float(np.float16, 16, "FP16"),
    DataType.BF16: _float(ml_dtypes.bfloat16, 16, "BF16"),
    DataType.FP8: _float(ml_dtypes.float8_e4m3fn, 8, "FP8"),
    DataType.FP8E5M2: _float(ml_dtypes.float8_e5m2, 8, "FP8 E5M2"),
    DataType.FP8E4M3FNUZ: _float(ml_dtypes.float8_e4m3fnuz, 8, "FP8 E4M3FNUZ"),
    DataType.FP8E5M2FNUZ: _float(ml_dtypes.float8_e5m2fnuz, 8, "FP8 E5M2FNUZ"),
    DataType.FP4: _float(ml_dtypes.float4_e2m1fn, 4, "FP4"),
    DataType.E8M0: NumberFormat(
        np.dtype(ml_dtypes.float8_e8m0fnu), 8, "float", 1.0, 2.0**-127, 2.0**127, "FLOAT", "E8M0"
    ),
    DataType.DOUBLE: _float(np.float64, 64, "FP64", "DOUBLE"),
    DataType.INT2: _integer(ml_dtypes.int2, 2, "INT2"),
    DataType.UINT2: _integer(ml_dtypes.uint2, 2, "UINT2"),
    DataType.INT4: _integer(ml_dtypes.int4, 4, "INT4"),
    DataType.UINT4: _integer(ml_dtypes.uint4, 4, "UINT4"),
    DataType.INT8: _integer(np.int8, 8, "INT8"),
    DataType.UINT8: _integer(np.uint8, 8, "UINT8"),
    DataType.INT16: _integer(np.int16, 16, "INT16"),
    DataType.UINT16: _integer(np.uint16, 16, "UINT16"),
    DataType.INT32: _integer(np.int32, 32, "INT32"),
    DataType.UINT32: _integer(np.uint32, 32, "UINT32", "INT64"),
    DataType.INT64: _integer(np.int64, 64, "INT64", "INT64"),
    DataType.UINT64: _integer(np.uint64, 64, "UINT64", "INT64"),
    DataType.BOOL: _other(np.bool_, 8, "bool", "BOOL"),
    DataType.COMPLEX64: _other(np.complex64, 64, "complex", "COMPLEX64"),
    DataType.COMPLEX128: _other(np.complex128, 128, "complex", "COMPLEX128"),
    DataType.STRING: _other(np.object_, 64, "string", "STRING"),
}

_BY_NUMPY: dict[np.dtype[Any], DataType] = {f.numpy: t for t, f in FORMATS.items()}

_ALIASES: dict[str, DataType] = {
    **{t.value: t for t in DataType},
    **{f.label: t for t, f in FORMATS.items()},
    **{f.numpy.name.upper(): t for t, f in FORMATS.items() if t is not DataType.STRING},
    "FP32": DataType.FLOAT,
    "FP16": DataType.HALF,
    "BFLOAT16": DataType.BF16,
}

PRECISIONS: tuple[DataType, ...] = (
    DataType.FLOAT,
    DataType.BF16,
    DataType.HALF,
    DataType.FP8,
    DataType.INT8,
    DataType.INT4,
)
"""What a layer's precision can be requested as. INT4 is for weights: their products are FP32."""

CALIBRATED: tuple[DataType, ...] = (DataType.INT8, DataType.FP8)
"""Precisions that quantize activations, by ranges that calibration finds."""
