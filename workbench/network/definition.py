"""NetworkDefinition: layers and tensors, edited only through its methods."""

from __future__ import annotations

import heapq
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from operator import index
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Array, Body, BodyInput, Operator, TensorType, infer_node
from workbench.datatypes import DataType
from workbench.errors import NetworkError
from workbench.network.graph import Cause, Layer, Tensor, Weight, close, frozen_array
from workbench.network.layer_api import LayerApi
from workbench.operators import operator_named


class NetworkDefinition(LayerApi):
    """A network: inputs, layers, marked outputs. A stage works on a ``clone()``.

    Every edit either succeeds and leaves the network valid, or raises NetworkError and changes
    nothing. ``layers`` is in topological order.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.tensors: dict[str, Tensor] = {}
        self._layers: dict[str, Layer] = {}
        self._order: list[Layer] | None = None
        self._inserted = 0
        self._standing_at: int | None = None
        self.model_nodes: tuple[str, ...] = ()
        self.absorbed: dict[str, str] = {}

    # -- reading --------------------------------------------------------------------------
    @property
    def layers(self) -> list[Layer]:
        """Every layer, producers first, otherwise in the order of insertion."""
        if self._order is None:
            self._order = self._sorted()
        return list(self._order)

    def layer(self, name: str) -> Layer:
        """The layer of this name. Raises NetworkError."""
        try:
            return self._layers[name]
        except KeyError:
            raise NetworkError(f"no layer is named '{name}'", place=self.name) from None

    def latest_layers(self, count: int) -> tuple[Layer, ...]:
        """The ``count`` layers that were added or renamed last, oldest first."""
        return tuple(islice(reversed(self._layers.values()), count))[::-1]

    def has_layer(self, name: str) -> bool:
        return name in self._layers

    def tensor(self, name: str) -> Tensor:
        """The tensor of this name. Raises NetworkError."""
        try:
            return self.tensors[name]
        except KeyError:
            raise NetworkError(f"no tensor is named '{name}'", place=self.name) from None

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Size symbols of the inputs."""
        names = (s for t in self.inputs for d in t.shape for s in sorted(dimensions.symbols_of(d)))
        return tuple(dict.fromkeys(names))

    def _sorted(self) -> list[Layer]:
        waiting = {
            layer.name: len({t.producer.name for t in layer.inputs if t and t.producer})
            for layer in self._layers.values()
        }
        ready = [(x.place, x.name) for x in self._layers.values() if not waiting[x.name]]
        heapq.heapify(ready)
        order: list[Layer] = []
        while ready:
            layer = self._layers[heapq.heappop(ready)[1]]
            order.append(layer)
            for user in dict.fromkeys(u for t in layer.outputs for u in t.users):
                waiting[user.name] -= 1
                if not waiting[user.name]:
                    heapq.heappush(ready, (user.place, user.name))
        if len(order) < len(self._layers):
            stuck = [n for n, k in waiting.items() if k > 0]
            raise NetworkError(f"layers form a cycle: {', '.join(stuck[:8])}", place=self.name)
        return order

    @contextmanager
    def standing_at(self, layer: Layer) -> Generator[None]:
        """Layers added meanwhile take ``layer``'s position in ``layers``, not the end."""
        before, self._standing_at = self._standing_at, layer.place[0]
        try:
            yield
        finally:
            self._standing_at = before

    # -- building -------------------------------------------------------------------------
    def add_input(self, name: str, dtype: DataType | str, shape: Sequence[Any]) -> Tensor:
        """A network input; a size may be a name (symbolic) or -1 (named after its place)."""
        sizes = tuple(_input_size(f"{name}_{axis}", d) for axis, d in enumerate(shape))
        tensor = self._new_tensor(Tensor(name, TensorType(DataType.of(dtype), sizes)))
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

    # -- editing --------------------------------------------------------------------------
    def replace_input(self, layer: Layer, index: int, tensor: Tensor | None) -> None:
        """Feed input ``index`` of a layer from another tensor (None: leave it out)."""
        old = layer.inputs[index]
        if old is tensor:
            return
        if layer.fused is not None:
            raise NetworkError("a fused layer's inputs are fixed", place=layer.name)
        layer.inputs[index] = tensor
        if old is not None and old not in layer.inputs:
            old.users.remove(layer)
        if tensor is not None and layer not in tensor.users:
            tensor.users.append(layer)
        layer.forget()
        self._order = None

    def replace_uses(self, old: Tensor, new: Tensor, *, keep_output: bool = False) -> None:
        """Every reader of ``old`` reads ``new`` instead; an output mark moves along.

        A marked output keeps its public name: ``new`` takes it over, unless ``new`` is itself an
        input, a constant, or an output, or ``keep_output`` says to leave the mark where it is.
        Raises NetworkError if the types differ, or if ``new`` is computed directly from ``old``.
        """
        moves_mark = old.is_network_output and not keep_output
        self._check_replaceable(old, new, moves_mark=moves_mark)
        for user in list(old.users):
            for i, t in enumerate(user.inputs):
                if t is old:
                    user.inputs[i] = new
            old.users.remove(user)
            if user not in new.users:
                new.users.append(user)
            user.forget()
        self._order = None
        if moves_mark:
            public = old.name
            self.outputs[self.outputs.index(old)] = new
            old.is_network_output, new.is_network_output = False, True
            self.rename_tensor(old, self.unique(f"{public}_replaced"))
            self.rename_tensor(new, public)

    def _check_replaceable(self, old: Tensor, new: Tensor, *, moves_mark: bool) -> None:
        if moves_mark and (new.is_network_input or new.is_constant or new.is_network_output):
            raise NetworkError(
                f"output '{old.name}' cannot become another name of '{new.name}'",
                place=self.name,
                remedy="keep an Identity layer between them",
            )
        if old.dtype is not new.dtype or not dimensions.may_equal(old.shape, new.shape):
            raise NetworkError(
                f"'{old.name}' is {old.type}, '{new.name}' is {new.type}",
                place=self.name,
                remedy="insert a Cast or a Reshape",
            )
        if new.producer is not None and new.producer in old.users:
            raise NetworkError(
                f"'{new.name}' is computed from '{old.name}': its layer would read itself",
                place=new.producer.name,
                remedy="replace the readers one by one with replace_input",
            )

    def rename_tensor(self, tensor: Tensor, name: str) -> None:
        """Give a tensor another, unused name."""
        if name in self.tensors:
            raise NetworkError(f"tensor name '{name}' is taken", place=self.name)
        del self.tensors[tensor.name]
        if tensor.producer is not None:
            layer = tensor.producer
            if layer.fused is not None:
                layer.fused = _renamed(layer.fused, tensor.name, name)
            layer.forget()
        for user in tensor.users:
            if user.fused is not None:
                user.fused = _renamed(user.fused, tensor.name, name)
            user.forget()
        tensor.name = name
        self.tensors[name] = tensor

    def rename_layer(self, layer: Layer, name: str) -> None:
        """Give a layer another, unused name."""
        if name in self._layers:
            raise NetworkError(f"layer name '{name}' is taken", place=self.name)
        del self._layers[layer.name]
        layer.name = name
        self._layers[name] = layer
        layer.forget()

    def remove_layer(self, layer: Layer) -> None:
        """Remove a layer whose outputs nobody reads. Raises NetworkError otherwise."""
        for t in layer.outputs:
            if t.users or t.is_network_output:
                who = ", ".join(u.name for u in t.users) or "the caller (it is a network output)"
                raise NetworkError(
                    f"its output '{t.name}' is still read by {who}", place=layer.name
                )
        for t in layer.outputs:
            del self.tensors[t.name]
        self._detach(layer)

    def remove_if_unread(self, tensor: Tensor) -> bool:
        """Drop a constant or known sizes that nobody reads; whether it was dropped."""
        if tensor.users or tensor.is_network_output or tensor.is_network_input or tensor.producer:
            return False
        return self.tensors.pop(tensor.name, None) is not None

    def remove_unused_constants(self) -> list[str]:
        """Drop constants and known sizes that nobody reads; returns their names."""
        dead = [
            t.name
            for t in self.tensors.values()
            if (t.is_constant or (t.producer is None and not t.is_network_input))
            and not t.users
            and not t.is_network_output
        ]
        for name in dead:
            del self.tensors[name]
        return dead

    def fuse(self, layers: Iterable[Layer], *, anchor: Layer | None, name: str = "") -> Layer:
        """Replace layers by one fused layer whose Body is those layers.

        Outputs are the tensors that are read outside or marked. Keeps the origins. Raises
        NetworkError if the group is not convex (a path leaves it and comes back).
        """
        group = dict.fromkeys(layers)
        if not group:
            raise NetworkError("there is nothing to fuse", place=self.name)
        if anchor is not None and anchor not in group:
            raise NetworkError("the anchor is not one of the fused layers", place=anchor.name)
        ordered = _producers_first(group)
        self._check_convex(group)
        outputs = tuple(
            t
            for x in ordered
            for t in x.outputs
            if t.is_network_output or any(u not in group for u in t.users) or not t.users
        )
        body, operands = close(ordered, outputs, anchor)
        origin = tuple(dict.fromkeys(o for x in ordered for o in x.origin))
        causes = [x.cause for x in ordered if x.cause is not None]
        keep = anchor or ordered[0]
        for x in ordered:
            for t in x.outputs:
                if t not in outputs:
                    del self.tensors[t.name]
            self._detach(x)
        fused = Layer(
            self.unique_layer(name or keep.name),
            None,
            {},
            list(operands),
            list(outputs),
            origin,
            causes[0] if causes and not origin else None,
            body,
            self._place(max(x.place[0] for x in ordered)),
        )
        for t in outputs:
            t.producer = fused
            t.users = [u for u in t.users if u not in group]
        self._layers[fused.name] = fused
        for t in operands:
            if fused not in t.users:
                t.users.append(fused)
        self._order = None
        return fused

    def add_fused(
        self,
        body: Any,
        operands: Sequence[Tensor],
        outputs: Sequence[str],
        *,
        name: str,
        origin: Sequence[str] = (),
        cause: Cause | None = None,
    ) -> Layer:
        """A fused layer from a Body written by hand (a plugin, a plan, a test)."""
        layer = Layer(
            self.unique_layer(name),
            None,
            {},
            list(operands),
            [],
            tuple(origin),
            cause,
            body,
            self._place(),
        )
        made = [
            Tensor(n, body.types[o], producer=layer)
            for n, o in zip(outputs, body.outputs, strict=True)
        ]
        return self._insert(layer, made)

    def _check_convex(self, group: Mapping[Layer, object]) -> None:
        users = {x: [u for t in x.outputs for u in t.users] for x in group}
        exits = [x for x in group if any(u not in group for u in users[x])]
        last_ones = [x for x in group if not any(u in group for u in users[x])]
        if len(last_ones) == 1 and exits in ([], last_ones):
            return  # A path that leaves by the only last layer and returns would be a cycle.
        outside = [u for x in exits for t in x.outputs for u in t.users if u not in group]
        position = {x.name: i for i, x in enumerate(self.layers)}
        last = max(position[x.name] for x in group)
        seen: set[str] = set()
        while outside:
            x = outside.pop()
            if x.name in seen or position[x.name] > last:
                continue
            seen.add(x.name)
            for t in x.outputs:
                for u in t.users:
                    if u in group:
                        raise NetworkError(
                            f"fusing would form a cycle through '{x.name}'", place=u.name
                        )
                    outside.append(u)

    # -- whole network --------------------------------------------------------------------
    def verify(self) -> None:
        """Raise NetworkError if any link, type or order is inconsistent."""
        for layer in self.layers:
            for t in layer.inputs:
                if t is not None and (self.tensors.get(t.name) is not t or layer not in t.users):
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
        return Body(tuple(BodyInput(t.name, t.type) for t in self.inputs), (), ()).bind(shapes)

    def run(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Reference evaluation of the whole network (slow): outputs, or every tensor.

        Raises NetworkError if an input is missing, unknown, or of another type or shape.
        """
        self._check_inputs(inputs)
        bindings = self.bind({name: np.shape(value) for name, value in inputs.items()})
        values: dict[str, Array] = dict(inputs)
        values.update({t.name: t.weight.array for t in self.tensors.values() if t.weight})
        for layer in self.layers:
            body, operands = layer.body.substitute(bindings), layer.operands
            given = {i.name: values[t.name] for i, t in zip(body.inputs, operands, strict=True)}
            results = body.evaluate(given)
            for o, t in zip(body.outputs, layer.outputs, strict=True):
                values[t.name] = results[o]
        return values if keep else {t.name: values[t.name] for t in self.outputs}

    def _check_inputs(self, inputs: Mapping[str, Array]) -> None:
        known = {t.name: t for t in self.inputs}
        for name in (*known, *inputs):
            if name not in known or name not in inputs:
                problem = "is no input of this network" if name in inputs else "is missing"
                raise NetworkError(
                    f"input '{name}' {problem}",
                    place=self.name,
                    remedy=f"inputs: {', '.join(known) or 'none'}",
                )
            given = DataType.of(inputs[name])
            if given is not known[name].dtype:
                raise NetworkError(
                    f"input '{name}' is {known[name].dtype}, given {given}", place=self.name
                )

    def unique(self, name: str) -> str:
        """``name``, or ``name_2``, ``name_3``... while it is taken by a tensor."""
        return _unused(name, self.tensors)

    def unique_layer(self, name: str) -> str:
        """As ``unique``, among layers."""
        return _unused(name, self._layers)

    def __str__(self) -> str:
        head = ", ".join(f"{t.name}: {t.type}" for t in self.inputs)
        tail = ", ".join(t.name for t in self.outputs)
        lines = "\n".join(f"  {x!r}" for x in self.layers)
        return f"network {self.name}({head}) -> {tail}:\n{lines}"

    # -- inner ----------------------------------------------------------------------------
    def _new_tensor(self, tensor: Tensor) -> Tensor:
        if not tensor.name or tensor.name in self.tensors:
            raise NetworkError(f"tensor name '{tensor.name}' is empty or taken", place=self.name)
        self.tensors[tensor.name] = tensor
        return tensor

    def _place(self, position: int | None = None) -> tuple[int, int]:
        self._inserted += 1
        if position is None:
            position = self._standing_at
        return (self._inserted if position is None else position, self._inserted)

    def _insert(self, layer: Layer, made: list[Tensor]) -> Layer:
        names = [t.name for t in made]
        for name in names:
            if not name or name in self.tensors or names.count(name) > 1:
                raise NetworkError(f"tensor name '{name}' is empty or taken", place=layer.name)
        for t in made:
            self._new_tensor(t)
        layer.outputs = made
        self._layers[layer.name] = layer
        for t in layer.inputs:
            # A new layer is the last user of what it reads: no need to search them all.
            if t is not None and (not t.users or t.users[-1] is not layer):
                t.users.append(layer)
        self._order = None
        return layer

    def _detach(self, layer: Layer) -> None:
        for t in layer.inputs:
            if t is not None and layer in t.users:
                t.users.remove(layer)
        del self._layers[layer.name]
        self._order = None


def _input_size(place: str, given: Any) -> Any:
    """A size as a number or symbolic; one that is left open (-1) is named after its place."""
    if isinstance(given, dimensions.SymbolicDim):
        return given
    if isinstance(given, str):
        return dimensions.symbol(given)
    size = index(given)
    name = re.sub(r"\W", "_", place)
    return size if size >= 0 else dimensions.symbol(name if name.isidentifier() else f"_{name}")


def _unused(name: str, taken: Mapping[str, object]) -> str:
    if name not in taken:
        return name
    k = 2
    while f"{name}_{k}" in taken:
        k += 1
    return f"{name}_{k}"


def _producers_first(group: Mapping[Layer, object]) -> tuple[Layer, ...]:
    """The group in an order that depends on its structure alone: depth first from its last."""
    inner = {t.producer for x in group for t in x.inputs if t is not None and t.producer in group}
    done: dict[Layer, None] = {}
    todo = [(x, False) for x in reversed([x for x in group if x not in inner])]
    while todo:
        x, ready = todo.pop()
        if x in done:
            continue
        if ready:
            done[x] = None
            continue
        todo.append((x, True))
        before = (t.producer for t in reversed(x.inputs) if t is not None)
        todo.extend((p, False) for p in before if p is not None and p in group and p not in done)
    return tuple(done)


def _renamed(body: Body, old: str, new: str) -> Body:
    """The Body with one value renamed, unless it has another of the new name."""
    values = {i.name for i in body.inputs} | {v for n in body.nodes for v in n.outputs}
    if old not in values or new in values:
        return body

    def name(v: str) -> str:
        return new if v == old else v

    return replace(
        body,
        inputs=tuple(replace(i, name=name(i.name)) for i in body.inputs),
        nodes=tuple(
            replace(
                n,
                inputs=tuple(map(name, n.inputs)),
                outputs=tuple(map(name, n.outputs)),
            )
            for n in body.nodes
        ),
        outputs=tuple(map(name, body.outputs)),
    )
