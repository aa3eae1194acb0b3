"""Sequences and optional values: making them, and taking them apart.

A sequence is a Python list and never changed in place; an optional value is the value itself, or
None. Sizes in which a sequence's entries may differ are symbols; nothing binds those, so what is
taken out of a sequence has such sizes for later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench.body import (
    REQUIRED,
    Array,
    Attributes,
    HostType,
    Inference,
    InferRule,
    Operator,
    OptionalType,
    Reference,
    SequenceType,
    TensorType,
    UnrankedType,
    Value,
    general,
)
from workbench.datatypes import DataType
from workbench.errors import ExecutionError, InferenceError
from workbench.operators.products import operand
from workbench.operators.rules import absent, axis_of, no_error, sizes_of


# -- types --------------------------------------------------------------------------------
def _sequence(inference: Inference) -> SequenceType:
    """The first input's type, which must be a sequence."""
    t = inference.input(0)
    if not isinstance(t, SequenceType):
        raise InferenceError(f"input 0 is {t}", remedy="give a sequence")
    return t


def entry_type(inference: Inference, sequence: SequenceType) -> TensorType:
    """The type of one entry of a sequence: sizes that are no numbers are its own."""
    t = sequence.element
    if isinstance(t, HostType):
        return t
    shape = tuple(d if isinstance(d, int) else inference.later(k) for k, d in enumerate(t.shape))
    return TensorType(t.dtype, shape)


def _construct_types(inference: Inference) -> tuple[TensorType, ...]:
    entries = [inference.input(i) for i in range(len(inference.inputs))]
    if not entries:
        raise InferenceError("no inputs", remedy="give at least one, or use SequenceEmpty")
    return (SequenceType(reduce(lambda a, b: general(a, b, inference.later), entries)),)


def _empty_types(inference: Inference) -> tuple[TensorType, ...]:
    return (SequenceType(UnrankedType(inference.attributes["dtype"])),)


def _at_types(inference: Inference) -> tuple[TensorType, ...]:
    return (entry_type(inference, _sequence(inference)),)


def _erase_types(inference: Inference) -> tuple[TensorType, ...]:
    return (_sequence(inference),)


def _insert_types(inference: Inference) -> tuple[TensorType, ...]:
    element = _sequence(inference).element
    return (SequenceType(general(element, inference.input(1), inference.later)),)


def _length_types(inference: Inference) -> tuple[TensorType, ...]:
    _sequence(inference)
    return (TensorType(DataType.INT64, ()),)


def _split_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    if isinstance(x, HostType):
        return (SequenceType(UnrankedType(x.dtype)),)
    axis = axis_of(inference.attributes["axis"], len(x.shape))
    whole = absent(inference, 1)
    if whole and not inference.attributes["keepdims"]:
        return (SequenceType(TensorType(x.dtype, (*x.shape[:axis], *x.shape[axis + 1 :]))),)
    part = 1 if whole else _part(inference, x.shape[axis])
    size = inference.later(axis) if part is None else part
    return (SequenceType(TensorType(x.dtype, (*x.shape[:axis], size, *x.shape[axis + 1 :]))),)


def _part(inference: Inference, size: Any) -> int | None:
    """The size of every part along the axis; None where it is not known, or they differ."""
    split = inference.value(1)
    if split is None or split.dtype == object:
        return None
    sizes = sizes_of(split)
    if split.ndim:
        return sizes[0] if len(set(sizes)) == 1 else None
    return sizes[0] if isinstance(size, int) and sizes[0] > 0 and size % sizes[0] == 0 else None


def _concat_types(inference: Inference) -> tuple[TensorType, ...]:
    t = entry_type(inference, _sequence(inference))
    if isinstance(t, HostType):
        return (t,)
    new = bool(inference.attributes["new_axis"])
    axis = axis_of(inference.attributes["axis"], len(t.shape) + new)
    # The other sizes keep their axes' names: those of an entry count without the new axis.
    sizes = list(t.shape)
    if new:
        sizes.insert(axis, None)
    kept = (d if isinstance(d, int) and k != axis else None for k, d in enumerate(sizes))
    shape = tuple(inference.later(k) if d is None else d for k, d in enumerate(kept))
    return (TensorType(t.dtype, shape),)


def _optional_types(inference: Inference) -> tuple[TensorType, ...]:
    given = operand(inference.inputs, 0)
    element = given if given is not None else inference.attributes["type"]
    if not isinstance(element, TensorType):
        raise InferenceError("neither an input nor a type", remedy="give one of them")
    return (OptionalType(element),)


def _get_types(inference: Inference) -> tuple[TensorType, ...]:
    t = inference.input(0)
    return (t.element if isinstance(t, OptionalType) else t,)


def _has_types(inference: Inference) -> tuple[TensorType, ...]:
    return (TensorType(DataType.BOOL, ()),)


# -- references ---------------------------------------------------------------------------
def _position(values: Sequence[Any], position: Any, *, room: int = 0) -> int:
    """A position counted from the front. Raises ExecutionError where it lies outside.

    room: places after the last entry.
    """
    index, count = int(np.asarray(position).reshape(())), len(values)
    if not -count <= index < count + room:
        raise ExecutionError(
            f"position {index} lies outside a sequence of {count}",
            remedy=f"use {-count} to {count + room - 1}" if count + room else "fill it first",
        )
    return index + count if index < 0 else index


def _construct(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    return (list(inputs),)


def _empty(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    return ([],)


def _at(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    values, position = inputs
    return (values[_position(values, position)],)


def _erase(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    values, position = inputs[0], operand(inputs, 1)
    index = _position(values, -1 if position is None else position)
    return ([*values[:index], *values[index + 1 :]],)


def _insert(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    values, entry, position = inputs[0], inputs[1], operand(inputs, 2)
    index = len(values) if position is None else _position(values, position, room=1)
    return ([*values[:index], entry, *values[index:]],)


def _length(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (np.array(len(inputs[0]), np.int64),)


def _split(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    x, split = inputs[0], operand(inputs, 1)
    axis = attributes["axis"] % x.ndim
    size = x.shape[axis]
    if split is None and not attributes["keepdims"]:
        return ([np.take(x, k, axis) for k in range(size)],)
    ends = _ends(np.asarray(1 if split is None else split), size)
    starts = [0, *ends][: len(ends)]
    before = (slice(None),) * axis
    return ([x[(*before, slice(a, b))] for a, b in zip(starts, ends, strict=True)],)


def _ends(split: Array, size: int) -> list[int]:
    """Where the parts of an axis end. Raises ExecutionError where they do not fill it."""
    if not split.ndim:
        part = int(split)
        if part <= 0:
            raise ExecutionError(f"split is {part}", remedy="give parts of at least 1")
        return [min(k + part, size) for k in range(0, size, part)]
    parts = [int(p) for p in split]
    if sum(parts) != size or min(parts, default=0) < 0:
        raise ExecutionError(
            f"split is {parts}, the axis has size {size}", remedy="give sizes that add up to it"
        )
    return [int(e) for e in np.cumsum(parts)]


def _concat(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (values,) = inputs
    if not values:
        raise ExecutionError("the sequence is empty", remedy="fill it first")
    join = np.stack if attributes["new_axis"] else np.concatenate
    return (join(values, attributes["axis"]),)


def _optional(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    return (operand(inputs, 0),)


def _get(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    (value,) = inputs
    if value is None:
        raise ExecutionError("the optional value is empty", remedy="ask OptionalHasElement first")
    return (value,)


def _has(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (np.array(operand(inputs, 0) is not None),)


# -- rows ---------------------------------------------------------------------------------
def _row(
    name: str,
    infer: InferRule,
    reference: Reference,
    attributes: Mapping[str, Any] = MappingProxyType({}),
    *,
    structural: frozenset[int] = frozenset(),
) -> Operator:
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=no_error,
        layer_type="SEQUENCE",
        family="sequences",
        attributes=MappingProxyType(dict(attributes)),
        structural=structural,
        host=True,
        stored=True,
    )


SEQUENCES: tuple[Operator, ...] = (
    _row("SequenceConstruct", _construct_types, _construct),
    _row("SequenceEmpty", _empty_types, _empty, {"dtype": DataType.FLOAT}),
    _row("SequenceAt", _at_types, _at),
    _row("SequenceErase", _erase_types, _erase),
    _row("SequenceInsert", _insert_types, _insert),
    _row("SequenceLength", _length_types, _length),
    _row(
        "SplitToSequence",
        _split_types,
        _split,
        {"axis": 0, "keepdims": 1},
        structural=frozenset({1}),
    ),
    _row("ConcatFromSequence", _concat_types, _concat, {"axis": REQUIRED, "new_axis": 0}),
    # type: of an element that is not there, a TensorType.
    _row("Optional", _optional_types, _optional, {"type": None}),
    _row("OptionalGetElement", _get_types, _get),
    _row("OptionalHasElement", _has_types, _has),
)
