"""Constants computed from constants, with the recipe that a refit runs again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from workbench.body import CONSTANT, Body, Literal, Node
from workbench.datatypes import DataType
from workbench.dimensions import is_static
from workbench.network import NetworkDefinition, Tensor, Weight
from workbench.network.graph import close

Arithmetic = Callable[..., Tensor]
"""(scratch network, operands) -> the result: a recipe, written with the network's own calls."""


def derive(
    network: NetworkDefinition, name: str, sources: Sequence[Tensor], write: Arithmetic
) -> Tensor:
    """A new constant of ``network``: what ``write`` computes from the constants ``sources``."""
    scratch = NetworkDefinition()
    twins = [scratch.add_input(f"w{i}", s.dtype, s.shape) for i, s in enumerate(sources)]
    result = write(scratch, *twins)
    body, operands = close(tuple(scratch.layers), (result,), None)
    weights = tuple(s.weight for s in sources)
    used = tuple(weights[twins.index(t)] if t in twins else t.weight for t in operands)
    known = tuple(w for w in used if w is not None)
    assert len(known) == len(body.inputs), "a recipe reads constants only"
    constant = Body(tuple(replace(i, constant=True) for i in body.inputs), body.nodes, body.outputs)
    return network.add_weight(Weight.derive(network.unique(name), constant, known))


def apply(
    network: NetworkDefinition, operator: str, *inputs: Tensor | None, **attributes: object
) -> Tensor:
    """The output of a new layer: ``apply(network, "Mul", x, y)``."""
    return network.add_layer(operator, inputs, attributes).outputs[0]


def known_value(network: NetworkDefinition, tensor: Tensor) -> Tensor:
    """The tensor's known value on its own: a constant, or sizes that are bound later."""
    assert tensor.value is not None
    if tensor.value.dtype == object and not is_static(tensor.value.reshape(-1)):
        return network.sizes(tensor.value, tensor.name, dtype=tensor.dtype)
    value = tensor.value.astype(tensor.dtype.numpy)
    literal = Node(CONSTANT, (), ("value",), {"value": Literal.of(value, tensor.dtype)})
    weight = Weight.derive(network.unique(tensor.name), Body((), (literal,), ("value",)), ())
    return network.add_weight(weight)


def shape_operand(network: NetworkDefinition, shape: Sequence[object], name: str) -> Tensor:
    """The operand that makes a Reshape give this shape."""
    if is_static(shape):
        return network.constant(np.array(shape, np.int64).reshape(-1), name)
    return network.sizes(list(shape), name, dtype=DataType.INT64)
