"""One operator of the host, run by the interpreter on plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.body import (
    CONSTANT,
    Body,
    BodyInput,
    Literal,
    Node,
    TensorType,
    Value,
    infer_node,
    interpret,
    type_of,
)
from workbench.datatypes import DataType
from workbench.operators import operator_named


def run_node(
    op: str,
    inputs: Sequence[Any],
    types: Sequence[TensorType | None] = (),
    *,
    attributes: Mapping[str, Any] | None = None,
    outputs: int = 1,
) -> list[Value]:
    """The outputs of one node. types: of inputs that are no arrays; None and "" as they come.

    The node goes through a Body's JSON first, as in a plan; structural inputs are its literals.
    """
    row = operator_named(op)
    declared = [*types, *(None,) * (len(inputs) - len(types))]
    names = [
        "" if x is None and t is None else f"i{k}"
        for k, (x, t) in enumerate(zip(inputs, declared, strict=True))
    ]
    literals = [
        Node(CONSTANT, (), (n,), {"value": Literal.of(np.asarray(x))})
        for k, (n, x) in enumerate(zip(names, inputs, strict=True))
        if n and k in row.structural
    ]
    written = {n.outputs[0] for n in literals}
    given = {n: x for n, x in zip(names, inputs, strict=True) if n and n not in written}
    kinds = {
        n: type_of(x, t)
        for n, x, t in zip(names, inputs, declared, strict=True)
        if n and n not in written
    }
    made = tuple(f"o{k}" for k in range(outputs))
    node = Node(row, tuple(names), made, row.complete(attributes or {}))
    inputs_ = tuple(BodyInput(n, kinds[n]) for n in given)
    body = Body(inputs_, (*literals, node), made)
    results = interpret(Body.from_json(body.to_json(), operator_named), given)
    return [results[o] for o in made]


def types_of(
    op: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any] | None = None,
    *,
    outputs: int = 1,
    name: str = "y",
) -> tuple[TensorType, ...]:
    """The output types of one node; an input is an array whose value is known, or a type."""
    row = operator_named(op)
    types = tuple(x if isinstance(x, TensorType) or x is None else type_of(x) for x in inputs)
    values = tuple(x if isinstance(x, np.ndarray) else None for x in inputs)
    full = row.complete(attributes or {})
    names = tuple(f"{name}{k or ''}" for k in range(outputs))
    return infer_node(row, full, types, values, outputs, names=names)[0]


def texts(*values: str) -> Any:
    """A vector of strings."""
    return np.array(values, np.object_)


def unknown(dtype: DataType, *shape: Any) -> TensorType:
    """A type whose value is not known."""
    return TensorType(dtype, shape)
