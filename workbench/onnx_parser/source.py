"""SourceNode: one node of the model as it was written, functions already inlined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnx import AttributeProto, GraphProto, SparseTensorProto, TensorProto

from workbench.onnx_parser.value_types import declared_type, why_not
from workbench.onnx_parser.weights import WeightReader


@dataclass(frozen=True)
class Foreign:
    """An attribute's value that is not imported: a list of graphs, or of types."""

    kind: str


@dataclass(frozen=True, eq=False)
class NestedGraph:
    """A graph inside a node, its names made unique. constants: initializers by name.

    captures: names of the graphs around it that it reads. outputs may be inputs or captures.
    proto: as the model writes it.
    """

    inputs: tuple[str, ...]
    nodes: tuple[SourceNode, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, TensorProto | SparseTensorProto]
    captures: tuple[str, ...]
    proto: GraphProto

    @property
    def read(self) -> frozenset[str]:
        """Every name that something inside reads."""
        return frozenset((*self.outputs, *(v for n in self.nodes for v in n.reads)))


@dataclass(frozen=True)
class SourceNode:
    """One node. An absent optional input or output is the empty name.

    operator: ``domain::name`` outside ai.onnx, as in the registry of operators. version: the opset
    of ``domain`` that it was written for. attributes: numbers, strings, tuples, arrays (tensors),
    a TensorType, NestedGraph, or Foreign. kinds: the AttributeProto type of each. index: the place
    among the graph's nodes, or that of the call around it. stack: names of the model-local
    functions around it, outermost first. origin: the model's node that it stands for: itself, or
    the operator whose standard body it is part of. broken: a reason is already recorded.
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

    @property
    def nested(self) -> tuple[NestedGraph, ...]:
        """The graphs inside."""
        return tuple(v for v in self.attributes.values() if isinstance(v, NestedGraph))

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs, and what the graphs inside read from around the node."""
        captured = (v for g in self.nested for v in g.captures)
        return tuple(dict.fromkeys((*(v for v in self.inputs if v), *captured)))


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
    if attribute.type == AttributeProto.TYPE_PROTO and not why_not(attribute.tp):
        return declared_type(attribute.tp)
    return Foreign(kind_name(attribute))


def kind_name(attribute: AttributeProto) -> str:
    """The name of the attribute's type, ``UNDEFINED`` where the writer left it out."""
    return AttributeProto.AttributeType.Name(attribute.type)
