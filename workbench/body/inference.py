"""Types of the nodes' outputs, and the values that shape arithmetic knows at build time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body.computing import FAILURES, failure
from workbench.body.operator import (
    CONSTANT,
    Attributes,
    Inference,
    Node,
    Operator,
    later_size,
)
from workbench.body.values import (
    Array,
    HostType,
    OptionalType,
    SequenceType,
    TensorType,
    UnrankedType,
    widened,
)
from workbench.datatypes import DataType
from workbench.dimensions import SymbolicDim
from workbench.errors import InferenceError, NetworkError, ValueNeeded

LARGEST = 2**63 - 1
"""Largest number among sizes: Python's integers would grow without end."""
SMALL = 1024
"""Largest element count of a value that inference computes ahead of folding."""


def infer(
    nodes: Sequence[Node],
    types: Mapping[str, TensorType],
    values: Mapping[str, Array] | None = None,
) -> tuple[dict[str, TensorType], dict[str, Array]]:
    """Types of every value, and the values known at build time (shape arithmetic included)."""
    known_types: dict[str, TensorType] = dict(types)
    known: dict[str, Array] = dict(values or {})
    for n in nodes:
        node_types, node_values = infer_node(
            n.operator,
            n.attributes,
            tuple(known_types[v] if v else None for v in n.inputs),
            tuple(known.get(v) if v else None for v in n.inputs),
            len(n.outputs),
            names=n.outputs,
            place=f"{n.op} '{n.outputs[0]}'",
        )
        for o, t, v in zip(n.outputs, node_types, node_values, strict=False):
            if o:
                known_types[o] = t
                if v is not None:
                    known[o] = v
    return known_types, known


def infer_node(
    operator: Operator,
    attributes: Attributes,
    inputs: tuple[TensorType | None, ...],
    values: tuple[Array | None, ...],
    outputs: int = 1,
    *,
    names: tuple[str, ...] = (),
    place: str = "",
) -> tuple[tuple[TensorType, ...], tuple[Array | None, ...]]:
    """Output types of one node, and output values where shape arithmetic gives them.

    names: of the outputs, after which sizes that only the data decides are called.
    """
    seen = Inference(attributes, inputs, values, outputs, names)
    try:
        types = _types(operator, seen)
    except NetworkError as e:
        if e.place:
            raise
        raise InferenceError(e.problem, place=place, remedy=e.remedy) from None
    except FAILURES as e:
        raise failure(InferenceError, e, place) from e
    for t in types:
        for d in () if isinstance(t, HostType) else t.shape:
            if isinstance(d, int) and d < 0:
                problem = f"its output would be {t}; sizes can't be negative"
                raise InferenceError(problem, place=place)
    if any(t is not None and t.on_host for t in (*inputs, *types)):
        return types, (None,) * len(types)
    if operator is CONSTANT:
        return types, (attributes["value"].array(),)
    unknown = (None,) * len(types)
    if operator.name == "Shape":
        assert inputs[0] is not None
        start, end = attributes["start"], attributes["end"]
        return types, (_sizes(inputs[0].shape[slice(start, end)]),)
    if operator.name == "Size":
        assert inputs[0] is not None
        return types, (_sizes((dimensions.volume(inputs[0].shape),)).reshape(()),)
    given = [v for v, t in zip(values, inputs, strict=False) if t is not None]
    # A quantization is kept for the kernels; chance has no value ahead of the run, and a loop may
    # have none at all.
    settled = operator.deterministic and operator.family not in ("quantization", "control flow")
    numeric = settled and all(v is not None and v.dtype != object for v in given)
    ready = (operator.symbolic or numeric) and all(v is not None for v in given)
    if not ready or any(v is not None and v.size > SMALL for v in values):
        return types, unknown
    if any(not dimensions.is_static(t.shape) or dimensions.volume(t.shape) > SMALL for t in types):
        return types, unknown
    try:
        # Comparisons of unbound sizes have no answer (TypeError): the value is simply not known.
        with np.errstate(all="ignore"):
            read = (lambda v: v) if operator.stored else widened
            arguments = [None if v is None else read(v) for v in values]
            results = operator.reference(attributes, arguments)[: len(types)]
            return types, tuple(_settled(r, t) for r, t in zip(results, types, strict=True))
    except (*FAILURES, NetworkError):
        return types, unknown


def _types(operator: Operator, seen: Inference) -> tuple[TensorType, ...]:
    """The operator's rule; where it lacks a value or a rank, what can be said without."""
    if operator.host or not any(isinstance(t, UnrankedType) for t in seen.inputs):
        for rule in (operator.infer, operator.open):
            with suppress(ValueNeeded):
                if rule is not None:
                    return rule(seen)
    return tuple(UnrankedType(t) for t in _element_types(operator, seen))


def _element_types(operator: Operator, seen: Inference) -> tuple[DataType, ...]:
    """Element types of the outputs: they depend on no rank, so the first rank that fits gives them.

    Raises InferenceError where none does.
    """
    error: NetworkError | None = None
    for rank in (4, 3, 2, 1, 0, 5, 6):
        guess = (
            _guessed(t, rank, structural=i in operator.structural)
            for i, t in enumerate(seen.inputs)
        )
        given = replace(seen, inputs=tuple(guess))
        try:
            return tuple(t.dtype for t in operator.infer(given))
        except ValueNeeded as e:
            if operator.open is not None:
                return tuple(t.dtype for t in operator.open(given))
            error = e
        except NetworkError as e:
            error = e
    assert error is not None
    raise error


def _guessed(type_: TensorType | None, rank: int, *, structural: bool) -> TensorType | None:
    """A type at this rank where it has none; a list of sizes with an entry an axis."""
    if isinstance(type_, UnrankedType) and not structural:
        return TensorType(type_.dtype, tuple(later_size("guessed", k) for k in range(rank)))
    if type_ is None or isinstance(type_, SequenceType | OptionalType):
        return type_
    unknown = isinstance(type_, UnrankedType)
    if unknown or (structural and len(type_.shape) == 1 and not isinstance(type_.shape[0], int)):
        return TensorType(type_.dtype, (rank,))
    return TensorType(type_.dtype, tuple(d if isinstance(d, int) else 1 for d in type_.shape))


def _sizes(sizes: Sequence[Any]) -> Array:
    out = np.empty(len(sizes), object)
    out[:] = list(sizes)
    return _settled(out, TensorType(DataType.INT64, (len(sizes),)))


def _settled(value: Any, type_: TensorType) -> Array:
    """Numeric where every element is a number."""
    array = np.asarray(value)
    if array.dtype == object and not any(isinstance(v, SymbolicDim) for v in array.reshape(-1)):
        return array.astype(type_.dtype.numpy)
    if array.dtype == object and any(isinstance(v, int) and abs(v) > LARGEST for v in array.flat):
        raise OverflowError(f"a size beyond {LARGEST}")
    return array if array.dtype == object else array.astype(type_.dtype.numpy, copy=False)
