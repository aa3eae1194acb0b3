"""Sizes that are known only at run time, computed by nodes from the shapes of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from workbench.body import Array, HostType, TensorType
from workbench.datatypes import DataType
from workbench.dimensions import SymbolicDim
from workbench.onnx_export.dialect import NotExpressibleError

VECTOR = TensorType(DataType.INT64, (1,))


class Target(Protocol):
    """Where the nodes go."""

    def constant(self, array: Array, label: str) -> str:
        """The name of a stored value."""
        ...

    def apply(
        self, op: str, inputs: Sequence[str], type_: TensorType, label: str, **attributes: Any
    ) -> str:
        """Append a node of one output; its output's name."""
        ...


class Sizes:
    """Values of sizes, each computed once. A symbol is read off the first value that has it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._sources: dict[str, tuple[str, int]] = {}
        self._made: dict[Any, str] = {}

    def learn(self, name: str, type_: TensorType) -> None:
        """From here on a value exists, and its sizes can be read off it."""
        if isinstance(type_, HostType):
            return
        for axis, size in enumerate(type_.shape):
            if isinstance(size, SymbolicDim) and str(size) in size.symbols:
                self._sources.setdefault(str(size), (name, axis))

    def tensor(self, value: Array, dtype: DataType, label: str) -> str:
        """The name of a tensor that holds these sizes. Raises NotExpressibleError."""
        key = (tuple(map(str, value.reshape(-1))), value.shape, dtype)
        if key not in self._made:
            self._made[key] = self._tensor(value, dtype, label)
        return self._made[key]

    def _tensor(self, value: Array, dtype: DataType, label: str) -> str:
        parts: list[str] = []
        numbers: list[int] = []
        for size in [*value.reshape(-1).tolist(), None]:
            if isinstance(size, int):
                numbers.append(size)
                continue
            if numbers:
                parts.append(self._target.constant(np.array(numbers, np.int64), "sizes"))
                numbers = []
            if size is not None:
                parts.append(self._vector(size))
        flat = TensorType(DataType.INT64, (value.size,))
        name = parts[0]
        if len(parts) > 1:
            name = self._target.apply("Concat", parts, flat, label, axis=0)
        if value.ndim != 1:
            shape = self._target.constant(np.array(value.shape, np.int64), "shape")
            kind = TensorType(DataType.INT64, value.shape)
            name = self._target.apply("Reshape", (name, shape), kind, label)
        if dtype is not DataType.INT64:
            name = self._target.apply(
                "Cast", (name,), TensorType(dtype, value.shape), label, to=dtype
            )
        return name

    def _vector(self, size: Any) -> str:
        """A vector of one size."""
        if not isinstance(size, SymbolicDim):
            return self._target.constant(np.array([size], np.int64), "size")
        text = str(size)
        if text not in self._made:
            self._made[text] = self._computed(size)
        return self._made[text]

    def _computed(self, size: SymbolicDim) -> str:
        if str(size) in size.symbols:
            return self._read(str(size))
        terms = [self._product(m, c, size) for m, c in size.terms.items()]
        total = terms[0]
        for term in terms[1:]:
            total = self._apply("Add", total, term)
        return total

    def _product(self, factors: Sequence[str], count: int, size: SymbolicDim) -> str:
        if not factors:
            return self._vector(count)
        result = self._atom(factors[0], size)
        for f in factors[1:]:
            result = self._apply("Mul", result, self._atom(f, size))
        return result if count == 1 else self._apply("Mul", result, self._vector(count))

    def _atom(self, key: str, size: SymbolicDim) -> str:
        if key in self._made:
            return self._made[key]
        atom = size.atoms[key]
        if atom.call == "symbol":
            made = self._read(key)
        else:
            a, b = (self._vector(x) for x in atom.args)
            if atom.call == "floordiv":
                # Div rounds toward zero, a size's quotient down: a - (a mod b) divides evenly.
                made = self._apply("Div", self._apply("Sub", a, self._apply("Mod", a, b)), b)
            else:
                made = self._apply({"max": "Max", "min": "Min"}[atom.call], a, b)
        self._made[key] = made
        return made

    def _apply(self, op: str, a: str, b: str) -> str:
        return self._target.apply(op, (a, b), VECTOR, "size")

    def _read(self, symbol: str) -> str:
        if symbol not in self._sources:
            raise NotExpressibleError(
                f"size '{symbol}' is no size of a value that exists there",
                "give an input that has this size, or bind it",
            )
        name, axis = self._sources[symbol]
        return self._target.apply(
            "Shape", (name,), VECTOR, f"size_{symbol}", start=axis, end=axis + 1
        )


def reshape_target(given: TensorType, sizes: Array, *, allow_zero: bool) -> Array | None:
    """The sizes of a Reshape with 0 for a kept one, or -1 for the only one that is not a number.

    None where that would not do: both in one target are refused by readers when a tensor is empty.
    """
    if isinstance(given, HostType) or allow_zero:
        return None
    target: list[int] = []
    for axis, size in enumerate(sizes.reshape(-1).tolist()):
        if not isinstance(size, SymbolicDim):
            target.append(int(size))
        elif axis < len(given.shape) and given.shape[axis] == size:
            target.append(0)
        else:
            target.append(-1)
    others = target.count(-1)
    return np.array(target, np.int64) if others == 0 or (others == 1 and 0 not in target) else None
