"""The main graph: layers in order, fused ones as their nodes or as calls of functions."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence

from onnx import FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, helper

from workbench import dimensions
from workbench.body import CONSTANT, Body, HostType, Literal, TensorType
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.onnx_export.dialect import Dialect, NotExpressibleError
from workbench.onnx_export.nodes import NodeList, Provenance, Shared, entries, is_sizes
from workbench.onnx_export.types import value_info
from workbench.onnx_export.weights import WeightStore
from workbench.onnx_parser.names import Names

FUSED_DOMAIN = "workbench.fused"
"""Domain of the model-local functions that stand for fused layers."""


class MainGraph:
    """Writes one network. problems: every reason why it can't be written, with its layer."""

    def __init__(self, network: NetworkDefinition, dialect: Dialect, *, functions: bool) -> None:
        self.network = network
        self.problems: list[tuple[str, NotExpressibleError]] = []
        self.store = WeightStore()
        self.functions: dict[str, FunctionProto] = {}
        self.shared = Shared(dialect, Names(network.tensors))
        self._as_functions = functions
        self._list = NodeList(self.shared, store=self.store)
        self._names = _node_names(network)

    def run(self) -> GraphProto:
        """The graph, without its initializers: they are in ``store``."""
        out = self._list
        for t in self.network.inputs:
            out.types[t.name] = t.type
            out.sizes.learn(t.name, t.type)
        for layer in in_order(self.network):
            out.provenance = provenance_of(layer)
            try:
                self._layer(layer)
            except NotExpressibleError as e:
                self.problems.append((f"{'+'.join(layer.operator_names)} '{layer.name}'", e))
        for t in self.network.outputs:
            if t.producer is None and not t.is_network_input:
                self._operand(t)
        return self._assembled()

    def _assembled(self) -> GraphProto:
        inputs = [value_info(t.name, t.type) for t in self.network.inputs]
        declared = self._list.types
        outputs = [value_info(t.name, declared.get(t.name, t.type)) for t in self.network.outputs]
        public = {t.name for t in (*self.network.inputs, *self.network.outputs)}
        name = self.network.name or "network"
        graph = helper.make_graph(self._list.nodes, name, inputs, outputs)
        graph.value_info.extend(
            value_info(n, t) for n, t in self._list.types.items() if n and n not in public
        )
        return graph

    def _layer(self, layer: Layer) -> None:
        if layer.fused is not None:
            if self._as_functions:
                self._call(layer, layer.fused)
            else:
                self._flat(layer, layer.fused)
            return
        assert layer.operator is not None
        inputs: list[str] = []
        for index, t in enumerate(layer.inputs):
            inputs.append("" if t is None else self._operand(t, layer, index))
        self._list.add(
            layer.operator,
            layer.attributes,
            inputs,
            [t.type if t is not None else None for t in layer.inputs],
            [t.name for t in layer.outputs],
            [t.type for t in layer.outputs],
            name=self._names[layer.name],
        )

    def _operand(self, tensor: Tensor, layer: Layer | None = None, index: int = 0) -> str:
        """The operand's name; a constant is stored when it is first read."""
        if tensor.weight is not None:
            self.store.arrays.setdefault(tensor.name, tensor.weight.array)
        elif tensor.producer is None and not tensor.is_network_input:
            assert tensor.value is not None
            literal = Literal.of(tensor.value, tensor.dtype)
            if not literal.is_symbolic:
                self.store.arrays.setdefault(tensor.name, literal.array())
            elif layer is not None and layer.operator is not None:
                first = layer.inputs[0].type if layer.inputs[0] is not None else None
                return self._list.structural(
                    layer.operator,
                    layer.attributes,
                    index,
                    tensor.value,
                    literal,
                    first,
                    tensor.name,
                )
            else:
                return self._list.sizes.tensor(tensor.value, tensor.dtype, tensor.name)
        return tensor.name

    # -- fused layers ---------------------------------------------------------------------
    def _flat(self, layer: Layer, body: Body) -> None:
        """The nodes of a fused layer, one by one; their metadata names the layer."""
        bound = in_network(body, layer)
        names = {i.name: self._operand(t) for i, t in zip(body.inputs, layer.operands, strict=True)}
        made = {v for n in body.nodes if n.operator is not CONSTANT for v in n.outputs}
        names |= {o: t.name for o, t in zip(body.outputs, layer.outputs, strict=True) if o in made}
        self._list.body(bound, names, label=layer.name)
        for o, t in zip(body.outputs, layer.outputs, strict=True):
            if names[o] != t.name:
                self._list.identity(names[o], t.name, t.type)

    def _call(self, layer: Layer, body: Body) -> None:
        """One node that calls the function of the fused layer's Body."""
        inputs = [self._operand(t) for t in layer.operands]
        outputs = [t.name for t in layer.outputs]
        function = self._function(body)
        node = NodeProto(
            op_type=function.name,
            domain=FUSED_DOMAIN,
            input=inputs,
            output=outputs,
            name=self.shared.nodes.claim(self._names[layer.name]),
        )
        node.metadata_props.extend(entries(self._list.provenance))
        self._list.nodes.append(node)
        for t in layer.outputs:
            self._list.types[t.name] = t.type
            self._list.sizes.learn(t.name, t.type)

    def _function(self, body: Body) -> FunctionProto:
        """The function of a Body; equal Bodies share one."""
        if body.signature in self.functions:
            return self.functions[body.signature]
        shared = Shared(self.shared.dialect, Names(), Names())
        inner = NodeList(shared)
        names = {i.name: shared.values.claim(i.name) for i in body.inputs}
        inner.body(body, names, label="")
        outputs: list[str] = []
        for o, type_ in zip(body.outputs, body.output_types, strict=True):
            value = names[o]
            if value not in inner.types or value in outputs:
                value = shared.values.claim(f"{o}_out")
                inner.identity(names[o], value, type_)
            outputs.append(value)
        title = "_".join(body.operator_names) or "Identity"
        function = helper.make_function(
            FUSED_DOMAIN,
            f"{title.replace('::', '_')}_{body.signature[:8]}",
            [names[i.name] for i in body.inputs],
            outputs,
            inner.nodes,
            opset_imports(shared),
        )
        anchor = body.anchor_node
        told = {"anchor": anchor.op if anchor is not None else "", "body": body.signature}
        function.metadata_props.extend(entries(told))
        self.functions[body.signature] = function
        self.shared.domains.update((*shared.domains, FUSED_DOMAIN))
        return function


def opset_imports(shared: Shared) -> list[OperatorSetIdProto]:
    """The version of each domain in use."""
    return [helper.make_opsetid(d, shared.dialect.version(d)) for d in sorted(shared.domains)]


def provenance_of(layer: Layer) -> Provenance:
    """What a node says of the layer that it comes from."""
    cause = f"{layer.cause.stage}: {layer.cause.reason}" if layer.cause is not None else ""
    return {
        "layer": layer.name,
        "layer_type": layer.type,
        "origin": layer.origin,
        "cause": cause,
        "fused": layer.operator_names if layer.is_fused else (),
    }


def in_network(body: Body, layer: Layer) -> Body:
    """The Body with the network's own sizes in the place of its symbols."""
    found: dict[str, object] = {}
    for i, t in zip(body.inputs, layer.operands, strict=True):
        if isinstance(i.type, HostType):
            continue
        for inner, outer in zip(i.type.shape, t.shape, strict=True):
            if isinstance(inner, dimensions.SymbolicDim) and str(inner) in inner.symbols:
                found.setdefault(str(inner), outer)
    return body.substitute(found)


def in_order(network: NetworkDefinition) -> Sequence[Layer]:
    """Layers, producers first, and before a size is used the layer that makes a value of it."""
    layers = network.layers
    makers: dict[str, Layer | None] = {}
    for t in network.inputs:
        makers |= dict.fromkeys(_plain_sizes(t.type), None)
    for layer in layers:
        for t in layer.outputs:
            for s in _plain_sizes(t.type):
                makers.setdefault(s, layer)
    place = {x.name: k for k, x in enumerate(layers)}
    extra = {
        x.name: [m for s in _sizes_read(x) if (m := makers.get(s)) is not None] for x in layers
    }
    if all(place[m.name] < place[n] for n, found in extra.items() for m in found):
        return layers
    return _sorted(layers, place, extra)


def _sorted(
    layers: Sequence[Layer], place: Mapping[str, int], extra: Mapping[str, Sequence[Layer]]
) -> list[Layer]:
    before = {
        x.name: {
            *(t.producer.name for t in x.inputs if t is not None and t.producer is not None),
            *(m.name for m in extra[x.name] if m is not x),
        }
        for x in layers
    }
    after: dict[str, list[str]] = {x.name: [] for x in layers}
    for name, makers in before.items():
        for m in makers:
            after[m].append(name)
    waiting = {name: len(makers) for name, makers in before.items()}
    ready = [place[n] for n, k in waiting.items() if not k]
    heapq.heapify(ready)
    done: list[Layer] = []
    while ready:
        layer = layers[heapq.heappop(ready)]
        done.append(layer)
        for name in after[layer.name]:
            waiting[name] -= 1
            if not waiting[name]:
                heapq.heappush(ready, place[name])
    # What waits for itself is written in its own place; its size is then refused by name.
    return done if len(done) == len(layers) else list(layers)


def _plain_sizes(type_: TensorType) -> list[str]:
    if isinstance(type_, HostType):
        return []
    return [
        str(d) for d in type_.shape if isinstance(d, dimensions.SymbolicDim) if str(d) in d.symbols
    ]


def _sizes_read(layer: Layer) -> set[str]:
    found: set[str] = set()
    for t in layer.inputs:
        if t is not None and t.producer is None and is_sizes(t.value):
            assert t.value is not None
            found |= dimensions.symbols_of(tuple(t.value.reshape(-1).tolist()))
    return found


def _node_names(network: NetworkDefinition) -> dict[str, str]:
    """Layer -> its node's name: the model's own where the layer stands for exactly that node."""
    count = Counter(o for x in network.layers for o in x.origin)
    taken = {x.name for x in network.layers}
    names: dict[str, str] = {}
    for x in network.layers:
        own = x.origin[0] if len(x.origin) == 1 else x.name
        free = count[own] == 1 and own not in taken
        names[x.name] = own if free else x.name
    return names
