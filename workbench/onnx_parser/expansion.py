"""Newest operators without a row of their own, written as operators that have one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from onnx import FunctionProto, NodeProto, TypeProto, defs, helper, numpy_helper

from workbench.body import Array, TensorType
from workbench.datatypes import DataType
from workbench.dimensions import SymbolicDim
from workbench.errors import NetworkError
from workbench.onnx_parser.element_types import TO_ONNX
from workbench.onnx_parser.schemas import OPSET, schema
from workbench.onnx_parser.site import Rule, Site, Step


def _cast_like(site: Site) -> tuple[Step, ...]:
    """The type is known while parsing."""
    kind = site.type(1).dtype
    return (site.step(operator="Cast", inputs=(site.input(0),), to=kind),)


LOWERED: Mapping[str, Rule] = {"CastLike": _cast_like}
"""Operator -> steps, where the standard's own body would be worse or there is none."""

STANDARD_BODIES: frozenset[str] = frozenset(
    {
        "Celu",
        "Mish",
    }
)
"""Operators that the standard itself defines by a function body, which is inlined."""


def node_proto(
    operator: str, inputs: Iterable[str], outputs: Iterable[str], attributes: Mapping[str, Any]
) -> NodeProto:
    """A node of the newest opset, with the standard's defaults written out."""
    row = schema(operator, OPSET)
    assert row is not None
    defaults = {k: a.default for k, a in row.attributes.items() if a.default is not None}
    proto = NodeProto(op_type=operator, input=inputs, output=outputs)
    for key, value in {**defaults, **attributes}.items():
        proto.attribute.append(helper.make_attribute(key, _plain(value)))
    return proto


def _plain(value: Any) -> Any:
    """A value as ONNX's helper takes it."""
    if isinstance(value, DataType):
        return TO_ONNX[value]
    if isinstance(value, np.ndarray):
        return numpy_helper.from_array(cast("Array", value))
    return value


def _type_proto(kind: TensorType | None) -> TypeProto:
    if kind is None:
        return TypeProto()
    shape = [str(d) if isinstance(d, SymbolicDim) else d for d in kind.shape]
    return helper.make_tensor_type_proto(TO_ONNX[kind.dtype], shape)


def standard_body(proto: NodeProto, types: Sequence[TensorType | None]) -> FunctionProto:
    """The body of an operator for these input types. Raises NetworkError where there is none."""
    # onnx's stubs leave these members out.
    row: Any = defs.get_schema(proto.op_type, OPSET, "")
    if row.has_function:
        function = FunctionProto()
        function.CopyFrom(row.function_body)
        return function
    kinds = [_type_proto(t).SerializeToString() for t in types]
    data: bytes = row.get_context_dependent_function(proto.SerializeToString(), kinds)
    if not data:
        raise NetworkError(f"the standard gives no body of {proto.op_type} for these inputs")
    return FunctionProto.FromString(data)
