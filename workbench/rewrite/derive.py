"""Constants computed from constants, with the recipe that a refit runs again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from workbench.body import CONSTANT, Body, Literal, Node, TensorType
from workbench.datatypes import DataType
from workbench.dimensions import is_static
from workbench.network import NetworkDefinition, Tensor, Weight
from workbench.network.graph import close

Arithmetic = Callable[..., Tensor]
"""(scratch network, operands) -> the result: a recipe, written with the network's own calls.

With settings: (scratch network, settings, operands).
"""


def derive(
    network: NetworkDefinition,
    name: str,
    sources: Sequence[Tensor],
    write: Arithmetic,
    settings: Hashable = None,
) -> Tensor:
    """A new constant of ``network``: what ``write`` computes from the constants ``sources``.

    settings: handed to ``write`` after the network, where given. A ``write`` that closes over
    nothing depends on them and on the sources' types alone: its recipe is written once.
    """
    types = tuple(t.type for t in sources)
    written = _written_once if getattr(write, "__closure__", ()) is None else _written
    body, places = written(write, types, settings)
    weights = tuple(sources[p].weight if isinstance(p, int) else p for p in places)
    known = tuple(w for w in weights if w is not None)
    assert len(known) == len(body.inputs), "a recipe reads constants only"
    return network.add_weight(Weight.derive(network.unique(name), body, known))


Recipe = tuple[Body, tuple[int | Weight, ...]]
"""A Body, and for each of its inputs the source that it reads, or a constant of its own."""


def _written(write: Arithmetic, types: tuple[TensorType, ...], settings: Hashable) -> Recipe:
    scratch = NetworkDefinition()
    twins = [scratch.add_input(f"w{i}", t.dtype, t.shape) for i, t in enumerate(types)]
    result = write(scratch, *(() if settings is None else (settings,)), *twins)
    body, operands = close(tuple(scratch.layers), (result,), None)
    places = {t: i for i, t in enumerate(twins)}
    reads = tuple(places[t] if t in places else t.weight for t in operands)
    known = {t.name: t.type for t in scratch.tensors.values()}
    for node in body.nodes:
        if node.operator is CONSTANT:
            literal = node.attributes["value"]
            known[node.outputs[0]] = TensorType(literal.dtype, literal.shape)
    inputs = tuple(replace(i, constant=True) for i in body.inputs)
    constant = Body(inputs, body.nodes, body.outputs).typed(known)
    return constant, tuple(r for r in reads if r is not None)


_written_once = lru_cache(maxsize=512)(_written)


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
