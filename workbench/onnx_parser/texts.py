"""Texts of a model: protobuf hands out bytes where a name is not UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto


def first_that_is_no_text(model: ModelProto) -> bytes | None:
    """The first name, operator or other text of the model that is not UTF-8."""
    return next((t for t in _texts(model) if isinstance(t, bytes)), None)


def _texts(model: ModelProto) -> Iterator[object]:
    for opset in model.opset_import:
        yield opset.domain
    yield from _graph(model.graph)
    for function in model.functions:
        yield from (function.name, function.domain, function.overload)
        yield from (*function.input, *function.output, *function.attribute)
        yield from (a.name for a in function.attribute_proto)
        yield from (o.domain for o in function.opset_import)
        yield from _nodes(function.node)


def _graph(graph: GraphProto) -> Iterator[object]:
    yield graph.name
    yield from _values((*graph.input, *graph.output))
    yield from _tensors(graph.initializer)
    for sparse in graph.sparse_initializer:
        yield from _tensors((sparse.values, sparse.indices))
    yield from _nodes(graph.node)


def _values(values: Iterable[ValueInfoProto]) -> Iterator[object]:
    for value in values:
        yield value.name
        yield from (d.dim_param for d in value.type.tensor_type.shape.dim)


def _tensors(tensors: Iterable[TensorProto]) -> Iterator[object]:
    for tensor in tensors:
        yield tensor.name
        for entry in tensor.external_data:
            yield from (entry.key, entry.value)


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[object]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, node.overload)
        yield from (*node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)
            yield from _tensors((attribute.t,) if attribute.HasField("t") else ())
