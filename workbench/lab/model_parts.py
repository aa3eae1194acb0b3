"""cut_part: some nodes of a model as a model of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    shape_inference,
)

from workbench.errors import ExportError
from workbench.onnx_parser.parser import read_file, read_model
from workbench.onnx_parser.subgraphs import names_read
from workbench.onnx_parser.value_types import why_not

LARGEST = 1 << 30
"""Bytes of a model whose inner types onnx is asked for: its messages end at 2 GB."""


def cut_part(model: str | PathLike[str] | bytes, nodes: Iterable[int]) -> bytes:
    """Nodes of a model's graph, by index, with what they store, as a serialized model.

    What they read from outside becomes an input, what is read outside or was an output becomes
    one. Raises ParserError where the model cannot be read, and ExportError where no nodes are
    given, the type of a new input is neither declared nor inferred by onnx, or weights lie in a
    file.
    """
    data = model if isinstance(model, bytes) else read_file(model)
    whole = read_model(data)
    graph, chosen = whole.graph, sorted(set(nodes))
    place = "the part" if isinstance(model, bytes) else Path(model).name
    if not chosen:
        raise ExportError("it has no nodes", place=place, remedy="name the nodes to cut out")
    made = [v for i in chosen for v in graph.node[i].output if v]
    stored = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    read = dict.fromkeys(v for i in chosen for v in names_read(graph.node[i]))
    outside = set(range(len(graph.node))) - set(chosen)
    wanted = {v for i in outside for v in names_read(graph.node[i])}
    wanted |= {v.name for v in graph.output}
    inner = {v for i in chosen for v in _made_inside(graph.node[i].attribute)}
    needed = [v for v in read if v not in stored and v not in made and v not in inner]
    given = [v for v in dict.fromkeys(made) if v in wanted]
    types = _types(whole, data, needed)
    unknown = [v for v in needed if v not in types]
    if unknown:
        raise ExportError(
            f"the type of {', '.join(unknown[:5])} is not known",
            place=place,
            remedy="export the model with the types of its inner values (value_info)",
        )
    part = ModelProto()
    part.CopyFrom(_without_graph(whole))
    part.graph.name = f"{graph.name or 'model'}, nodes {chosen[0]} to {chosen[-1]}"
    part.graph.node.extend(graph.node[i] for i in chosen)
    kept = [t for t in graph.initializer if t.name in read]
    if any(t.data_location == TensorProto.EXTERNAL for t in kept):
        raise ExportError(
            "its weights lie in a data file",
            place=place,
            remedy="store the weights inside the model, then cut it",
        )
    part.graph.initializer.extend(kept)
    part.graph.sparse_initializer.extend(
        t for t in graph.sparse_initializer if t.values.name in read
    )
    part.graph.input.extend(ValueInfoProto(name=v, type=types[v]) for v in needed)
    part.graph.output.extend(ValueInfoProto(name=v, type=types.get(v)) for v in given)
    return part.SerializeToString()


def untyped_reads(
    model: ModelProto, parts: Iterable[tuple[Sequence[int], bool]]
) -> list[list[str]]:
    """For each part (nodes, supported), what it reads from outside that nothing gives a type.

    A value has one where the file declares it, or where supported nodes make it of such values.
    """
    graph, listed = model.graph, list(parts)
    supported = {i for nodes, good in listed if good for i in nodes}
    typed = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    typed |= set(_declared(graph))
    for i, node in enumerate(graph.node):
        if i in supported and typed.issuperset(_reads(node)):
            typed.update(v for v in node.output if v)
    found: list[list[str]] = []
    for nodes, _ in listed:
        made = {v for i in nodes for v in graph.node[i].output}
        read = dict.fromkeys(v for i in nodes for v in _reads(graph.node[i]))
        found.append([v for v in read if v not in made and v not in typed])
    return found


def _reads(node: NodeProto) -> list[str]:
    """What a node reads from around it, captures of its inner graphs included."""
    inner = set(_made_inside(node.attribute))
    return [v for v in names_read(node) if v not in inner]


def _types(model: ModelProto, data: bytes, needed: Sequence[str]) -> dict[str, TypeProto]:
    """Declared types, and where one of the needed is missing, those that onnx infers."""
    found = _declared(model.graph)
    if all(v in found for v in needed) or len(data) > LARGEST:
        return found
    return _declared(shape_inference.infer_shapes(model).graph) | found


def _declared(graph: GraphProto) -> dict[str, TypeProto]:
    values = (*graph.value_info, *graph.output, *graph.input)
    return {v.name: v.type for v in values if not why_not(v.type)}


def _without_graph(model: ModelProto) -> ModelProto:
    """Opsets, functions and what the model says of itself."""
    return ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=model.functions,
        metadata_props=model.metadata_props,
    )


def _made_inside(attributes: Iterable[object]) -> Iterable[str]:
    """Values that graphs inside a node define: read there, they are none from outside."""
    for attribute in attributes:
        for graph in (attribute.g, *attribute.graphs):  # pyright: ignore[reportAttributeAccessIssue]
            yield from (v.name for v in graph.input)
            yield from (t.name for t in graph.initializer)
            for node in graph.node:
                yield from (v for v in node.output if v)
                yield from _made_inside(node.attribute)
