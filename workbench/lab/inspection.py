"""inspect_model: what an ONNX model is made of, and what of it is imported and runs here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import MappingProxyType

from onnx import ModelProto, TypeProto

from workbench.devices import Device, open_device
from workbench.lab.model_parts import untyped_reads
from workbench.lab.operator_uses import (
    OperatorUse,
    uses_in_file,
    uses_in_network,
    uses_of_layers,
)
from workbench.lab.stored_weights import StoredWeight, weights_of_file, weights_of_network
from workbench.network import NetworkDefinition
from workbench.onnx_parser import OnnxParser, ParserErrorRecord
from workbench.onnx_parser.element_types import type_name
from workbench.onnx_parser.functions import domain
from workbench.onnx_parser.parser import read_file, read_model
from workbench.onnx_parser.schemas import OPSETS, operator_key


@dataclass(frozen=True)
class NamedType:
    """An input or an output, with its type as people write it: ``FLOAT[batch, 1, 8, 8]``."""

    name: str
    type: str


@dataclass(frozen=True)
class FileNode:
    """A node of the model's graph. operator: ``domain::name`` outside ai.onnx."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ModelPart:
    """Nodes, by index, that can be imported together, or none of which can.

    untyped: what it reads whose type nothing tells; such a part is no model of its own.
    """

    nodes: tuple[int, ...]
    supported: bool
    untyped: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ModelInspection:
    """A model, taken apart.

    source: its path, or what it came from. nbytes: of the file, without external data. opsets:
    domain -> version. facts: what it says of itself. functions: model-local ones -> calls. errors:
    every reason why it is refused. parts: how a refused model splits up; empty where the graph as
    a whole is wrong. network: None where it is refused. sizes: dynamic sizes at which the tactic
    sources were asked.
    """

    name: str
    source: str
    nbytes: int
    device: str
    opsets: Mapping[str, int]
    facts: Mapping[str, str]
    functions: Mapping[str, int]
    inputs: tuple[NamedType, ...]
    outputs: tuple[NamedType, ...]
    nodes: tuple[FileNode, ...]
    operators: tuple[OperatorUse, ...]
    weights: tuple[StoredWeight, ...]
    errors: tuple[ParserErrorRecord, ...] = ()
    parts: tuple[ModelPart, ...] = ()
    notes: tuple[str, ...] = ()
    network: NetworkDefinition | None = None
    sizes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def supported(self) -> bool:
        """Whether it was imported."""
        return self.network is not None

    @property
    def refused_nodes(self) -> frozenset[int]:
        """Indices of the nodes that a reason lies in."""
        return frozenset(e.node for e in self.errors if e.node >= 0)


def inspect_model(
    model: str | PathLike[str] | bytes | NetworkDefinition,
    *,
    device: str | Device = "cpu",
    network: NetworkDefinition | None = None,
    name: str = "",
) -> ModelInspection:
    """What a model is made of. network: what it was parsed into, where that is already known.

    A model that is refused is inspected too; one that cannot be read raises ParserError.
    """
    opened = open_device(device) if isinstance(device, str) else device
    if isinstance(model, NetworkDefinition):
        return _of_network(model, opened)
    data = model if isinstance(model, bytes) else read_file(model)
    path = None if isinstance(model, bytes) else Path(model)
    proto = read_model(data)
    errors: tuple[ParserErrorRecord, ...] = ()
    parts: tuple[ModelPart, ...] = ()
    if network is None:
        fresh = NetworkDefinition(name)
        parser = OnnxParser(fresh)
        if parser.parse(data, path or ""):
            network = fresh
        errors = tuple(parser.get_error(i) for i in range(parser.num_errors))
        groups = [
            (tuple(parser.get_subgraph_nodes(i)), parser.is_subgraph_supported(i))
            for i in range(parser.num_subgraphs)
        ]
        parts = tuple(
            ModelPart(nodes, good, tuple(untyped))
            for (nodes, good), untyped in zip(groups, untyped_reads(proto, groups), strict=True)
        )
    return _of_file(proto, path, len(data), name, opened, network, errors, parts)


def _of_file(
    proto: ModelProto,
    path: Path | None,
    nbytes: int,
    name: str,
    device: Device,
    network: NetworkDefinition | None,
    errors: Sequence[ParserErrorRecord],
    parts: Sequence[ModelPart],
) -> ModelInspection:
    folder = path.parent if path is not None else None
    graph = proto.graph
    sizes = typical_sizes(network) if network is not None else {}
    if network is not None:
        operators = uses_in_network(proto, folder, network, device, sizes)
        weights = weights_of_network(network, proto, folder)
        inputs = tuple(NamedType(t.name, str(t.type)) for t in network.inputs)
        outputs = tuple(NamedType(t.name, str(t.type)) for t in network.outputs)
    else:
        operators = uses_in_file(proto, frozenset(e.node for e in errors))
        weights = weights_of_file(proto, folder)
        stored = {t.name for t in graph.initializer}
        inputs = tuple(
            NamedType(v.name, _type_text(v.type)) for v in graph.input if v.name not in stored
        )
        outputs = tuple(NamedType(v.name, _type_text(v.type)) for v in graph.output)
    opsets = {domain(o.domain) or "ai.onnx": o.version for o in proto.opset_import}
    functions = _calls(proto)
    return ModelInspection(
        name or (path.stem if path is not None else graph.name) or "model",
        str(path) if path is not None else "bytes",
        nbytes,
        str(device),
        MappingProxyType(opsets),
        MappingProxyType(_facts(proto)),
        MappingProxyType(functions),
        inputs,
        outputs,
        _file_nodes(proto),
        operators,
        weights,
        tuple(errors),
        tuple(parts),
        tuple(_notes(proto, network, opsets, functions, weights)),
        network,
        MappingProxyType(sizes),
    )


def _of_network(network: NetworkDefinition, device: Device) -> ModelInspection:
    sizes = typical_sizes(network)
    return ModelInspection(
        network.name or "network",
        "a network made by hand",
        0,
        str(device),
        MappingProxyType({"ai.onnx": OPSETS[""]}),
        MappingProxyType({}),
        MappingProxyType({}),
        tuple(NamedType(t.name, str(t.type)) for t in network.inputs),
        tuple(NamedType(t.name, str(t.type)) for t in network.outputs),
        tuple(
            FileNode(
                x.name,
                x.op,
                tuple(t.name for t in x.inputs if t is not None),
                tuple(t.name for t in x.outputs),
            )
            for x in network.layers
        ),
        uses_of_layers(network, device, sizes),
        weights_of_network(network),
        network=network,
        sizes=MappingProxyType(sizes),
    )


def typical_sizes(network: NetworkDefinition) -> dict[str, int]:
    """A number for every dynamic size: 8 on the outermost axis, 64 elsewhere."""
    outermost = {
        s
        for t in network.inputs
        if not t.type.on_host and t.shape
        for s in network.symbols
        if s == str(t.shape[0])
    }
    return {s: 8 if s in outermost else 64 for s in network.symbols}


def _type_text(type_: TypeProto) -> str:
    """A declared type as ``TensorType`` writes it; a size that is not declared is ``?``."""
    match type_.WhichOneof("value"):
        case "sequence_type":
            return f"sequence({_type_text(type_.sequence_type.elem_type)})"
        case "optional_type":
            return f"optional({_type_text(type_.optional_type.elem_type)})"
        case "tensor_type" | "sparse_tensor_type":
            tensor = type_.tensor_type
            sizes = (
                str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?"
                for d in tensor.shape.dim
            )
            shape = ", ".join(sizes) if tensor.HasField("shape") else "?"
            return f"{type_name(tensor.elem_type)}[{shape}]"
        case _:
            return "a type that is not declared"


def _file_nodes(proto: ModelProto) -> tuple[FileNode, ...]:
    return tuple(
        FileNode(
            n.name or f"{n.op_type}_{i}",
            operator_key(domain(n.domain), n.op_type),
            tuple(v for v in n.input if v),
            tuple(v for v in n.output if v),
        )
        for i, n in enumerate(proto.graph.node)
    )


def _facts(proto: ModelProto) -> dict[str, str]:
    """What the model says of itself."""
    return {
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "IR version": str(proto.ir_version),
        "graph": proto.graph.name,
        **{p.key: p.value for p in proto.metadata_props},
    }


def _calls(proto: ModelProto) -> dict[str, int]:
    named = Counter((domain(n.domain), n.op_type) for n in proto.graph.node)
    return {f.name: named[(domain(f.domain), f.name)] for f in proto.functions}


def _notes(
    proto: ModelProto,
    network: NetworkDefinition | None,
    opsets: Mapping[str, int],
    functions: Mapping[str, int],
    weights: Sequence[StoredWeight],
) -> list[str]:
    """What is worth knowing and stops nothing."""
    notes: list[str] = []
    files = Counter(w.where for w in weights if w.external)
    notes += [
        f"{n} weight{'s lie' if n > 1 else ' lies'} in the file {f}" for f, n in files.items()
    ]
    unread = [w.name for w in weights if not w.readers]
    if unread and network is not None:
        notes.append(f"{_listed(unread)}: stored, but no node reads it")
    if functions:
        notes.append(f"model-local functions are expanded: {_listed(list(functions))}")
    given = opsets.get("ai.onnx", 0)
    if network is not None and 0 < given < OPSETS[""]:
        notes.append(f"opset {given} is read with the meaning of opset {OPSETS['']}, node by node")
    declared = {v.name for v in proto.graph.input} & {t.name for t in proto.graph.initializer}
    if declared:
        notes.append(f"{_listed(sorted(declared))}: an input with a stored value is a weight")
    if network is not None:
        on_host = [x.name for x in network.layers if x.on_host]
        if on_host:
            notes.append(
                f"{_listed(on_host)}: only the host can run it; on a GPU it needs "
                "config.allow_host_layers"
            )
    return notes


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
