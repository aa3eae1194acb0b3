"""What flows through a Body: arrays, their types, and literals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.datatypes import DataType
from workbench.dimensions import Shape
from workbench.errors import InferenceError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TensorType:
    """Element type and shape; sizes are numbers or symbolic."""

    dtype: DataType
    shape: Shape

    def __str__(self) -> str:
        return f"{self.dtype.value}[{', '.join(map(str, self.shape))}]"

    @property
    def on_host(self) -> bool:
        """Whether only the host can hold it: strings, and every HostType."""
        return self.dtype is DataType.STRING

    def nbytes(self) -> Any:
        """Bytes of the linear tensor."""
        return dimensions.volume(self.shape) * self.dtype.itemsize


class HostType(TensorType):
    """What stands where a TensorType stands, but is no tensor of known rank: it has no shape.

    Layers that touch one run on the host, value by value, and no rewrite looks inside.
    """

    def __init__(self, dtype: DataType) -> None:
        object.__setattr__(self, "dtype", dtype)

    @property
    def shape(self) -> Shape:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Raises InferenceError: its readers must not need one."""
        raise InferenceError(f"a value of type {self} has no shape that is known before it runs")

    @property
    def on_host(self) -> bool:
        return True

    def nbytes(self) -> Any:
        """Raises InferenceError, as ``shape`` does."""
        return dimensions.volume(self.shape)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class UnrankedType(HostType):
    """A tensor whose rank is not known before it runs. Its value is an array."""

    def __str__(self) -> str:
        return f"{self.dtype.value}[?]"


class SequenceType(HostType):
    """A sequence of tensors (of sequences: ``element`` says). Its value is a list."""

    def __init__(self, element: TensorType) -> None:
        super().__init__(element.dtype)
        object.__setattr__(self, "element", element)

    element: TensorType

    def __str__(self) -> str:
        return f"sequence({self.element})"


class OptionalType(HostType):
    """Something or nothing. Its value is the element's, or None."""

    def __init__(self, element: TensorType) -> None:
        super().__init__(element.dtype)
        object.__setattr__(self, "element", element)

    element: TensorType

    def __str__(self) -> str:
        return f"optional({self.element})"


Value = Any
"""What a type stands for at run time: an array, a list of values (sequence), or None (optional)."""


def general(a: TensorType, b: TensorType, fresh: Callable[[int], Any]) -> TensorType:
    """The narrowest type that both fit. ``fresh(axis)`` gives a size that is known only later.

    Raises InferenceError where there is none.
    """
    if a == b:
        return a
    if isinstance(a, OptionalType) != isinstance(b, OptionalType):
        inner = [t.element if isinstance(t, OptionalType) else t for t in (a, b)]
        return OptionalType(general(inner[0], inner[1], fresh))
    if a.dtype is not b.dtype or _kind(a) is not _kind(b):
        raise InferenceError(f"one is {a}, the other {b}", remedy="give both one type")
    if isinstance(a, SequenceType | OptionalType):
        assert isinstance(b, SequenceType | OptionalType)
        return type(a)(general(a.element, b.element, fresh))
    ranked = not isinstance(a, HostType) and not isinstance(b, HostType)
    if not ranked or len(a.shape) != len(b.shape):
        return UnrankedType(a.dtype)
    sizes = (
        x if x == y else fresh(k) for k, (x, y) in enumerate(zip(a.shape, b.shape, strict=True))
    )
    return TensorType(a.dtype, tuple(sizes))


def _kind(type_: TensorType) -> type:
    return type(type_) if isinstance(type_, SequenceType | OptionalType) else TensorType


def type_to_json(type_: TensorType) -> Any:
    """A type as JSON values."""
    match type_:
        case UnrankedType():
            return {"unranked": type_.dtype.value}
        case SequenceType():
            return {"sequence": type_to_json(type_.element)}
        case OptionalType():
            return {"optional": type_to_json(type_.element)}
        case _:
            return [type_.dtype.value, [dimensions.dim_to_json(d) for d in type_.shape]]


def type_from_json(data: Any) -> TensorType:
    """What ``type_to_json`` wrote."""
    match data:
        case {"unranked": dtype}:
            return UnrankedType(DataType(dtype))
        case {"sequence": element}:
            return SequenceType(type_from_json(element))
        case {"optional": element}:
            return OptionalType(type_from_json(element))
        case dtype, shape:
            return TensorType(DataType(dtype), tuple(map(dimensions.dim_from_json, shape)))
        case _:
            raise InferenceError(f"{data!r} describes no type")


def type_of(value: Value, declared: TensorType | None = None) -> TensorType:
    """The type of a value at run time; ``declared`` is asked where it holds no array."""
    if isinstance(value, np.ndarray):
        return TensorType(DataType.of(value), value.shape)
    if declared is None:
        raise InferenceError("the type of a value that is no array must be declared")
    return declared


@dataclass(frozen=True)
class Literal:
    """A small constant written into a Body: scalars, axes, shapes (whose sizes may be symbolic)."""

    dtype: DataType
    shape: tuple[int, ...]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, array: Array, dtype: DataType | None = None) -> Literal:
        """From numbers, strings, or an object array of sizes (``dtype`` then says the type)."""
        if array.dtype == object:
            values = tuple(array.reshape(-1).tolist())
            texts = bool(values) and isinstance(values[0], str)
            return cls(DataType.STRING if texts else dtype or DataType.INT64, array.shape, values)
        return cls(DataType.of(array), array.shape, tuple(array.reshape(-1).tolist()))

    @property
    def is_symbolic(self) -> bool:
        return not dimensions.is_static(self.values)

    def array(self, bindings: dimensions.Bindings | None = None) -> Array:
        """As an array: numeric when every size is bound, else of objects."""
        values = self.values
        if self.is_symbolic:
            if bindings is None:
                out = np.empty(len(values), object)
                out[:] = values
                return out.reshape(self.shape)
            values = tuple(dimensions.evaluate(v, bindings) for v in values)
        return np.array(values, self.dtype.numpy).reshape(self.shape)


def widened(array: Array) -> Array:
    """Halves and smaller floats as float32; sub-byte integers as int32; others as they are."""
    if array.dtype == object:
        return array
    dtype = DataType.of(array)
    if dtype.is_float and dtype.itemsize < 4:
        return array.astype(np.float32)
    if dtype.is_integer and dtype.info.bits < 8:
        return array.astype(np.int32)
    return array


def as_exact(array: Array) -> Array:
    """Floats as float64; others as ``widened`` gives them."""
    return array.astype(np.float64, copy=False) if DataType.of(array).is_float else widened(array)
