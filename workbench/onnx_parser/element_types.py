"""ONNX's element types: TensorProto numbers and schema names against DataType."""

from __future__ import annotations

from onnx import TensorProto

from workbench.datatypes import DataType

FROM_ONNX: dict[int, DataType] = {
    TensorProto.FLOAT: DataType.FLOAT,
    TensorProto.UINT8: DataType.UINT8,
    TensorProto.INT8: DataType.INT8,
    TensorProto.UINT16: DataType.UINT16,
    TensorProto.INT16: DataType.INT16,
    TensorProto.INT32: DataType.INT32,
    TensorProto.INT64: DataType.INT64,
    TensorProto.STRING: DataType.STRING,
    TensorProto.BOOL: DataType.BOOL,
    TensorProto.FLOAT16: DataType.HALF,
    TensorProto.DOUBLE: DataType.DOUBLE,
    TensorProto.UINT32: DataType.UINT32,
    TensorProto.UINT64: DataType.UINT64,
    TensorProto.COMPLEX64: DataType.COMPLEX64,
    TensorProto.COMPLEX128: DataType.COMPLEX128,
    TensorProto.BFLOAT16: DataType.BF16,
    TensorProto.FLOAT8E4M3FN: DataType.FP8,
    TensorProto.FLOAT8E4M3FNUZ: DataType.FP8E4M3FNUZ,
    TensorProto.FLOAT8E5M2: DataType.FP8E5M2,
    TensorProto.FLOAT8E5M2FNUZ: DataType.FP8E5M2FNUZ,
    TensorProto.UINT4: DataType.UINT4,
    TensorProto.INT4: DataType.INT4,
    TensorProto.FLOAT4E2M1: DataType.FP4,
    TensorProto.FLOAT8E8M0: DataType.E8M0,
    TensorProto.UINT2: DataType.UINT2,
    TensorProto.INT2: DataType.INT2,
}
"""TensorProto.DataType -> DataType."""

TO_ONNX: dict[DataType, int] = {kind: number for number, kind in FROM_ONNX.items()}

SCHEMA_NAMES: dict[DataType, str] = {
    kind: f"tensor({TensorProto.DataType.Name(number).lower()})"
    for number, kind in FROM_ONNX.items()
}
"""DataType -> its name in an operator schema's type constraints, such as ``tensor(float16)``."""

DATA_TYPE_ATTRIBUTES: frozenset[tuple[str, str]] = frozenset(
    {
        ("BitCast", "to"),
        ("Cast", "to"),
        ("Bernoulli", "dtype"),
        ("BlackmanWindow", "output_datatype"),
        ("DequantizeLinear", "output_dtype"),
        ("EyeLike", "dtype"),
        ("HammingWindow", "output_datatype"),
        ("HannWindow", "output_datatype"),
        ("MelWeightMatrix", "output_datatype"),
        ("Multinomial", "dtype"),
        ("QuantizeLinear", "output_dtype"),
        ("QuantizeLinear", "precision"),
        ("RandomNormal", "dtype"),
        ("RandomNormalLike", "dtype"),
        ("RandomUniform", "dtype"),
        ("RandomUniformLike", "dtype"),
        ("SequenceEmpty", "dtype"),
    }
)
"""(operator, attribute) whose integer is a TensorProto.DataType."""


def type_name(number: int) -> str:
    """The number's name for people, whether or not it is known."""
    if number in FROM_ONNX:
        return FROM_ONNX[number].value
    return f"element type {number}"
