"""Control flow: a node with nested graphs becomes a layer with Bodies, or the graph it chooses.

What a nested graph reads from around its node becomes an operand of the layer, and an input of
the Body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from workbench.body import (
    Body,
    BodyInput,
    HostType,
    SequenceType,
    TensorType,
    UnrankedType,
    general,
    later_size,
)
from workbench.datatypes import DataType
from workbench.network import NetworkDefinition, Tensor, Weight
from workbench.network.graph import close
from workbench.onnx_parser.problems import ErrorCode, refuse
from workbench.onnx_parser.source import NestedGraph, SourceNode

ROUNDS = 8
"""Imports of a loop's body until the types of what it carries settle."""

Made = tuple[Body, list[Tensor]]
"""A nested graph as a Body, and the tensors around it that its captures stand for."""


class Frame(Protocol):
    """What the importer of the graph around a node offers."""

    @property
    def network(self) -> NetworkDefinition: ...

    @property
    def max_loop_steps(self) -> int | None:
        """Iterations after which a Loop counts as endless."""
        ...

    @property
    def max_loop_bytes(self) -> int | None:
        """Bytes that a Loop may keep."""
        ...

    def tensor(self, name: str) -> Tensor:
        """A value that exists, a stored constant included."""
        ...

    def inside(self, graph: NestedGraph, network: NetworkDefinition) -> Frame:
        """The importer of a nested graph, into a network of its own or this one."""
        ...

    def import_nodes(self, nodes: Sequence[SourceNode]) -> None:
        """Import nodes in order. Raises ParserError where one can't be."""
        ...


def import_control_flow(frame: Frame, node: SourceNode) -> None:
    """Add the layer of an If, Loop, Scan or SequenceMap."""
    _IMPORTS[node.operator](frame, node)


def nested_body(frame: Frame, graph: NestedGraph, formals: Sequence[TensorType], name: str) -> Made:
    """The Body of a nested graph whose own inputs have these types."""
    inner = NetworkDefinition(name)
    inside = frame.inside(graph, inner)
    for formal, type_ in zip(graph.inputs, formals, strict=True):
        inner.add_typed_input(formal, type_)
    outer = {c: frame.tensor(c) for c in graph.captures}
    for capture, tensor in outer.items():
        if tensor.weight is not None:
            inner.add_weight(Weight(capture, tensor.weight.array, tensor.weight.recipe))
        else:
            inner.add_typed_input(capture, tensor.type)
    inside.import_nodes(graph.nodes)
    results = tuple(inside.tensor(o) for o in graph.outputs)
    body, read = close(tuple(inner.layers), results, None)
    extra = [t for t in dict.fromkeys((*read, *results)) if t.producer is None]
    captured = [t for t in extra if t.name not in graph.inputs]
    inputs = (
        *(BodyInput(n, t) for n, t in zip(graph.inputs, formals, strict=True)),
        *(BodyInput(t.name, t.type, t.is_constant) for t in captured),
    )
    operands = [
        outer[t.name] if t.name in outer else frame.network.add_weight(_weight_of(t))
        for t in captured
    ]
    return Body(inputs, body.nodes, tuple(t.name for t in results), None), operands


def _weight_of(tensor: Tensor) -> Weight:
    assert tensor.weight is not None
    return tensor.weight


# -- the operators ------------------------------------------------------------------------
def _if(frame: Frame, node: SourceNode) -> None:
    condition = frame.tensor(node.inputs[0])
    value = condition.value
    if value is not None and value.size != 1:
        refuse(
            ErrorCode.INVALID_NODE,
            f"its condition '{condition.name}' has {value.size} elements, it needs one",
            rule="condition",
            remedy="give it a single BOOL",
            node=node,
        )
    if value is not None and value.dtype != object:
        _inline(frame, node, "then_branch" if bool(value.reshape(())) else "else_branch")
        return
    bodies: dict[str, Body] = {}
    captured: list[Tensor] = []
    for branch in ("then_branch", "else_branch"):
        bodies[branch], operands = nested_body(frame, node.attributes[branch], (), node.name)
        captured += operands
    _add(frame, node, [condition, *captured], bodies)


def _inline(frame: Frame, node: SourceNode, branch: str) -> None:
    """The chosen branch in the place of its node: the condition is known."""
    graph: NestedGraph = node.attributes[branch]
    inside = frame.inside(graph, frame.network)
    inside.import_nodes(graph.nodes)
    for inner, outer in zip(graph.outputs, node.outputs, strict=False):
        if outer:
            frame.network.add_layer(
                "Identity",
                [inside.tensor(inner)],
                name=f"{node.name}/{outer}",
                outputs=[outer],
                origin=(node.name,),
            )
    other = "else_branch" if branch == "then_branch" else "then_branch"
    dropped: NestedGraph = node.attributes[other]
    for name in _names(dropped.nodes):
        frame.network.absorbed[name] = f"nothing: the condition of '{node.name}' is known"


def _names(nodes: Sequence[SourceNode]) -> list[str]:
    """The names of nodes and of those inside them."""
    found: list[str] = []
    for n in nodes:
        found.append(n.name)
        for g in n.nested:
            found += _names(g.nodes)
    return found


def _loop(frame: Frame, node: SourceNode) -> None:
    graph: NestedGraph = node.attributes["body"]
    given = [frame.tensor(v) if v else None for v in node.inputs]
    given += [None] * (2 - len(given))
    states = [t for t in given[2:] if t is not None]
    _check_arity(node, "body", len(graph.inputs), 2 + len(states))
    counter = (TensorType(DataType.INT64, ()), TensorType(DataType.BOOL, ()))
    body, captured = _settled(
        frame,
        node,
        graph,
        [t.type for t in states],
        lambda types: (*counter, *types),
        lambda made: made[1 : 1 + len(states)],
    )
    inputs = [*given[:2], *states, *captured]
    attributes: dict[str, Any] = {"body": body, "carried": len(states)}
    if frame.max_loop_steps is not None:
        attributes["step_limit"] = frame.max_loop_steps
    if frame.max_loop_bytes is not None:
        attributes["byte_limit"] = frame.max_loop_bytes
    _add(frame, node, inputs, attributes)


def _scan(frame: Frame, node: SourceNode) -> None:
    graph: NestedGraph = node.attributes["body"]
    scanned = node.attributes["num_scan_inputs"]
    # Scan-8 had lengths as its first input, and a batch axis before every other.
    batched = node.version < 9
    if batched and node.inputs[0]:
        refuse(
            ErrorCode.UNSUPPORTED_NODE_INPUT,
            "Scan-8 with sequence_lens is not imported",
            rule="scan_lengths",
            remedy="export with opset 9 or newer",
            node=node,
        )
    given = [frame.tensor(v) for v in node.inputs if v]
    _check_arity(node, "body", len(graph.inputs), len(given))
    states = len(given) - scanned
    axes = node.attributes.get("scan_input_axes")
    types = [_one_step(t.type, 0, node) if batched else t.type for t in given]
    rest = [_one_step(t, axes[i] if axes else 0, node) for i, t in enumerate(types[states:])]
    body, captured = _settled(
        frame,
        node,
        graph,
        types[:states],
        lambda types: (*types, *rest),
        lambda made: made[:states],
    )
    kept = {k: v for k, v in node.attributes.items() if k not in ("body", "directions")}
    if directions := node.attributes.get("directions"):
        kept["scan_input_directions"] = directions
    own = {"body": body, "states": states, "batched": int(batched)}
    _add(frame, node, [*given, *captured], {**kept, **own})


def _one_step(type_: TensorType, axis: int, node: SourceNode) -> TensorType:
    """The type of one step of a scanned tensor."""
    if isinstance(type_, HostType):
        return UnrankedType(type_.dtype)
    rank = len(type_.shape)
    if not -rank <= axis < rank:
        refuse(
            ErrorCode.INVALID_NODE,
            f"it scans axis {axis} of {type_}",
            rule="scan_axis",
            remedy="re-export the model",
            node=node,
        )
    shape = list(type_.shape)
    del shape[axis]
    return TensorType(type_.dtype, tuple(shape))


def _sequence_map(frame: Frame, node: SourceNode) -> None:
    graph: NestedGraph = node.attributes["body"]
    given = [frame.tensor(v) for v in node.inputs]
    _check_arity(node, "body", len(graph.inputs), len(given))
    types = [t.type.element if isinstance(t.type, SequenceType) else t.type for t in given]
    body, captured = nested_body(frame, graph, types, node.name)
    _add(frame, node, [*given, *captured], {"body": body, "mapped": len(given)})


_IMPORTS: dict[str, Callable[[Frame, SourceNode], None]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    "SequenceMap": _sequence_map,
}
CONTROL_FLOW = frozenset(_IMPORTS)
"""Operators whose nested graphs become Bodies."""


# -- inner --------------------------------------------------------------------------------
def _settled(
    frame: Frame,
    node: SourceNode,
    graph: NestedGraph,
    states: Sequence[TensorType],
    formals: Callable[[Sequence[TensorType]], Sequence[TensorType]],
    next_states: Callable[[Sequence[TensorType]], Sequence[TensorType]],
) -> Made:
    """The Body whose carried values have types that fit every iteration."""
    types = list(states)
    offset = next((i for i, t in enumerate(formals(types)) if types and t is types[0]), 0)
    for _ in range(ROUNDS):
        body, operands = nested_body(frame, graph, formals(types), node.name)
        made = next_states(body.output_types)
        wider = [
            general(a, b, lambda axis, k=k: later_size(graph.inputs[offset + k], axis))
            for k, (a, b) in enumerate(zip(types, made, strict=True))
        ]
        if wider == types:
            return body, operands
        types = wider
    refuse(
        ErrorCode.UNSUPPORTED_NODE,
        f"the types of what it carries do not settle: {', '.join(map(str, types))}",
        rule="loop_types",
        remedy="give what the loop carries one type and rank",
        node=node,
    )


def _check_arity(node: SourceNode, graph: str, has: int, wanted: int) -> None:
    if has != wanted:
        refuse(
            ErrorCode.INVALID_NODE,
            f"its graph '{graph}' has {has} inputs, the node gives it {wanted}",
            rule="nested_inputs",
            remedy="re-export the model",
            node=node,
        )


def _add(
    frame: Frame, node: SourceNode, inputs: Sequence[Tensor | None], attributes: dict[str, Any]
) -> None:
    outputs = [o or f"{node.name}_unread{i}" for i, o in enumerate(node.outputs)]
    frame.network.add_layer(
        node.operator,
        inputs,
        attributes,
        name=node.name,
        outputs=outputs,
        origin=(node.origin,),
    )
    absorb(frame.network, node, f"layer {node.name}, inside it")


def absorb(network: NetworkDefinition, node: SourceNode, into: str) -> None:
    """Say where the nodes of a node's graphs went."""
    for graph in node.nested:
        for name in _names(graph.nodes):
            network.absorbed[name] = into
