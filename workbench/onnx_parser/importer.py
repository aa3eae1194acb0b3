"""Importer: a checked model becomes a network, node by node, with every reason collected."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from onnx import ModelProto, SparseTensorProto, TensorProto, ValueInfoProto

from workbench.body import Array, TensorType
from workbench.dimensions import Dim, substitute
from workbench.errors import ParserError, ValueNeeded, WorkbenchError
from workbench.network import NetworkDefinition, Tensor, Weight
from workbench.onnx_parser.attributes import constant_value, row_attributes
from workbench.onnx_parser.declarations import input_problems, output_problems
from workbench.onnx_parser.expansion import LOWERED, node_proto, standard_body
from workbench.onnx_parser.functions import Flattener, domain
from workbench.onnx_parser.input_sizes import InputSizes
from workbench.onnx_parser.limits import MOST_BYTES, Limits, too_large, wrong_scale
from workbench.onnx_parser.nested import CONTROL_FLOW, absorb, import_control_flow
from workbench.onnx_parser.problems import (
    UNEXPECTED,
    ErrorCode,
    ParserErrorRecord,
    record,
    record_of,
    refuse,
    unforeseen,
)
from workbench.onnx_parser.schemas import OPSET
from workbench.onnx_parser.site import Site, Step, as_node
from workbench.onnx_parser.source import NestedGraph, SourceNode
from workbench.onnx_parser.standard import check_node, check_types
from workbench.onnx_parser.structure import StructureCheck
from workbench.onnx_parser.upgrade import is_rewritten, upgraded
from workbench.onnx_parser.value_types import declared_type
from workbench.onnx_parser.weights import WeightReader
from workbench.operators import OPERATORS

_DEFAULT = Limits()


class Importer:
    """Imports one model into an empty network.

    problems: every reason found. Where there is one, the network is incomplete.
    known_sizes: of the inputs, by symbol: see ``equal_sizes``.
    """

    def __init__(
        self,
        model: ModelProto,
        weights: WeightReader,
        network: NetworkDefinition,
        limits: Limits = _DEFAULT,
        known_sizes: Mapping[str, Dim] = MappingProxyType({}),
    ) -> None:
        self.problems: list[ParserErrorRecord] = []
        self._known_sizes = known_sizes
        self._limits = limits
        self._graph = model.graph
        self._imports = {domain(o.domain): o.version for o in model.opset_import}
        self._weights = weights
        self._network = network
        self._flattener = Flattener(model, weights)
        self._constants: dict[str, Array] = {}
        self._unmade: set[str] = set()
        self._read = {v.name for v in model.graph.output}
        self._around: Importer | None = None

    @property
    def max_loop_steps(self) -> int | None:
        """Iterations after which a Loop counts as endless; None: as the operator has it."""
        return self._limits.max_loop_steps

    @property
    def max_loop_bytes(self) -> int | None:
        """Bytes that a Loop may keep; None: as the operator has it."""
        most = self._limits.max_tensor_bytes
        return None if most == MOST_BYTES else most

    @property
    def network(self) -> NetworkDefinition:
        """What is being filled."""
        return self._network

    def run(self) -> None:
        """Check, then import; the import stops where the checks found something."""
        self._read_initializers()
        try:
            nodes = list(self._flattener.nodes(self._graph.node))
        except ParserError as e:
            self.problems.extend(r for r in e.errors if isinstance(r, ParserErrorRecord))
            return
        inputs = [v for v in self._graph.input if v.name not in self._constants]
        self._check(nodes, inputs)
        if self.problems:
            return
        self._read.update(v for node in nodes for v in _all_read(node))
        self._add_inputs(inputs)
        for node in nodes:
            self._import(node)
        self._mark_outputs()
        network = self._network
        network.model_nodes = tuple(dict.fromkeys(self._flattener.node_names))
        for name, function in self._flattener.calls.items():
            network.absorbed[name] = f"its body, function {function}"

    # -- nested graphs --------------------------------------------------------------------
    def tensor(self, name: str) -> Tensor:
        """A value that exists, a stored constant included."""
        return self._tensor(name)

    def inside(self, graph: NestedGraph, network: NetworkDefinition) -> Importer:
        """The importer of a nested graph; what it finds wrong is raised, not collected."""
        inner = copy.copy(self)
        inner._network, inner._unmade, inner._around = network, set(), self
        inner._constants = {n: self._weights.read(t) for n, t in graph.constants.items()}
        return inner

    def import_nodes(self, nodes: Sequence[SourceNode]) -> None:
        """Import nodes in order. Raises ParserError or NetworkError where one can't be."""
        for node in nodes:
            self._import_source(node)

    # -- what upgrades see ----------------------------------------------------------------
    def type_of(self, name: str) -> TensorType:
        """The type of a value that exists."""
        return self._tensor(name).type

    def value_of(self, name: str) -> Array | None:
        """Its value, where it is known."""
        return self._tensor(name).value

    def add_constant(self, name: str, value: Array) -> str:
        """A new constant; returns its name."""
        unique = self.fresh(name)
        value.flags.writeable = False
        self._network.add_weight(Weight(unique, value))
        return unique

    def fresh(self, name: str) -> str:
        """A value name that nothing in the model has."""
        return self._flattener.fresh(name)

    def is_read(self, name: str) -> bool:
        """Whether a node or the caller reads this value."""
        return name in self._read

    # -- checks ---------------------------------------------------------------------------
    def _read_initializers(self) -> None:
        stored: list[tuple[str, TensorProto | SparseTensorProto]] = [
            *((t.name, t) for t in self._graph.initializer),
            *((t.values.name, t) for t in self._graph.sparse_initializer),
        ]
        for name, proto in stored:
            if not name or name in self._constants:
                self._problem(
                    ErrorCode.INVALID_GRAPH,
                    f"two initializers are named '{name}'"
                    if name
                    else "an initializer has no name",
                    "single_assignment",
                    "give each initializer a name of its own",
                )
                continue
            try:
                self._constants[name] = self._weights.initializer(name, proto)
            except ParserError as e:
                self.problems.extend(r for r in e.errors if isinstance(r, ParserErrorRecord))
                self._constants[name] = np.zeros(0)
            except MemoryError:
                self._problem(
                    ErrorCode.MEM_ALLOC_FAILED,
                    f"there is no memory for tensor '{name}'",
                    "memory",
                    "import the model where more memory is free",
                )
                self._constants[name] = np.zeros(0)

    def _check(self, nodes: Sequence[SourceNode], inputs: Sequence[ValueInfoProto]) -> None:
        seen: set[str] = set()
        for value in inputs:
            if value.name in seen or not value.name:
                self._problem(
                    ErrorCode.INVALID_GRAPH,
                    f"two inputs are named '{value.name}'"
                    if value.name
                    else "an input has no name",
                    "single_assignment",
                    "give each input a name of its own",
                )
            seen.add(value.name)
            self.problems += input_problems(value)
        sources = dict.fromkeys(seen, "input") | dict.fromkeys(self._constants, "initializer")
        outputs = [v.name for v in self._graph.output]
        self.problems += self._flattener.problems
        self._check_nodes(nodes)
        self.problems += StructureCheck(sources, nodes, outputs).run()

    def _check_nodes(self, nodes: Sequence[SourceNode]) -> None:
        for node in nodes:
            self.problems += check_node(node, self._imports)
            for graph in node.nested:
                self._check_nodes(graph.nodes)
                known = dict.fromkeys(graph.captures, "value") | dict.fromkeys(
                    graph.inputs, "input"
                )
                known |= dict.fromkeys(graph.constants, "initializer")
                outputs = tuple(dict.fromkeys(graph.outputs))
                self.problems += StructureCheck(known, graph.nodes, outputs).run()

    def _problem(self, code: ErrorCode, desc: str, rule: str, remedy: str) -> None:
        self.problems.append(record(code, desc, rule=rule, remedy=remedy))

    # -- import ---------------------------------------------------------------------------
    def _add_inputs(self, inputs: Sequence[ValueInfoProto]) -> None:
        sizes = InputSizes({v.name: v.type.tensor_type.shape.dim for v in inputs})
        for value in inputs:
            shape = None
            if value.type.tensor_type.HasField("shape"):
                given = sizes.shape(value.name, value.type.tensor_type.shape.dim)
                shape = tuple(substitute(d, self._known_sizes) for d in given)
            self._network.add_typed_input(value.name, declared_type(value.type, shape))

    def _import(self, node: SourceNode) -> None:
        """Import one node, or record why not; what depends on it is then left out silently."""
        if any(v in self._unmade for v in node.reads):
            self._unmade.update(v for v in node.outputs if v)
            return
        try:
            self._import_source(node)
        except WorkbenchError as e:
            self.problems.extend(self._with_needs(r, node) for r in record_of(e, node))
            self._unmade.update(v for v in node.outputs if v)
        except UNEXPECTED as e:
            self.problems.append(unforeseen(e, node))
            self._unmade.update(v for v in node.outputs if v)

    def _with_needs(self, reason: ParserErrorRecord, node: SourceNode) -> ParserErrorRecord:
        """The reason with the inputs that would have to be known, where it lacks a value."""
        if reason.code is not ErrorCode.UNSUPPORTED_NODE_DYNAMIC or reason.needs:
            return reason
        return replace(reason, needs=_deciding([self._tensor(v) for v in node.inputs[1:] if v]))

    def _import_source(self, node: SourceNode) -> None:
        if node.operator == "Constant":
            self._network.add_weight(Weight(node.outputs[0], constant_value(node)))
            if node.origin == node.name:
                self._network.absorbed[node.name] = f"weight {node.outputs[0]}"
            return
        if node.operator in CONTROL_FLOW:
            import_control_flow(self, node)
            return
        if is_rewritten(node.operator, node.version):
            inputs = [self._tensor(v) if v else None for v in node.inputs]
            self._check_types(node, node.operator, node.version, inputs)
        steps = upgraded(Site(node, self))
        for step in steps:
            self._import_step(node, step, alone=len(steps) == 1)

    def _import_step(self, node: SourceNode, step: Step, *, alone: bool) -> None:
        row = OPERATORS.get(step.operator)
        if row is not None:
            self._add_layer(node, step, alone=alone or step.operator == node.operator)
            return
        rule = LOWERED.get(step.operator)
        if rule is not None and (lowered := rule(Site(as_node(node, step), self))):
            for lower in lowered:
                self._import_step(node, lower, alone=alone)
            return
        proto = node_proto(step.operator, step.inputs, step.outputs, step.attributes)
        types = [self.type_of(v) if v else None for v in step.inputs]
        body = standard_body(proto, types)
        for inner in self._flattener.body(body, as_node(node, step), proto):
            if inner.broken:
                wrong = self._flattener.problems[-1]
                raise ParserError(wrong.desc, remedy=wrong.remedy, errors=(wrong,))
            self._import_source(inner)
        absorb(self._network, node, f"the layers of node '{node.name}'")

    def _add_layer(self, node: SourceNode, step: Step, *, alone: bool) -> None:
        inputs = [self._tensor(v) if v else None for v in step.inputs]
        while inputs and inputs[-1] is None:
            inputs.pop()
        self._check_types(node, step.operator, OPSET, inputs)
        if wrong := wrong_scale(step.operator, inputs):
            refuse(
                ErrorCode.INVALID_VALUE,
                wrong,
                rule="quantization_scale",
                remedy="give it a scale above 0; quantize the model again",
                node=node,
            )
        outputs = list(step.outputs)
        while len(outputs) > 1 and not outputs[-1]:
            outputs.pop()
        named = [o or self.fresh(f"{node.name}_unread{i}") for i, o in enumerate(outputs)]
        name = node.name if alone else f"{node.name}/{step.operator}"
        try:
            layer = self._network.add_layer(
                step.operator,
                inputs,
                row_attributes(node, step),
                name=name if alone else self._flattener.fresh_node(name),
                outputs=named,
                origin=(node.origin,),
            )
        except ValueNeeded as e:
            reason = record(
                ErrorCode.UNSUPPORTED_NODE_DYNAMIC,
                e.problem,
                rule="value_needed",
                remedy=e.remedy,
                node=node,
            )
            reason = replace(reason, needs=_deciding([inputs[e.index]]))
            raise ParserError(e.problem, place=e.place, remedy=e.remedy, errors=(reason,)) from None
        for made in layer.outputs:
            if wrong := too_large(made.type, self._limits.max_tensor_bytes):
                refuse(
                    ErrorCode.UNSUPPORTED_NODE_SHAPE,
                    f"its output '{made.name}' {wrong}",
                    rule="tensor_bytes",
                    remedy="check the sizes, or allow more with OnnxParser(max_tensor_bytes=...)",
                    node=node,
                )
        if len(layer.outputs) < len(named):
            refuse(
                ErrorCode.UNSUPPORTED_NODE,
                f"output {len(layer.outputs)} ('{named[len(layer.outputs)]}') of {step.operator} "
                "is not computed here",
                rule="optional_output",
                remedy="export the model without that output",
                node=node,
            )

    def _check_types(
        self, node: SourceNode, operator: str, opset: int, inputs: Sequence[Tensor | None]
    ) -> None:
        actual = [(t.name, t.type) if t is not None else None for t in inputs]
        if wrong := check_types(node, operator, opset, actual):
            raise ParserError(wrong.desc, place=wrong.place, remedy=wrong.remedy, errors=(wrong,))

    def _tensor(self, name: str) -> Tensor:
        tensor = self._network.tensors.get(name)
        if tensor is None and name not in self._constants and self._around is not None:
            # A branch that is imported in place reads what the graph around it stores.
            tensor = self._around.tensor(name)
        if tensor is None:
            # An initializer becomes a tensor where it is first read.
            tensor = self._network.add_weight(Weight(name, self._constants.pop(name)))
        return tensor

    # -- outputs --------------------------------------------------------------------------
    def _mark_outputs(self) -> None:
        for value in self._graph.output:
            if value.name in self._unmade:
                continue
            tensor = self._tensor(value.name)
            self.problems += output_problems(value, tensor)
            self._network.mark_output(tensor)


def _all_read(node: SourceNode) -> Iterator[str]:
    """Every name that a node, or one inside it, reads."""
    yield from node.inputs
    for graph in node.nested:
        yield from graph.outputs
        for inner in graph.nodes:
            yield from _all_read(inner)


def _deciding(tensors: Sequence[Tensor | None]) -> tuple[str, ...]:
    """The network inputs that these tensors are computed from."""
    found: dict[str, None] = {}
    todo, seen = [t for t in tensors if t is not None], set[str]()
    while todo:
        tensor = todo.pop()
        if tensor.name in seen or tensor.value is not None:
            continue
        seen.add(tensor.name)
        if tensor.is_network_input:
            found[tensor.name] = None
        elif tensor.producer is not None:
            todo += [t for t in tensor.producer.inputs if t is not None]
    return tuple(sorted(found))
