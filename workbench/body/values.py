"""What flows through a Body: arrays, their types, and literals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.datatypes import DataType
from workbench.dimensions import Shape

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TensorType:
    """Element type and shape; sizes are numbers or symbolic."""

    dtype: DataType
    shape: Shape

    def __str__(self) -> str:
        return f"{self.dtype.value}[{', '.join(map(str, self.shape))}]"

    def nbytes(self) -> Any:
        """Bytes of the linear tensor."""
        return dimensions.volume(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Literal:
    """A small constant written into a Body: scalars, axes, shapes (whose sizes may be symbolic)."""

    dtype: DataType
    shape: tuple[int, ...]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, array: Array, dtype: DataType | None = None) -> Literal:
        """From a numeric array, or an object array of sizes (``dtype`` then says the type)."""
        if array.dtype == object:
            return cls(dtype or DataType.INT64, array.shape, tuple(array.reshape(-1).tolist()))
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
    return array.astype(np.float64) if DataType.of(array).is_float else widened(array)
