"""What a graph declares of its inputs and outputs, checked."""

from __future__ import annotations

from onnx import ValueInfoProto

from workbench.body import HostType
from workbench.network import Tensor
from workbench.onnx_parser.element_types import FROM_ONNX, type_name
from workbench.onnx_parser.limits import wrong_shape
from workbench.onnx_parser.problems import ErrorCode, ParserErrorRecord, record
from workbench.onnx_parser.value_types import why_not


def input_problems(value: ValueInfoProto) -> list[ParserErrorRecord]:
    """What is wrong with the type of a graph input."""
    found: list[ParserErrorRecord] = []
    if wrong := why_not(value.type):
        found.append(
            record(
                ErrorCode.UNSUPPORTED_GRAPH,
                f"input '{value.name}' {wrong}",
                rule="input_type",
                remedy="export the model with tensors, or sequences or optionals of them",
            )
        )
    sizes = [
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param
        for d in value.type.tensor_type.shape.dim
    ]
    if wrong := wrong_shape(sizes):
        found.append(
            record(
                ErrorCode.INVALID_GRAPH,
                f"input '{value.name}' {wrong}",
                rule="tensor_shape",
                remedy="re-export the model",
            )
        )
    return found


def output_problems(value: ValueInfoProto, tensor: Tensor) -> list[ParserErrorRecord]:
    """Where the declared type of a graph output contradicts what its nodes give."""
    declared = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or isinstance(tensor.type, HostType):
        return []
    wrong = ""
    dtype = FROM_ONNX.get(declared.elem_type)
    if declared.elem_type and dtype is not tensor.dtype:
        wrong = f"type {type_name(declared.elem_type)}, its nodes give {tensor.dtype.value}"
    elif declared.HasField("shape"):
        dims = declared.shape.dim
        shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims)
        given = "[" + ", ".join(map(str, tensor.shape)) + "]"
        if len(shape) != len(tensor.shape) or any(
            isinstance(a, int) and a >= 0 and isinstance(b, int) and a != b
            for a, b in zip(shape, tensor.shape, strict=True)
        ):
            wrong = f"shape [{', '.join(map(str, shape))}], its nodes give {given}"
    if not wrong:
        return []
    problem = record(
        ErrorCode.INVALID_GRAPH,
        f"output '{value.name}' is declared with {wrong}",
        rule="declared_output",
        remedy="correct the declaration, or the nodes; re-export the model",
    )
    return [problem]
