"""Functions of one element and layers that move elements, in the other order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.body import SHUFFLES
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.records import Refusal

MOVERS = SHUFFLES | {"MaxPool"}
"""Operators that commute with a monotonic map of every element."""


def in_turn(
    network: NetworkDefinition,
    first: Layer,
    second: Layer,
    x: Tensor | None,
    *,
    attributes: Mapping[str, Any] | None = None,
) -> Tensor:
    """What copies of two layers give, the first on ``x``, the second on the first.

    attributes: the second's, where they are not its own.
    """
    given = (first.attributes, second.attributes if attributes is None else attributes)
    for layer, own in zip((first, second), given, strict=True):
        assert layer.operator is not None
        x = network.add_layer(
            layer.operator,
            [x, *layer.inputs[1:]],
            own,
            name=layer.name,
            origin=layer.origin,
            cause=layer.cause,
        ).outputs[0]
    assert x is not None
    return x


def second_output(mover: Layer) -> Refusal | None:
    """Why nothing moves past this layer: it gives more than what it moves."""
    if len(mover.outputs) > 1:
        return Refusal("MaxPool also gives indices", code="second_output")
    return None
