"""What a caller gives for an input, checked and as the engine wants it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import HostType, OptionalType, SequenceType, Value
from workbench.datatypes import DataType
from workbench.errors import ExecutionError
from workbench.plan import PlanTensor
from workbench.runtime.engine import Engine


def check_input(tensor: PlanTensor, inputs: Mapping[str, Value]) -> None:
    """Raise ExecutionError where an input is missing or of another type."""
    place = f"input '{tensor.name}'"
    if tensor.name not in inputs:
        given = ", ".join(inputs) or "none"
        raise ExecutionError(f"it is missing (given: {given})", place=place)
    if isinstance(tensor.type, SequenceType | OptionalType):
        return
    dtype = DataType.of(inputs[tensor.name])
    if dtype is not tensor.type.dtype:
        want = tensor.type.dtype
        raise ExecutionError(
            f"its type is {dtype.value}, the engine reads {want.value}",
            place=place,
            remedy=f"convert it: array.astype('{want.numpy.name}')",
        )


def as_value(tensor: PlanTensor, value: Any) -> Value:
    """An input that has no slot, as the interpreter wants it: strings are objects."""
    if value is None or isinstance(value, list):
        return value
    array = np.asarray(value)
    return array.astype(np.object_) if tensor.type.dtype is DataType.STRING else array


def check_shapes_set(engine: Engine, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ExecutionError naming the inputs of open size that have no shape yet."""
    missing = [
        t.name
        for t in engine.io_tensors
        if t.kind == "input"
        and t.name not in shapes
        and not isinstance(t.type, HostType)
        and not dimensions.is_static(t.type.shape)
    ]
    if missing:
        raise ExecutionError(
            f"the shape of input {', '.join(missing)} is not set",
            place=engine.name,
            remedy="call set_input_shape first",
        )
