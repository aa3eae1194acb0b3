"""Types of values as ONNX writes them."""

from __future__ import annotations

from onnx import TypeProto, ValueInfoProto, helper

from workbench.body import HostType, OptionalType, SequenceType, TensorType
from workbench.dimensions import SymbolicDim
from workbench.onnx_parser.element_types import TO_ONNX


def type_proto(type_: TensorType) -> TypeProto:
    """The type; a symbolic size is a dim_param of its own text, such as ``2*batch + 1``."""
    if isinstance(type_, SequenceType):
        return helper.make_sequence_type_proto(type_proto(type_.element))
    if isinstance(type_, OptionalType):
        return helper.make_optional_type_proto(type_proto(type_.element))
    number = TO_ONNX[type_.dtype]
    if isinstance(type_, HostType):
        return helper.make_tensor_type_proto(number, None)
    shape = [str(d) if isinstance(d, SymbolicDim) else int(d) for d in type_.shape]
    return helper.make_tensor_type_proto(number, shape)


def value_info(name: str, type_: TensorType) -> ValueInfoProto:
    """A value's name with its type."""
    return helper.make_value_info(name, type_proto(type_))
