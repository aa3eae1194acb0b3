"""Flattener: the graph's nodes in order, model-local functions replaced by their bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
)

from workbench.errors import ParserError
from workbench.onnx_parser.inlined_sizes import FunctionKey, InlinedSizes, domain, function_key
from workbench.onnx_parser.limits import MOST_INLINED
from workbench.onnx_parser.names import Names
from workbench.onnx_parser.problems import ErrorCode, ParserErrorRecord, record, record_of, refuse
from workbench.onnx_parser.schemas import operator_key
from workbench.onnx_parser.source import NestedGraph, SourceNode, attribute_value, kind_name
from workbench.onnx_parser.weights import WeightReader


@dataclass(frozen=True)
class _Scope:
    """Where a list of nodes lies: the main graph, or a function around it.

    names: the function's value names -> names in the network, None in the main graph. bound: the
    call's attributes, for the body's references. prefix: of inner names. origin: the model's
    node, inside the standard's body of an operator. outer: in a nested graph, how the graph around
    it calls what is not named here.
    """

    versions: Mapping[str, int]
    prefix: str = ""
    names: dict[str, str] | None = None
    bound: Mapping[str, AttributeProto] | None = None
    index: int = -1
    calls: tuple[FunctionKey, ...] = ()
    origin: str = ""
    outer: Callable[[str], str] | None = None

    @property
    def stack(self) -> tuple[str, ...]:
        return tuple(name for _, name, _ in self.calls)


class Flattener:
    """Reads nodes and inlines functions.

    node_names: every node's name, calls included. calls: a call's name -> its function. problems:
    reasons found on the way; the nodes concerned are marked broken.
    """

    def __init__(self, model: ModelProto, weights: WeightReader) -> None:
        self._weights = weights
        self._functions = {function_key(f): f for f in model.functions}
        self._versions = {domain(o.domain): o.version for o in model.opset_import}
        self._given = {n.name for n in model.graph.node}
        self._nodes = Names()
        self._values = Names(_value_names(model))
        self.node_names: list[str] = []
        self.calls: dict[str, str] = {}
        self.problems: list[ParserErrorRecord] = []

    def nodes(self, nodes: Sequence[NodeProto]) -> Iterator[SourceNode]:
        """The flat list of the main graph. Raises ParserError where it would be too long."""
        sizes = InlinedSizes(self._functions)
        if (largest := sizes.too_many(nodes)) is not None:
            name, function, count = largest
            refuse(
                ErrorCode.UNSUPPORTED_GRAPH,
                f"the calls of its functions would become {count:,} nodes, most of them in "
                f"'{name}', which calls {function}; {MOST_INLINED:,} are the most",
                rule="function_size",
                remedy="export the model with fewer, or without functions",
            )
        return self._walk(nodes, _Scope(self._versions))

    def body(self, function: FunctionProto, call: SourceNode, proto: NodeProto) -> list[SourceNode]:
        """The flat list of an operator's body as the standard gives it."""
        given = {a.name: a for a in proto.attribute}
        around = _Scope({}, index=call.index, origin=call.origin)
        return list(self._inlined(function, function_key(function), call, given, around))

    def fresh(self, name: str) -> str:
        """``name``, or ``name_2``..., as a value name that nothing has."""
        return self._values.claim(name)

    def fresh_node(self, name: str) -> str:
        """As ``fresh``, among nodes."""
        return self._nodes.claim(name)

    def _walk(self, nodes: Sequence[NodeProto], scope: _Scope) -> Iterator[SourceNode]:
        for i, proto in enumerate(nodes):
            name = self._name(proto, i, scope)
            key = (domain(proto.domain), proto.op_type, proto.overload)
            function = self._functions.get(key)
            attributes = _resolved(proto, scope.bound)
            node = self._node(proto, name, i, attributes if function is None else (), scope)
            if function is None:
                yield node
            elif key in scope.calls:
                yield self._broken_call(node, "function_recursion", "it calls itself")
            else:
                self.calls[name] = proto.op_type
                bound = {a.name: a for a in attributes}
                yield from self._inlined(function, key, node, bound, scope)

    def _name(self, proto: NodeProto, i: int, scope: _Scope) -> str:
        name = scope.prefix + (proto.name or f"{proto.op_type or 'node'}_{i}")
        # A node that has no name never takes the name that another node was given.
        while not proto.name and name in self._given:
            name += "_"
        name = self._nodes.claim(name)
        if not scope.origin:
            self.node_names.append(name)
        return name

    def _inlined(
        self,
        function: FunctionProto,
        key: FunctionKey,
        call: SourceNode,
        given: Mapping[str, AttributeProto],
        around: _Scope,
    ) -> Iterator[SourceNode]:
        bound = {a.name: a for a in function.attribute_proto} | dict(given)
        missing = [a for a in function.attribute if a not in bound]
        wrong = f"attribute {missing[0]} is missing" if missing and not around.origin else ""
        for what, actual, formal in (
            ("input", call.inputs, function.input),
            ("output", call.outputs, function.output),
        ):
            if len(actual) > len(formal):
                wrong = f"it has {len(formal)} {what}s, the call gives {len(actual)}"
        if wrong:
            yield self._broken_call(call, "function_call", wrong)
            return
        names = {"": ""}
        for i, formal in enumerate(function.input):
            names[formal] = call.inputs[i] if i < len(call.inputs) else ""
        actuals = [(f, o) for f, o in zip(function.output, call.outputs, strict=False) if o]
        passed = [(names[formal], actual) for formal, actual in actuals if formal in names]
        for formal, actual in actuals:
            names.setdefault(formal, actual)
        scope = _Scope(
            {domain(o.domain): o.version for o in function.opset_import},
            f"{call.name}/",
            names,
            bound,
            call.index,
            around.calls if around.origin else (*around.calls, key),
            around.origin,
        )
        yield from self._walk(function.node, scope)
        for inner, outer in passed:
            proto = NodeProto(op_type="Identity", input=[inner], output=[outer])
            name = self._name(proto, len(function.node), scope)
            yield self._node(proto, name, 0, (), replace(scope, names=None, versions={"": 1}))

    def _node(
        self,
        proto: NodeProto,
        name: str,
        i: int,
        attributes: Sequence[AttributeProto],
        scope: _Scope,
    ) -> SourceNode:
        rename = self._renamer(scope)
        space = domain(proto.domain)
        node = SourceNode(
            name,
            operator_key(space, proto.op_type),
            space,
            scope.versions.get(space, 0),
            tuple(rename(v) for v in proto.input),
            tuple(rename(v) for v in proto.output),
            {},
            {a.name: kind_name(a) for a in attributes},
            i if scope.index < 0 else scope.index,
            scope.stack,
            scope.origin or name,
        )
        try:
            values = {a.name: self._value(a, name, node.index, scope) for a in attributes}
        except ParserError as e:
            self.problems.extend(record_of(e, node))
            return replace(node, broken=True)
        return replace(node, attributes=values)

    def _value(self, attribute: AttributeProto, name: str, index: int, scope: _Scope) -> Any:
        if attribute.type != AttributeProto.GRAPH:
            return attribute_value(attribute, self._weights)
        return self._nested(attribute.g, f"{name}/{attribute.name}/", index, scope)

    def _nested(self, graph: GraphProto, prefix: str, index: int, around: _Scope) -> NestedGraph:
        """A graph inside a node: what is defined in it gets names of its own."""
        stored: dict[str, TensorProto | SparseTensorProto] = {t.name: t for t in graph.initializer}
        stored |= {t.values.name: t for t in graph.sparse_initializer}
        formals = [v.name for v in graph.input if v.name not in stored]
        made = [v for n in graph.node for v in n.output if v]
        names = {"": ""}
        for v in (*formals, *stored, *made):
            names.setdefault(v, self.fresh(f"{prefix}{v}"))
        scope = replace(
            around,
            prefix=prefix,
            names=names,
            index=index,
            outer=self._renamer(around),
        )
        rename = self._renamer(scope)
        nodes = tuple(self._walk(graph.node, scope))
        outputs = tuple(rename(v.name) for v in graph.output)
        own = {names[v] for v in (*formals, *stored)} | {v for n in nodes for v in n.outputs}
        read = dict.fromkeys((*(v for n in nodes for v in n.reads), *outputs))
        return NestedGraph(
            tuple(names[v] for v in formals),
            nodes,
            outputs,
            {names[v]: t for v, t in stored.items()},
            tuple(v for v in read if v not in own),
            graph,
        )

    def _broken_call(self, call: SourceNode, rule: str, wrong: str) -> SourceNode:
        self.problems.append(
            record(
                ErrorCode.INVALID_NODE,
                f"function '{call.operator}' is called wrongly: {wrong}",
                rule=rule,
                remedy="re-export the model",
                node=call,
            )
        )
        return replace(call, broken=True)

    def _renamer(self, scope: _Scope) -> Callable[[str], str]:
        names, outer = scope.names, scope.outer
        if names is None:
            return lambda v: v

        def rename(v: str) -> str:
            if v not in names and outer is not None:
                return outer(v)
            if v not in names:
                names[v] = self.fresh(f"{scope.prefix}{v}")
            return names[v]

        return rename


def _resolved(
    proto: NodeProto, bound: Mapping[str, AttributeProto] | None
) -> tuple[AttributeProto, ...]:
    """The attributes; a reference is replaced by the call's, or left out where the call does."""
    found: list[AttributeProto] = []
    for a in proto.attribute:
        if not a.ref_attr_name:
            found.append(a)
        elif bound is not None and a.ref_attr_name in bound:
            copy = AttributeProto()
            copy.CopyFrom(bound[a.ref_attr_name])
            copy.name = a.name
            found.append(copy)
    return tuple(found)


def _value_names(model: ModelProto) -> set[str]:
    graph = model.graph
    found = {v.name for v in (*graph.input, *graph.output)} | {t.name for t in graph.initializer}
    for node in graph.node:
        found.update(node.output)
        found.update(node.input)
    return found
