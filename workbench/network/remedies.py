"""Edits of a network as frozen values: what a refused rewrite's remedy is made of.

Layers and tensors are named, so that an edit also fits another copy of the network. Each either
succeeds and leaves the network valid, or raises NetworkError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from workbench.body import SHUFFLES
from workbench.datatypes import DataType
from workbench.dimensions import is_static
from workbench.errors import NetworkError
from workbench.network.definition import NetworkDefinition
from workbench.network.graph import Cause, Layer, Tensor, Weight, close
from workbench.network.substitution import (
    computable,
    copy_of,
    layers_between,
    stand_in,
    substitute,
)
from workbench.records import Remedy

EDIT = "Edit"
"""The ``Cause.stage`` of layers that a person's edit made; no rewrite merges them with others."""

RISING = frozenset(
    {
        *("Relu", "Clip", "LeakyRelu", "Elu", "Celu", "Sigmoid", "HardSigmoid", "Tanh"),
        *("Softplus", "Softsign", "Erf", "Exp", "Floor", "Ceil", "Round", "Atan"),
    }
)
"""Functions that never fall as their argument rises: they also commute with a maximum."""


@dataclass(frozen=True)
class UnmarkOutput:
    """The tensor is no output of the network any more."""

    tensor: str

    def apply(self, network: NetworkDefinition) -> None:
        tensor = network.tensor(self.tensor)
        if not tensor.is_network_output:
            raise NetworkError(f"'{self.tensor}' is no network output", place=network.name)
        if len(network.outputs) == 1:
            raise NetworkError("it is the only output", place=self.tensor)
        network.unmark_output(tensor)


@dataclass(frozen=True)
class MarkOutput:
    """The tensor becomes an output of the network."""

    tensor: str

    def apply(self, network: NetworkDefinition) -> None:
        tensor = network.tensor(self.tensor)
        if tensor.producer is None:
            raise NetworkError("no layer computes it", place=self.tensor)
        network.mark_output(tensor)


@dataclass(frozen=True)
class Recompute:
    """The readers get a copy of what computes the tensor: from ``inputs`` up to it.

    readers: names of layers, or of the model nodes that they stand for.
    """

    tensor: str
    readers: tuple[str, ...]
    inputs: tuple[str, ...]

    def apply(self, network: NetworkDefinition) -> None:
        tensor = network.tensor(self.tensor)
        wanted = set(self.readers)
        readers = [u for u in tensor.users if u.name in wanted or wanted & set(u.origin)]
        if not readers or tensor.producer is None:
            who = ", ".join(self.readers)
            raise NetworkError(f"{who} does not read '{self.tensor}'", place=network.name)
        copies: dict[Tensor, Tensor] = {}
        reason = f"recomputed for {', '.join(r.name for r in readers)}"
        for layer in layers_between(tensor, {network.tensor(n) for n in self.inputs}):
            given = [copies.get(t, t) if t else None for t in layer.inputs]
            with network.standing_at(layer):
                again = copy_of(network, layer, given, name=f"{layer.name}_again")
            again.origin, again.cause = layer.origin, Cause(EDIT, reason)
            copies.update(zip(layer.outputs, again.outputs, strict=True))
        for reader in readers:
            substitute(network, reader, [copies.get(t, t) if t else None for t in reader.inputs])


@dataclass(frozen=True)
class StoreConstant:
    """The tensor, computed from constants alone, is computed now and stored as a weight."""

    tensor: str

    def apply(self, network: NetworkDefinition) -> None:
        tensor = network.tensor(self.tensor)
        if not computable(tensor):
            raise NetworkError("it is not computed from constants alone", place=self.tensor)
        if tensor.is_network_output:
            raise NetworkError("it is a network output", place=self.tensor)
        layers = layers_between(tensor, set())
        body, operands = close(layers, (tensor,), None)
        sources = tuple(t.weight for t in operands if t.weight is not None)
        weight = Weight.derive(network.unique(f"{tensor.name}_stored"), body, sources)
        stored = network.add_weight(weight)
        network.replace_uses(tensor, stored)
        for layer in reversed(layers):
            if any(t.users or t.is_network_output for t in layer.outputs):
                continue
            network.remove_layer(layer)
            for t in layer.inputs:
                if t is not None:
                    network.remove_if_unread(t)
            for node in layer.origin:
                network.absorbed[node] = f"weight {stored.name} (stored by an edit)"


@dataclass(frozen=True)
class CastOperand:
    """A layer reads one of its operands through a Cast. to: a DataType's value."""

    layer: str
    index: int
    to: str

    def apply(self, network: NetworkDefinition) -> None:
        layer, tensor = _operand(network, self.layer, self.index)
        with network.standing_at(layer):
            cast = network.add_layer(
                "Cast",
                [tensor],
                {"to": DataType(self.to)},
                name=f"{self.layer}_cast{self.index}",
                cause=Cause(EDIT, f"{self.layer} reads {self.to}"),
            )
        _read_through(network, layer, self.index, cast)


@dataclass(frozen=True)
class ExpandOperand:
    """A layer reads one of its operands expanded to the shape of another tensor."""

    layer: str
    index: int
    like: str

    def apply(self, network: NetworkDefinition) -> None:
        layer, tensor = _operand(network, self.layer, self.index)
        shape = network.tensor(self.like).shape
        name = f"{self.layer}_shape{self.index}"
        known = is_static(shape)
        sizes = (
            network.constant(np.array(shape, np.int64), name)
            if known
            else network.sizes(list(shape), name)
        )
        with network.standing_at(layer):
            wide = network.add_layer(
                "Expand",
                [tensor, sizes],
                name=f"{self.layer}_expand{self.index}",
                cause=Cause(EDIT, f"in the shape of {self.like}"),
            )
        _read_through(network, layer, self.index, wide)


@dataclass(frozen=True)
class ReadInstead:
    """A layer reads another tensor as one of its operands."""

    layer: str
    index: int
    tensor: str

    def apply(self, network: NetworkDefinition) -> None:
        layer, old = _operand(network, self.layer, self.index)
        substitute(network, layer, _with(layer, self.index, network.tensor(self.tensor)))
        network.remove_if_unread(old)


@dataclass(frozen=True)
class SetAttribute:
    """A layer's attribute gets another value."""

    layer: str
    name: str
    value: int | float | str

    def apply(self, network: NetworkDefinition) -> None:
        layer = network.layer(self.layer)
        if layer.operator is None:
            raise NetworkError("a fused layer has no attributes", place=layer.name)
        substitute(network, layer, layer.inputs, {**layer.attributes, self.name: self.value})


@dataclass(frozen=True)
class ZeroBias:
    """A product without a bias gets one of zeros."""

    layer: str

    def apply(self, network: NetworkDefinition) -> None:
        layer = network.layer(self.layer)
        if layer.op not in ("Conv", "ConvTranspose", "Gemm") or layer.get_input(2) is not None:
            raise NetworkError("it takes no bias, or has one", place=layer.name)
        out = layer.outputs[0]
        zeros = np.zeros(out.shape[1], out.dtype.numpy)
        bias = network.constant(zeros, f"{layer.name}_zeros")
        substitute(network, layer, [*layer.inputs[:2], bias])


@dataclass(frozen=True)
class SwapLayers:
    """Two layers in a row change places: a function of one element goes before what moves them."""

    first: str
    second: str

    def apply(self, network: NetworkDefinition) -> None:
        mover, function = network.layer(self.first), network.layer(self.second)
        problem = unswappable(mover, function)
        if problem:
            raise NetworkError(problem, place=f"{self.first}, {self.second}")
        assert mover.operator is not None and function.operator is not None
        between = mover.outputs[0]
        with network.standing_at(mover):
            given = [mover.inputs[0] if t is between else t for t in function.inputs]
            early = copy_of(network, function, given, name=f"{function.name}_swapped")
            moved = [early.outputs[0], *mover.inputs[1:]]
            late = copy_of(network, mover, moved, name=f"{mover.name}_swapped")
        stand_in(network, function, late)
        network.remove_layer(mover)
        for layer, name in ((early, function.name), (late, mover.name)):
            network.rename_layer(layer, name)


GraphEdits = (
    UnmarkOutput
    | MarkOutput
    | Recompute
    | StoreConstant
    | CastOperand
    | ExpandOperand
    | ReadInstead
    | SetAttribute
    | ZeroBias
    | SwapLayers
)
EDITS: Mapping[str, type[GraphEdits]] = {
    kind.__name__: kind
    for kind in (
        *(UnmarkOutput, MarkOutput, Recompute, StoreConstant, CastOperand),
        *(ExpandOperand, ReadInstead, SetAttribute, ZeroBias, SwapLayers),
    )
}
"""Every edit, by name. To add one: a class, and its lines here."""


def edits_of(remedy: Remedy) -> tuple[GraphEdits, ...]:
    """A remedy's edits, as the classes that they are."""
    return tuple(e for e in remedy.edits if isinstance(e, GraphEdits))


def edit_to_json(edit: GraphEdits) -> dict[str, Any]:
    """An edit as JSON values."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(edit).items()}
    return {"edit": type(edit).__name__, **values}


def edit_from_json(data: Mapping[str, Any]) -> GraphEdits:
    """What ``edit_to_json`` wrote. Raises NetworkError for an unknown edit or field."""
    kind = EDITS.get(data.get("edit", ""))
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "edit"
    }
    if kind is None or set(values) != {f.name for f in fields(kind)}:
        raise NetworkError(f"no edit is written as {dict(data)}", remedy=f"edits: {list(EDITS)}")
    return kind(**values)


def not_commuting(mover: Layer, function: Layer) -> str:
    """Why a function of one element may not go before a layer; empty where it may."""
    if mover.operator is None or function.operator is None:
        return "one of them is fused"
    read = [t for t in function.inputs if t is not None and t.value is None]
    if not function.operator.pointwise or len(read) != 1:
        return f"{function.op} '{function.name}' is no function of one element"
    if any(t.value.size > 1 for t in function.inputs if t is not None and t.value is not None):
        return f"{function.op} '{function.name}' has an operand that must move along"
    if mover.op == "MaxPool" and len(mover.outputs) == 1:
        rises = function.op in RISING and function.attributes.get("alpha", 0) >= 0
        return "" if rises else f"{function.op} does not commute with a maximum"
    return "" if mover.op in SHUFFLES else f"{mover.op} does more than move elements"


def unswappable(mover: Layer, function: Layer) -> str:
    """Why the two layers may not change places; empty where they may."""
    between = mover.outputs[0]
    if between not in function.inputs:
        return f"{function.op} '{function.name}' does not read '{between.name}'"
    if between.is_network_output or len(between.users) > 1:
        return f"'{between.name}' is read elsewhere too"
    return not_commuting(mover, function)


# -- inner -----------------------------------------------------------------------------------
def _operand(network: NetworkDefinition, layer: str, index: int) -> tuple[Layer, Tensor]:
    found = network.layer(layer)
    tensor = found.get_input(index)
    if tensor is None:
        raise NetworkError(f"it has no operand {index}", place=layer)
    return found, tensor


def _read_through(network: NetworkDefinition, layer: Layer, index: int, between: Layer) -> None:
    """A layer reads an operand through a new layer, which goes again where that does not fit."""
    try:
        substitute(network, layer, _with(layer, index, between.outputs[0]))
    except NetworkError:
        network.remove_layer(between)
        for t in between.inputs:
            if t is not None:
                network.remove_if_unread(t)
        raise


def _with(layer: Layer, index: int, tensor: Tensor) -> list[Tensor | None]:
    return [tensor if i == index else t for i, t in enumerate(layer.inputs)]
