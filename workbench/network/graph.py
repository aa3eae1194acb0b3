"""Tensor, Layer, Weight: the parts of a network. Edited only through NetworkDefinition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from workbench.body import CONSTANT, Array, Body, BodyInput, Literal, Node, Operator, TensorType
from workbench.datatypes import DataType
from workbench.dimensions import Shape

SMALL = 1024
"""Weights of up to this many elements are compared by value."""


@dataclass(frozen=True)
class Recipe:
    """How a derived weight comes from others: ``body`` over ``sources``, in the inputs' order."""

    body: Body
    sources: tuple[Weight, ...]


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant's value. ``recipe`` is None for the model's own weights.

    The array is never written again: a caller's later change of its array changes nothing.
    """

    name: str
    array: Array
    recipe: Recipe | None = None

    @classmethod
    def derive(cls, name: str, body: Body, sources: tuple[Weight, ...]) -> Weight:
        """The weight that ``body`` computes, typed, from ``sources``."""
        inputs = {i.name: s.array for i, s in zip(body.inputs, sources, strict=True)}
        value = body.evaluate(inputs)[body.outputs[0]]
        return cls(name, frozen_array(value), Recipe(body, sources))

    @cached_property
    def digest(self) -> object:
        """Equal for weights of the same values, where these are few; else this weight's own."""
        if self.array.size > SMALL:
            return self
        return self.array.dtype, self.array.shape, self.array.tobytes()

    @property
    def model_weights(self) -> tuple[str, ...]:
        """Names of the model's own weights that this one stands for."""
        if self.recipe is None:
            return (self.name,)
        names = (n for s in self.recipe.sources for n in s.model_weights)
        return tuple(dict.fromkeys(names))


def frozen_array(array: Any) -> Array:
    """A C-contiguous read-only array: a copy if the caller could still write it."""
    given = np.asarray(array)
    if given.flags.c_contiguous and not _writeable(given):
        return given
    own = np.array(given, order="C", copy=True)
    own.flags.writeable = False
    return own


def _writeable(array: Array) -> bool:
    """Whether the memory can be written through this array, or through one that it views."""
    view: Any = array
    while isinstance(view, np.ndarray):
        if view.flags.writeable:
            return True
        view = view.base
    return False


@dataclass(frozen=True)
class Cause:
    """Why a layer that is not the model's exists."""

    stage: str
    reason: str


class Tensor:
    """A value of the network: an input, a constant, or a layer's output.

    value: what is known of it at build time: a weight's array, or an object array of symbolic
    sizes; None when it is only known at run time.
    """

    def __init__(
        self,
        name: str,
        type_: TensorType,
        *,
        producer: Layer | None = None,
        weight: Weight | None = None,
        value: Array | None = None,
    ) -> None:
        self.name = name
        self.type = type_
        self.producer = producer
        self.users: list[Layer] = []
        self.weight = weight
        self.value = weight.array if weight is not None else value
        self.is_network_input = False
        self.is_network_output = False

    @property
    def dtype(self) -> DataType:
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def is_constant(self) -> bool:
        """Whether it is a stored constant (a weight)."""
        return self.weight is not None

    @property
    def content(self) -> object:
        """Equal for tensors that surely hold the same: itself, few known values, known sizes."""
        if self.weight is not None:
            return self.weight.digest
        if self.value is None:
            return self
        return self.dtype, self.value.shape, tuple(self.value.reshape(-1).tolist())

    def __repr__(self) -> str:
        return f"Tensor({self.name}: {self.type})"


@dataclass(eq=False)
class Layer:
    """One step of the network: an operator applied, or a fused Body.

    origin: names of the model nodes that it stands for. cause: why it was inserted, else None.
    inputs: tensors, None where an optional input is absent; for a fused layer, aligned with its
    Body's inputs. place: where it stands among layers that are ready at once (position in the
    model, then order of insertion).
    """

    name: str
    operator: Operator | None
    attributes: Mapping[str, Any]
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    origin: tuple[str, ...] = ()
    cause: Cause | None = None
    fused: Body | None = None
    place: tuple[int, int] = (0, 0)
    _cached: tuple[Body, tuple[Tensor, ...]] | None = field(default=None, repr=False)
    _on_host: bool | None = field(default=None, repr=False)
    _reads: tuple[object, ...] | None = field(default=None, repr=False)

    @property
    def op(self) -> str:
        """Operator name; for a fused layer, that of its anchor, or ``Pointwise``."""
        if self.operator is not None:
            return self.operator.key
        assert self.fused is not None
        anchor = self.fused.anchor_node
        return anchor.op if anchor is not None else "Pointwise"

    @property
    def is_fused(self) -> bool:
        return self.fused is not None

    @property
    def type(self) -> str:
        """TensorRT's LayerType name."""
        if self.operator is not None:
            return self.operator.layer_type
        assert self.fused is not None
        anchor = self.fused.anchor_node
        return anchor.operator.layer_type if anchor is not None else "ELEMENTWISE"

    @property
    def reads(self) -> tuple[object, ...]:
        """The ``content`` of its operands: equal for layers that read the same."""
        if self._reads is None:
            self._reads = tuple(None if t is None else t.content for t in self.inputs)
        return self._reads

    @property
    def on_host(self) -> bool:
        """Whether only the host runs it, value by value, and no rewrite looks inside.

        So it is where it touches values that are no tensors of numbers, where its operator says
        so, and where a value that is only known at run time decides the shape of its output.
        """
        if self._on_host is None:
            self._on_host = self._needs_host()
        return self._on_host

    def _needs_host(self) -> bool:
        row = self.operator
        if row is None:
            return False
        if row.host or any(t.type.on_host for t in (*self.inputs, *self.outputs) if t is not None):
            return True
        return row.open is not None and any(
            t is not None and t.value is None and i in row.structural
            for i, t in enumerate(self.inputs)
        )

    @property
    def operator_names(self) -> tuple[str, ...]:
        """Every operator inside, in order."""
        return (self.operator.key,) if self.operator else self.body.operator_names

    @property
    def body(self) -> Body:
        """The layer as a Body; its inputs are ``operands``, in order."""
        return self._closed()[0]

    @property
    def operands(self) -> tuple[Tensor, ...]:
        """The tensors that the Body's inputs stand for."""
        return self._closed()[1]

    @property
    def precision(self) -> DataType:
        """The type in which the layer was built to work."""
        return self.body.compute_type

    def get_input(self, index: int) -> Tensor | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def forget(self) -> None:
        """Drop what was computed of the layer, after an edit."""
        self._cached = self._on_host = self._reads = None

    def _closed(self) -> tuple[Body, tuple[Tensor, ...]]:
        if self.fused is not None:
            return self.fused, tuple(t for t in self.inputs if t is not None)
        if self._cached is None:
            self._cached = close((self,), tuple(self.outputs), self)
        return self._cached

    def __repr__(self) -> str:
        ins = ", ".join(t.name if t else "-" for t in self.inputs)
        outs = ", ".join(f"{t.name}: {t.type}" for t in self.outputs)
        return f"{outs} = {'+'.join(self.operator_names)}({ins})"


def is_literal(tensor: Tensor, operator: Operator, index: int) -> bool:
    """Whether this operand is written into a Body as a literal instead of being an input."""
    if tensor.value is None or tensor.type.on_host:
        return False
    if index in operator.structural:
        return True
    return operator.pointwise and tensor.value.size == 1


def close(
    layers: tuple[Layer, ...], outputs: tuple[Tensor, ...], anchor: Layer | None
) -> tuple[Body, tuple[Tensor, ...]]:
    """The Body of ``layers`` (in topological order), and the tensors of its inputs.

    Values are named after their tensors; the inner values of an already fused layer are
    prefixed with its name. ``outputs`` fixes the Body's outputs.
    """
    made = {t.name for layer in layers for t in layer.outputs}
    taken = made | {t.name for layer in layers for t in layer.inputs if t is not None}
    inputs: dict[str, tuple[BodyInput, Tensor]] = {}
    nodes: list[Node] = []
    literals: dict[str, str] = {}
    anchor_index: int | None = None

    def operand(tensor: Tensor | None, operator: Operator | None, index: int) -> str:
        if tensor is None:
            return ""
        if tensor.name in made:
            return tensor.name
        # Before the inputs: one constant may be an operand's data and its axes, too.
        if operator is not None and is_literal(tensor, operator, index):
            if tensor.name not in literals:
                literals[tensor.name] = _inner_name(f"{tensor.name}'", taken)
                assert tensor.value is not None
                value = Literal.of(tensor.value, tensor.dtype)
                nodes.append(Node(CONSTANT, (), (literals[tensor.name],), {"value": value}))
            return literals[tensor.name]
        if tensor.name in inputs:
            return tensor.name
        inputs[tensor.name] = (BodyInput(tensor.name, tensor.type, tensor.is_constant), tensor)
        return tensor.name

    for layer in layers:
        if layer.operator is not None:
            names = tuple(operand(t, layer.operator, i) for i, t in enumerate(layer.inputs))
            if layer is anchor:
                anchor_index = len(nodes) if not layer.operator.pointwise else None
            nodes.append(
                Node(layer.operator, names, tuple(t.name for t in layer.outputs), layer.attributes)
            )
            continue
        body = layer.fused
        assert body is not None
        rename: dict[str, str] = {"": ""}
        for i, t in zip(body.inputs, layer.inputs, strict=True):
            rename[i.name] = operand(t, None, 0)
        for o, t in zip(body.outputs, layer.outputs, strict=True):
            rename[o] = t.name
        if layer is anchor and body.anchor is not None:
            anchor_index = len(nodes) + body.anchor
        for n in body.nodes:
            for v in n.outputs:
                if v not in rename:
                    rename[v] = _inner_name(v if "/" in v else f"{layer.name}/{v}", taken)
            nodes.append(
                Node(
                    n.operator,
                    tuple(rename[v] for v in n.inputs),
                    tuple(rename[v] for v in n.outputs),
                    n.attributes,
                )
            )
    ordered = tuple(inputs.values())
    body = Body(
        tuple(i for i, _ in ordered), tuple(nodes), tuple(t.name for t in outputs), anchor_index
    )
    return body, tuple(t for _, t in ordered)


def _inner_name(name: str, taken: set[str]) -> str:
    """``name``, primed while another value of the Body has it; marks it as taken."""
    while name in taken:
        name += "'"
    taken.add(name)
    return name
