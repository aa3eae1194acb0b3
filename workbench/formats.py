"""Format: how a tensor's elements lie in memory. Named as TensorRT's TensorFormat names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.datatypes import DataType
from workbench.dimensions import ceildiv, volume


@dataclass(frozen=True)
class Format:
    """A layout of elements. LINEAR is row-major; others are for tensors of rank >= 3.

    channels_last: the channel axis (1) is stored innermost.
    block: channels are stored in groups of ``block``, the group innermost and padded with zeros
    (nChw16c for 16, TensorRT's kCHW32 for 32); 0: not blocked. Who writes a tensor writes the zeros
    too; who reads it may rely on them.
    owner, digest: an opaque layout that only tactic source ``owner`` can read.
    only: the one type of which tensors have this layout, if their channels fill its groups.
    """

    name: str
    channels_last: bool = False
    block: int = 0
    owner: str = ""
    digest: str = ""
    only: DataType | None = None

    def fits(self, rank: int) -> bool:
        """Whether a tensor of this rank can have this layout."""
        return self == LINEAR or rank >= 3

    def holds(self, dtype: DataType, shape: tuple[Any, ...]) -> bool:
        """Whether a tensor of this type and shape can have this layout."""
        if self.only is None:
            return self.fits(len(shape))
        channels = shape[1] if len(shape) >= 3 else 0
        filled = isinstance(channels, int) and channels > 0 and channels % self.block == 0
        return dtype is self.only and filled

    def physical_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Shape of the stored array, outermost first."""
        if self.channels_last:
            return (shape[0], *shape[2:], shape[1])
        if self.block:
            return (shape[0], ceildiv(shape[1], self.block), *shape[2:], self.block)
        return shape

    def volume(self, shape: tuple[Any, ...]) -> Any:
        """Stored elements, padding included."""
        return volume(self.physical_shape(shape))

    def pack(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A linear array, stored in this layout (contiguous)."""
        if self.channels_last:
            return np.ascontiguousarray(np.moveaxis(array, 1, -1))
        if self.block:
            n, c = array.shape[:2]
            groups = -(-c // self.block)
            padded = np.zeros((n, groups * self.block, *array.shape[2:]), array.dtype)
            padded[:, :c] = array
            split = padded.reshape(n, groups, self.block, *array.shape[2:])
            return np.ascontiguousarray(np.moveaxis(split, 2, -1))
        # ascontiguousarray gives a scalar one axis.
        return np.ascontiguousarray(array).reshape(array.shape)

    def unpack(self, stored: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """The linear array of ``shape`` that ``stored`` holds."""
        stored = stored.reshape(self.physical_shape(shape))
        if self.channels_last:
            return np.ascontiguousarray(np.moveaxis(stored, -1, 1))
        if self.block:
            merged = np.moveaxis(stored, -1, 2)
            merged = merged.reshape(shape[0], -1, *shape[2:])
            return np.ascontiguousarray(merged[:, : shape[1]])
        return np.ascontiguousarray(stored).reshape(shape)

    def __str__(self) -> str:
        return f"{self.name}:{self.owner}:{self.digest[:8]}" if self.owner else self.name


LINEAR = Format("LINEAR")
HWC = Format("HWC", channels_last=True)
CHW16 = Format("CHW16", block=16)
CHW32 = Format("CHW32", block=32, only=DataType.INT8)

FORMATS: tuple[Format, ...] = (LINEAR, HWC, CHW16)
"""The layouts that every source may read and write on a CPU."""
GPU_FORMATS: tuple[Format, ...] = (LINEAR, HWC, CHW32)
"""The same on a GPU; CHW32 is of INT8 tensors whose channels fill its groups."""
_NAMED = tuple(dict.fromkeys((*FORMATS, *GPU_FORMATS)))


def formats_on(kind: str) -> tuple[Format, ...]:
    """The layouts that sources share on a kind of device."""
    return GPU_FORMATS if kind == "gpu" else FORMATS


def format_named(name: str) -> Format:
    """The named layout; ValueError for any other name."""
    for f in _NAMED:
        if f.name == name:
            return f
    raise ValueError(f"no tensor format is named {name!r}; known: {[f.name for f in _NAMED]}")
