"""NetworkDefinition: layers and tensors, edited only through its methods."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import (
    Body,
    BodyInput,
    HostType,
    Operator,
    OptionalType,
    SequenceType,
    TensorType,
    Value,
    bind_sizes,
    infer_node,
    interpret,
)
from workbench.datatypes import DataType
from workbench.errors import NetworkError
from workbench.network.editing import NetworkEdits
from workbench.network.graph import Cause, Layer, Tensor, Weight, frozen_array
from workbench.network.layer_api import LayerApi
from workbench.operators import operator_named


class NetworkDefinition(NetworkEdits, LayerApi):
    """A network: inputs, layers, marked outputs. A stage works on a ``clone()``.

    Every edit either succeeds and leaves the network valid, or raises NetworkError and changes
    nothing. ``layers`` is in topological order.
    """

    # -- building -------------------------------------------------------------------------
    def add_input(self, name: str, dtype: DataType | str, shape: Sequence[Any]) -> Tensor:
        """A network input; a size may be a name (symbolic) or -1 (named after its place)."""
        sizes = tuple(_input_size(f"{name}_{axis}", d) for axis, d in enumerate(shape))
        tensor = self._new_tensor(Tensor(name, TensorType(DataType.of(dtype), sizes)))
        tensor.is_network_input = True
        self.inputs.append(tensor)
        return tensor

    def add_typed_input(self, name: str, type_: TensorType) -> Tensor:
        """A network input of any type: a sequence, an optional, a tensor of unknown rank."""
        tensor = self._new_tensor(Tensor(name, type_))
        tensor.is_network_input = True
        self.inputs.append(tensor)
        return tensor

    def constant(self, array: Any, name: str = "constant") -> Tensor:
        """A constant tensor. The array is copied if the caller could still write it."""
        return self.add_weight(Weight(self.unique(name), frozen_array(array)))

    def add_weight(self, weight: Weight) -> Tensor:
        """A constant tensor from a Weight (which may be derived)."""
        kind = TensorType(DataType.of(weight.array), weight.array.shape)
        return self._new_tensor(Tensor(self.unique(weight.name), kind, weight=weight))

    def sizes(self, sizes: Any, name: str = "sizes", *, dtype: DataType = DataType.INT64) -> Tensor:
        """A known value with symbolic sizes (an object array); Bodies take it as a literal.

        No layer computes it, so only structural operands may be it.
        """
        value = np.asarray(sizes, dtype=object)
        kind = TensorType(dtype, value.shape)
        return self._new_tensor(Tensor(self.unique(name), kind, value=value))

    def add_layer(
        self,
        operator: str | Operator,
        inputs: Sequence[Tensor | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str = "",
        outputs: Sequence[str] | int = 1,
        origin: Sequence[str] = (),
        cause: Cause | None = None,
    ) -> Layer:
        """Apply an operator. Raises NetworkError or InferenceError naming the layer."""
        row = operator_named(operator) if isinstance(operator, str) else operator
        name = self.unique_layer(name or row.name)
        place = f"{row.name} '{name}'"
        full = row.complete(attributes or {}, place=place)
        for t in inputs:
            if t is not None and self.tensors.get(t.name) is not t:
                raise NetworkError(f"tensor '{t.name}' is not of this network", place=place)
        names = (
            [
                self.unique(f"{name}_out{i}" if outputs > 1 else f"{name}_out")
                for i in range(outputs)
            ]
            if isinstance(outputs, int)
            else list(outputs)
        )
        types, values = infer_node(
            row,
            full,
            tuple(t.type if t else None for t in inputs),
            tuple(t.value if t else None for t in inputs),
            len(names),
            names=tuple(names),
            place=place,
        )
        where = self._place()
        layer = Layer(name, row, full, list(inputs), [], tuple(origin), cause, place=where)
        made = [
            Tensor(n, t, producer=layer, value=v)
            for n, t, v in zip(names, types, values, strict=False)
        ]
        return self._insert(layer, made)

    def mark_output(self, tensor: Tensor) -> None:
        """Make a tensor an output of the network: no fusion may swallow it."""
        if not tensor.is_network_output:
            tensor.is_network_output = True
            self.outputs.append(tensor)

    def unmark_output(self, tensor: Tensor) -> None:
        """Undo ``mark_output``."""
        if tensor.is_network_output:
            tensor.is_network_output = False
            self.outputs.remove(tensor)

    # -- whole network --------------------------------------------------------------------
    def verify(self) -> None:
        """Raise NetworkError if any link, type or order is inconsistent."""
        # One tensor may have as many users as there are layers: no list is searched.
        readers = {(t.name, id(u)) for t in self.tensors.values() for u in t.users}
        for layer in self.layers:
            for t in layer.inputs:
                if t is not None and (
                    self.tensors.get(t.name) is not t or (t.name, id(layer)) not in readers
                ):
                    raise NetworkError(f"its input '{t.name}' is not linked", place=layer.name)
            for t in layer.outputs:
                if self.tensors.get(t.name) is not t or t.producer is not layer:
                    raise NetworkError(f"its output '{t.name}' is not linked", place=layer.name)
            want = layer.body.output_types
            have = tuple(t.type for t in layer.outputs)
            if want != have:
                raise NetworkError(
                    f"outputs are {have}, its operator gives {want}", place=layer.name
                )
        for t in self.tensors.values():
            for u in t.users:
                if t not in u.inputs:
                    raise NetworkError(f"'{u.name}' does not read it", place=t.name)
            if t.producer is None and t.value is None and not t.is_network_input:
                raise NetworkError("nothing produces it", place=t.name)
        if not self.outputs:
            raise NetworkError("no tensor is marked as output", place=self.name)

    def clone(self) -> NetworkDefinition:
        """An independent copy; weights are shared (they are never written)."""
        copy = NetworkDefinition(self.name)
        copy.model_nodes, copy.absorbed = self.model_nodes, dict(self.absorbed)
        copy.warnings = self.warnings
        copy._inserted = self._inserted
        twin: dict[str, Tensor] = {}
        for name, t in self.tensors.items():
            twin[name] = Tensor(name, t.type, weight=t.weight, value=t.value)
            twin[name].is_network_input = t.is_network_input
            twin[name].is_network_output = t.is_network_output
        for name, x in self._layers.items():
            y = Layer(
                name,
                x.operator,
                x.attributes,
                [twin[t.name] if t else None for t in x.inputs],
                [twin[t.name] for t in x.outputs],
                x.origin,
                x.cause,
                x.fused,
                x.place,
            )
            for t in y.outputs:
                t.producer = y
            copy._layers[name] = y
        for name, t in self.tensors.items():
            twin[name].users = [copy._layers[u.name] for u in t.users]
        copy.tensors = twin
        copy.inputs = [twin[t.name] for t in self.inputs]
        copy.outputs = [twin[t.name] for t in self.outputs]
        return copy

    def adopt(self, other: NetworkDefinition) -> None:
        """Take over everything of ``other`` but its name, where this network is still empty.

        ``other`` must not be used afterwards.
        """
        if self.tensors:
            raise NetworkError(
                f"it already has {len(self.tensors)} tensors and {len(self._layers)} layers",
                place=self.name,
                remedy="parse into a new NetworkDefinition",
            )
        name = self.name or other.name
        vars(self).update(vars(other))
        self.name = name

    def bind(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Values of the size symbols at these input shapes. Raises NetworkError on a misfit."""
        ranked = (t for t in self.inputs if not isinstance(t.type, HostType))
        return Body(tuple(BodyInput(t.name, t.type) for t in ranked), (), ()).bind(shapes)

    def run(self, inputs: Mapping[str, Value], *, keep: bool = False) -> dict[str, Value]:
        """Reference evaluation of the whole network (slow): outputs, or every tensor.

        Raises NetworkError if an input is missing, unknown, or of another type or shape.
        """
        self._check_inputs(inputs)
        ranked = [t.name for t in self.inputs if not isinstance(t.type, HostType)]
        bindings = self.bind({name: np.shape(inputs[name]) for name in ranked})
        values: dict[str, Value] = dict(inputs)
        values.update({t.name: t.weight.array for t in self.tensors.values() if t.weight})
        for layer in self.layers:
            body, operands = layer.body.substitute(bindings), layer.operands
            given = {i.name: values[t.name] for i, t in zip(body.inputs, operands, strict=True)}
            results = interpret(body, given) if layer.on_host else body.evaluate(given)
            for o, t in zip(body.outputs, layer.outputs, strict=True):
                values[t.name] = results[o]
                bind_sizes(t.type, results[o], bindings)
        return values if keep else {t.name: values[t.name] for t in self.outputs}

    def _check_inputs(self, inputs: Mapping[str, Value]) -> None:
        known = {t.name: t for t in self.inputs}
        for name in (*known, *inputs):
            if name not in known or name not in inputs:
                problem = "is no input of this network" if name in inputs else "is missing"
                raise NetworkError(
                    f"input '{name}' {problem}",
                    place=self.name,
                    remedy=f"inputs: {', '.join(known) or 'none'}",
                )
            if isinstance(known[name].type, SequenceType | OptionalType):
                continue
            given = DataType.of(inputs[name])
            if given is not known[name].dtype:
                raise NetworkError(
                    f"input '{name}' is {known[name].dtype}, given {given}", place=self.name
                )

    def __str__(self) -> str:
        head = ", ".join(f"{t.name}: {t.type}" for t in self.inputs)
        tail = ", ".join(t.name for t in self.outputs)
        lines = "\n".join(f"  {x!r}" for x in self.layers)
        return f"network {self.name}({head}) -> {tail}:\n{lines}"


def _input_size(place: str, given: Any) -> Any:
    """A size as a number or symbolic; one that is left open (-1) is named after its place."""
    if isinstance(given, dimensions.SymbolicDim):
        return given
    if isinstance(given, str):
        return dimensions.symbol(given)
    size = index(given)
    name = re.sub(r"\W", "_", place)
    return size if size >= 0 else dimensions.symbol(name if name.isidentifier() else f"_{name}")
