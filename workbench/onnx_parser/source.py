"""SourceNode: one node of the model as it was written, functions already inlined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnx import AttributeProto

from workbench.onnx_parser.weights import WeightReader


@dataclass(frozen=True)
class Foreign:
    """An attribute's value that is not imported: a graph or a type."""

    kind: str


@dataclass(frozen=True)
class SourceNode:
    """One node. An absent optional input or output is the empty name.

    version: the opset of ``domain`` that it was written for. attributes: numbers, strings,
    tuples, arrays (tensors), or Foreign. kinds: the AttributeProto type of each. index: the place
    among the graph's nodes, or that of the call around it. stack: names of the model-local
    functions around it, outermost first. origin: the model's node that it stands for: itself,
    or the operator whose standard body it is part of. broken: a reason is already recorded.
    """

    name: str
    operator: str
    domain: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    kinds: Mapping[str, str]
    index: int
    stack: tuple[str, ...] = ()
    origin: str = ""
    broken: bool = False


_PLAIN: dict[int, Callable[[AttributeProto], Any]] = {
    AttributeProto.FLOAT: lambda a: a.f,
    AttributeProto.INT: lambda a: a.i,
    AttributeProto.STRING: lambda a: a.s.decode(errors="replace"),
    AttributeProto.FLOATS: lambda a: tuple(a.floats),
    AttributeProto.INTS: lambda a: tuple(a.ints),
    AttributeProto.STRINGS: lambda a: tuple(s.decode(errors="replace") for s in a.strings),
}


def attribute_value(attribute: AttributeProto, weights: WeightReader) -> Any:
    """The value for Python. Raises ParserError on a damaged tensor."""
    if attribute.type in _PLAIN:
        return _PLAIN[attribute.type](attribute)
    if attribute.type == AttributeProto.TENSOR:
        return weights.array(attribute.t)
    if attribute.type == AttributeProto.SPARSE_TENSOR:
        return weights.dense(attribute.sparse_tensor)
    return Foreign(kind_name(attribute))


def kind_name(attribute: AttributeProto) -> str:
    """The name of the attribute's type, ``UNDEFINED`` where the writer left it out."""
    return AttributeProto.AttributeType.Name(attribute.type)
