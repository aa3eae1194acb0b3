"""Declared types of values: tensors, sequences, optionals; and their names in schemas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import TypeProto

from workbench.body import OptionalType, SequenceType, TensorType, UnrankedType
from workbench.onnx_parser.element_types import FROM_ONNX, SCHEMA_NAMES, type_name


def why_not(type_: TypeProto) -> str:
    """Why a value of this type can't be imported; empty where it can."""
    kind = type_.WhichOneof("value")
    if kind == "sequence_type":
        return why_not(type_.sequence_type.elem_type)
    if kind == "optional_type":
        return why_not(type_.optional_type.elem_type)
    if kind != "tensor_type":
        return f"is a {(kind or 'value without type').removesuffix('_type')}, not a tensor"
    if type_.tensor_type.elem_type not in FROM_ONNX:
        return f"has {type_name(type_.tensor_type.elem_type)} elements, which are not imported"
    return ""


def declared_type(type_: TypeProto, shape: Sequence[Any] | None = None) -> TensorType:
    """The type of a value. shape: of a tensor, its sizes already read.

    A tensor inside a sequence or an optional keeps its shape only where it is all numbers: each
    entry may have sizes of its own.
    """
    match type_.WhichOneof("value"):
        case "sequence_type":
            return SequenceType(declared_type(type_.sequence_type.elem_type))
        case "optional_type":
            return OptionalType(declared_type(type_.optional_type.elem_type))
        case _:
            tensor = type_.tensor_type
            dtype = FROM_ONNX[tensor.elem_type]
            if shape is not None:
                return TensorType(dtype, tuple(shape))
            dims = tensor.shape.dim
            if tensor.HasField("shape") and all(d.HasField("dim_value") for d in dims):
                return TensorType(dtype, tuple(d.dim_value for d in dims))
            return UnrankedType(dtype)


def schema_type(type_: TensorType) -> str:
    """The type's name in an operator schema, such as ``seq(tensor(float))``."""
    if isinstance(type_, SequenceType):
        return f"seq({schema_type(type_.element)})"
    if isinstance(type_, OptionalType):
        return f"optional({schema_type(type_.element)})"
    return SCHEMA_NAMES[type_.dtype]
