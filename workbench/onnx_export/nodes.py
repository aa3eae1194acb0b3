"""NodeList: nodes in the making, of the main graph, of a nested graph, or of a function."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, StringStringEntryProto, helper, numpy_helper

from workbench import dimensions
from workbench.body import CONSTANT, Array, Body, Literal, Node, Operator, OptionalType, TensorType
from workbench.onnx_export.dialect import Dialect, NotExpressibleError, Types
from workbench.onnx_export.sizes import Sizes, reshape_target
from workbench.onnx_export.types import value_info
from workbench.onnx_export.weights import WeightStore
from workbench.onnx_parser.names import Names
from workbench.operators import operator_named

PREFIX = "workbench."
"""Of our keys in metadata_props."""

Provenance = Mapping[str, Any]
"""What a node's metadata says: strings, or lists of them (written as JSON)."""


@dataclass
class Shared:
    """What every list of one model has in common: names are unique through all nested graphs."""

    dialect: Dialect
    values: Names = field(default_factory=Names)
    nodes: Names = field(default_factory=Names)
    domains: set[str] = field(default_factory=lambda: {""})


class NodeList:
    """Nodes, and the types of what they make.

    store: where constants go; None: each becomes a Constant node. label: leads the names of
    nodes and values that the network has no name for.
    """

    def __init__(
        self,
        shared: Shared,
        *,
        store: WeightStore | None = None,
        label: str = "",
        provenance: Provenance | None = None,
    ) -> None:
        self.shared = shared
        self.nodes: list[NodeProto] = []
        self.types: dict[str, TensorType] = {}
        self.sizes = Sizes(self)
        self.provenance: Provenance = provenance or {}
        self._store = store
        self._label = label

    # -- values ---------------------------------------------------------------------------
    def constant(self, array: Array, label: str) -> str:
        """The name of a stored value."""
        name = self.shared.values.claim(self._labelled(label))
        if self._store is not None:
            self._store.arrays[name] = array
            return name
        stored = helper.make_attribute("value", numpy_helper.from_array(array))
        self._append("Constant", "", (), (name,), [stored], name)
        self.types[name] = TensorType(Literal.of(array).dtype, array.shape)
        return name

    def apply(
        self, op: str, inputs: Sequence[str], type_: TensorType, label: str, **attributes: Any
    ) -> str:
        """Append a node of one output; its output's name."""
        output = self.shared.values.claim(self._labelled(label))
        row = operator_named(op)
        full = row.complete(attributes)
        known = [self.types.get(v) for v in inputs]
        self.add(row, full, inputs, known, (output,), (type_,), name=output)
        return output

    # -- nodes ----------------------------------------------------------------------------
    def add(
        self,
        operator: Operator,
        attributes: Mapping[str, Any],
        inputs: Sequence[str],
        input_types: Types,
        outputs: Sequence[str],
        output_types: Sequence[TensorType],
        *,
        name: str,
    ) -> None:
        """Append a node. Raises NotExpressibleError, and appends nothing."""
        own, nested = self._nested(operator, attributes, inputs, name)
        while own and not own[-1]:
            own = own[:-1]
        made = self.shared.dialect.attributes(
            operator, attributes, input_types[: len(own)], output_types
        )
        self.shared.domains.add(operator.domain)
        self._append(operator.name, operator.domain, own, outputs, [*made, *nested], name)
        declared = _declared(operator, attributes, output_types)
        for value, type_ in zip(outputs, declared, strict=True):
            self.types[value] = type_
            self.sizes.learn(value, type_)

    def identity(self, source: str, target: str, type_: TensorType) -> None:
        """Append a copy under another name."""
        row = operator_named("Identity")
        self.add(row, {}, (source,), (type_,), (target,), (type_,), name=target)

    def structural(
        self,
        operator: Operator,
        attributes: Mapping[str, Any],
        index: int,
        value: Array,
        literal: Literal,
        first: TensorType | None,
        label: str,
    ) -> str:
        """The name of an operand that is known but for the sizes in it."""
        if operator.key == "Reshape" and index == 1 and first is not None:
            short = reshape_target(first, value, allow_zero=bool(attributes.get("allowzero")))
            if short is not None:
                return self.constant(short, f"{label}_shape")
        return self.sizes.tensor(value, literal.dtype, label)

    def body(self, body: Body, names: dict[str, str], *, label: str) -> None:
        """Append a Body's nodes. names: its values -> names here; what it makes is added.

        Raises NotExpressibleError.
        """
        literals: dict[str, Literal] = {}
        types = body.types
        for i in body.inputs:
            self.sizes.learn(names[i.name], i.type)
        for node in body.nodes:
            if node.operator is CONSTANT:
                literals[node.outputs[0]] = node.attributes["value"]
                continue
            read = [self._operand(node, k, body, names, literals) for k in range(len(node.inputs))]
            for o in node.outputs:
                if o and o not in names:
                    names[o] = self.shared.values.claim(
                        o if o.startswith(label) else self._labelled(o)
                    )
            made = [names[o] if o else "" for o in node.outputs]
            self.add(
                node.operator,
                node.attributes,
                read,
                [types[v] if v else None for v in node.inputs],
                made,
                [types[o] for o in node.outputs],
                name=f"{label}/{node.operator.name}" if label else node.operator.name,
            )
        for value, literal in literals.items():
            if value in body.outputs and value not in names:
                names[value] = self._literal(literal, value)

    def _operand(
        self,
        node: Node,
        index: int,
        body: Body,
        names: dict[str, str],
        literals: Mapping[str, Literal],
    ) -> str:
        value = node.inputs[index]
        if not value or value not in literals:
            return names[value] if value else ""
        literal = literals[value]
        if not literal.is_symbolic:
            if value not in names:
                names[value] = self._literal(literal, value)
            return names[value]
        first = body.types[node.inputs[0]] if node.inputs[0] else None
        return self.structural(
            node.operator, node.attributes, index, literal.array(), literal, first, value
        )

    def _literal(self, literal: Literal, label: str) -> str:
        if literal.is_symbolic:
            return self.sizes.tensor(literal.array(), literal.dtype, label)
        return self.constant(literal.array(), label)

    def _labelled(self, name: str) -> str:
        return f"{self._label}/{name}" if self._label else name

    def _append(
        self,
        op: str,
        domain: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Sequence[AttributeProto],
        name: str,
    ) -> None:
        node = NodeProto(
            op_type=op,
            domain=domain,
            input=inputs,
            output=outputs,
            name=self.shared.nodes.claim(name),
            attribute=attributes,
        )
        node.metadata_props.extend(entries(self.provenance))
        self.nodes.append(node)

    # -- nested graphs --------------------------------------------------------------------
    def _nested(
        self, operator: Operator, attributes: Mapping[str, Any], inputs: Sequence[str], name: str
    ) -> tuple[Sequence[str], list[AttributeProto]]:
        """The operator's own inputs, and its Bodies as graphs that capture the others."""
        bodies = {k: v for k, v in attributes.items() if isinstance(v, Body)}
        if not bodies or operator.domain:
            return inputs, []
        if attributes.get("batched"):
            raise NotExpressibleError("it scans per sample, as only Scan-8 does")
        own = _own_inputs(operator, attributes)
        given, captured = inputs[:own], list(inputs[own:])
        made: list[AttributeProto] = []
        for key, body in bodies.items():
            # Before what it captures, a Body has an input for each of the operator's own.
            formals = 0 if operator.key == "If" else own
            count = len(body.inputs) - formals
            graph = self._graph(body, captured[:count], f"{name}/{key}", formals)
            captured = captured[count:]
            made.append(helper.make_attribute(key, graph))
        return given, made

    def _graph(self, body: Body, captured: Sequence[str], label: str, formals: int) -> GraphProto:
        """A Body as a graph: its first inputs are the graph's, the others are captured."""
        inner = NodeList(self.shared, label=label, provenance=self.provenance)
        names = {
            i.name: self.shared.values.claim(f"{label}/{i.name}") for i in body.inputs[:formals]
        }
        for i, outer in zip(body.inputs[formals:], captured, strict=True):
            names[i.name] = outer
        inputs = [value_info(names[i.name], i.type) for i in body.inputs[:formals]]
        inner.body(body, names, label=label)
        outputs: list[str] = []
        for o, type_ in zip(body.outputs, body.output_types, strict=True):
            value = names[o]
            # A graph's outputs are made inside it, each once.
            if value not in inner.types or value in outputs:
                value = self.shared.values.claim(f"{label}/{o}_out")
                inner.identity(names[o], value, type_)
            outputs.append(value)
        results = [value_info(v, t) for v, t in zip(outputs, body.output_types, strict=True)]
        graph = helper.make_graph(inner.nodes, label.replace("/", "_"), inputs, results)
        left_out = {v.name for v in inputs} | set(outputs)
        graph.value_info.extend(
            value_info(v, t) for v, t in inner.types.items() if v and v not in left_out
        )
        return graph


def entries(provenance: Provenance) -> list[StringStringEntryProto]:
    """As metadata_props; lists as JSON, what is empty left out."""
    return [
        StringStringEntryProto(
            key=PREFIX + key,
            value=value if isinstance(value, str) else json.dumps(list(value), ensure_ascii=False),
        )
        for key, value in provenance.items()
        if value
    ]


def _own_inputs(operator: Operator, attributes: Mapping[str, Any]) -> int:
    """How many inputs are the operator's own; the others are captured by its Bodies."""
    match operator.key:
        case "If":
            return 1
        case "Loop":
            return 2 + attributes["carried"]
        case "Scan":
            return attributes["states"] + attributes["num_scan_inputs"]
        case "SequenceMap":
            return attributes["mapped"]
        case _:
            raise NotExpressibleError(f"{operator.name} has nested graphs that ONNX does not know")


def _declared(
    operator: Operator, attributes: Mapping[str, Any], types: Sequence[TensorType]
) -> Sequence[TensorType]:
    """Output types as ONNX infers them: a Loop's are its Body's, though it may never run."""
    if operator.key != "Loop":
        return types
    inner = attributes["body"].output_types[1:]
    return [
        b if isinstance(t, OptionalType) and not isinstance(b, OptionalType) else t
        for t, b in zip(types, inner, strict=True)
    ]


def is_sizes(value: Array | None) -> bool:
    """Whether a known value holds a size that is only known at run time."""
    return (
        value is not None
        and value.dtype == object
        and not dimensions.is_static(tuple(np.asarray(value).reshape(-1).tolist()))
    )
