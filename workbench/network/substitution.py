"""A layer in place of another: copies, substitutes, and what lies between tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.dimensions import is_static
from workbench.errors import NetworkError
from workbench.network.definition import NetworkDefinition
from workbench.network.graph import Layer, Tensor

MOST_COMPUTED = 64
"""Layers in an expression of constants that an edit would compute."""


def computable(tensor: Tensor) -> bool:
    """Whether a few layers compute the tensor from constants alone, the same way every time."""
    if tensor.producer is None:
        return False
    todo, seen = [tensor.producer], set[Layer]()
    while todo:
        layer = todo.pop()
        if layer in seen:
            continue
        seen.add(layer)
        if len(seen) > MOST_COMPUTED:
            return False
        if layer.operator is not None and not layer.operator.deterministic:
            return False
        for t in layer.inputs:
            if t is None or t.is_constant:
                continue
            if t.producer is None:
                return False
            todo.append(t.producer)
    return all(is_static(t.shape) for t in tensor.producer.outputs)


def layers_between(tensor: Tensor, inputs: set[Tensor]) -> tuple[Layer, ...]:
    """The layers on the paths from ``inputs`` (or constants, or network inputs) to a tensor."""
    assert tensor.producer is not None
    order: dict[Layer, None] = {}
    todo = [(tensor.producer, False)]
    while todo:
        layer, ready = todo.pop()
        if layer in order:
            continue
        if ready:
            order[layer] = None
            continue
        todo.append((layer, True))
        before = [t for t in layer.inputs if t is not None and t not in inputs]
        todo.extend((t.producer, False) for t in before if t.producer is not None)
    return tuple(order)


def copy_of(
    network: NetworkDefinition,
    layer: Layer,
    inputs: Sequence[Tensor | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    name: str,
) -> Layer:
    """Another layer that does what this one does, of other operands."""
    if layer.operator is not None:
        return network.add_layer(
            layer.operator,
            inputs,
            layer.attributes if attributes is None else attributes,
            name=name,
            outputs=len(layer.outputs),
            origin=layer.origin,
            cause=layer.cause,
        )
    names = [network.unique(f"{t.name}_again") for t in layer.outputs]
    return network.add_fused(
        layer.body,
        [t for t in inputs if t is not None],
        names,
        name=name,
        origin=layer.origin,
        cause=layer.cause,
    )


def substitute(
    network: NetworkDefinition,
    layer: Layer,
    inputs: Sequence[Tensor | None],
    attributes: Mapping[str, Any] | None = None,
) -> Layer:
    """Replace a layer by one of other operands or attributes; layer and outputs keep their names.

    Raises NetworkError, and changes nothing, if its outputs would have other types.
    """
    with network.standing_at(layer):
        new = copy_of(network, layer, inputs, attributes, name=f"{layer.name}_edited")
    for old, made in zip(layer.outputs, new.outputs, strict=True):
        if old.type != made.type:
            network.remove_layer(new)
            raise NetworkError(
                f"'{old.name}' is {old.type} and would be {made.type}", place=layer.name
            )
    name = layer.name
    stand_in(network, layer, new)
    network.rename_layer(new, name)
    return new


def stand_in(network: NetworkDefinition, old: Layer, new: Layer) -> None:
    """Whoever read the old layer's outputs reads the new one's, under the old names."""
    names = [t.name for t in old.outputs]
    for a, b in zip(old.outputs, new.outputs, strict=True):
        network.replace_uses(a, b)
    network.remove_layer(old)
    for b, name in zip(new.outputs, names, strict=True):
        if b.name != name:
            network.rename_tensor(b, name)
