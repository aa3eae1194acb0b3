"""Memory descriptors, memories and attributes: what a oneDNN primitive is described with.

Every class here owns one C handle and destroys it when the Python object goes. oneDNN copies a
descriptor or attribute that a primitive is made from; a memory does not own its bytes.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import c_int, c_int64, c_void_p
from typing import Any

import numpy as np

from workbench.datatypes import DataType
from workbench.errors import DeviceError
from workbench.tactics.onednn.constants import (
    MAX_RANK,
    Algorithm,
    Argument,
    ElementType,
    FloatMath,
    FormatKind,
    Query,
    Tag,
    post_operation_argument,
)
from workbench.tactics.onednn.library import Library, Sizes

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector load."""

ELEMENT_TYPES: dict[DataType, ElementType] = {
    DataType.FLOAT: ElementType.F32,
    DataType.BF16: ElementType.BF16,
    DataType.HALF: ElementType.F16,
    DataType.INT32: ElementType.S32,
    DataType.INT8: ElementType.S8,
    DataType.UINT8: ElementType.U8,
}
"""The types that oneDNN 3.2 computes with on a CPU."""

_SCRATCHPAD_BY_USER = 1  # dnnl_scratchpad_mode_user


def sizes(values: Sequence[int]) -> Any:
    """A dnnl_dims_t."""
    return Sizes(*values)


class Handle:
    """One C handle, destroyed with the object. ``value`` is valid while the object lives."""

    def __init__(self, library: Library, value: int, destructor: str) -> None:
        self.library = library
        self.value = value
        # Not at interpreter exit: thousands of destructor calls would only delay it.
        weakref.finalize(self, library.function(destructor), value).atexit = False


class MemoryDescriptor(Handle):
    """Sizes, element type and layout of one tensor. Immutable; equal when oneDNN says so."""

    def __init__(self, library: Library, value: int) -> None:
        super().__init__(library, value, "dnnl_memory_desc_destroy")

    @classmethod
    def tagged(
        cls, library: Library, shape: Sequence[int], element: ElementType, tag: Tag
    ) -> MemoryDescriptor:
        """By layout tag; ``Tag.ANY`` leaves the layout to the primitive."""
        name = "dnnl_memory_desc_create_with_tag"
        return cls(library, library.create(name, len(shape), sizes(shape), element, tag))

    @classmethod
    def strided(
        cls,
        library: Library,
        shape: Sequence[int],
        element: ElementType,
        strides: Sequence[int] | None = None,
    ) -> MemoryDescriptor:
        """By strides, in elements; row-major without them."""
        given = row_major_strides(shape) if strides is None else tuple(strides)
        name = "dnnl_memory_desc_create_with_strides"
        value = library.create(name, len(shape), sizes(shape), element, sizes(given))
        return cls(library, value)

    @classmethod
    def copied(cls, library: Library, borrowed: int) -> MemoryDescriptor:
        """An own copy of a descriptor that another object owns."""
        return cls(library, library.create("dnnl_memory_desc_clone", borrowed))

    def part(self, shape: Sequence[int], offsets: Sequence[int]) -> MemoryDescriptor:
        """A rectangular part of this tensor, in place. DeviceError where blocks are cut."""
        name = "dnnl_memory_desc_create_submemory"
        made = self.library.create(name, self.value, sizes(shape), sizes(offsets))
        return MemoryDescriptor(self.library, made)

    @property
    def size_bytes(self) -> int:
        """Bytes of a buffer, padding and oneDNN's own extras included; 0 for an empty one."""
        return self.library.size_of(self.value)

    @property
    def rank(self) -> int:
        return self._integer(Query.RANK)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._sizes(Query.SIZES, self.rank)

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """Sizes with the zeros that fill the last block."""
        return self._sizes(Query.PADDED_SIZES, self.rank)

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements between neighbours on each axis, between blocks on a blocked one."""
        return self._sizes(Query.STRIDES, self.rank)

    @property
    def element(self) -> ElementType:
        return ElementType(self._integer(Query.ELEMENT_TYPE))

    @property
    def is_any(self) -> bool:
        """Whether the layout is still open."""
        return self._integer(Query.FORMAT_KIND) == FormatKind.ANY

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """(axis, size) of each inner block, outermost first."""
        count = self._integer(Query.INNER_BLOCK_COUNT)
        block_sizes = self._sizes(Query.INNER_BLOCKS, count)
        return tuple(zip(self._sizes(Query.INNER_AXES, count), block_sizes, strict=True))

    @property
    def text(self) -> str:
        """The layout in words, equal for equal layouts but for oneDNN's hidden extras."""
        kind = FormatKind(self._integer(Query.FORMAT_KIND))
        if kind is not FormatKind.BLOCKED:
            return f"{self.element.name} {self.shape} {kind.name}"
        layout = f"strides {self.strides} blocks {self.blocks} bytes {self.size_bytes}"
        return f"{self.element.name} {self.shape} {layout}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MemoryDescriptor):
            return NotImplemented
        return bool(self.library.are_equal(self.value, other.value))

    def __hash__(self) -> int:
        return hash((self.shape, self.element))

    def __repr__(self) -> str:
        return f"MemoryDescriptor({self.text})"

    def _integer(self, query: Query) -> int:
        out = c_int()
        self.library.call("dnnl_memory_desc_query", self.value, query, ctypes.addressof(out))
        return out.value

    def _sizes(self, query: Query, count: int) -> tuple[int, ...]:
        out = c_void_p()
        self.library.call("dnnl_memory_desc_query", self.value, query, ctypes.addressof(out))
        if out.value is None:
            return ()
        return tuple((c_int64 * MAX_RANK).from_address(out.value)[:count])


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous array."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)


class Memory(Handle):
    """A descriptor with the address of its bytes.

    ``owner`` is kept alive with the memory; without one the caller guarantees the address.
    """

    def __init__(self, descriptor: MemoryDescriptor, address: int, owner: object = None) -> None:
        library = descriptor.library
        made = library.create("dnnl_memory_create", descriptor.value, library.engine, address)
        super().__init__(library, made, "dnnl_memory_destroy")
        self.descriptor = descriptor
        self.owner = owner

    @classmethod
    def allocated(cls, descriptor: MemoryDescriptor) -> Memory:
        """Over new zeroed bytes, aligned to a cache line."""
        block = aligned_bytes(descriptor.size_bytes)
        return cls(descriptor, block.ctypes.data, block)

    @classmethod
    def over(cls, descriptor: MemoryDescriptor, array: np.ndarray[Any, Any]) -> Memory:
        """Over an array's bytes. DeviceError where the array is smaller than the descriptor."""
        if array.nbytes < descriptor.size_bytes:
            raise DeviceError(
                f"an array of {array.nbytes} bytes for a descriptor of {descriptor.size_bytes}",
                place=repr(descriptor),
            )
        return cls(descriptor, array.ctypes.data, array)

    def rebind(self, address: int, owner: object = None) -> None:
        """Point at other bytes; a primitive run after this sees them."""
        self.library.call("dnnl_memory_set_data_handle", self.value, address)
        self.owner = owner


def aligned_bytes(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Zeroed bytes (at least 1) whose address is a multiple of ALIGNMENT."""
    raw = np.zeros(max(count, 1) + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + max(count, 1)]


class Attributes(Handle):
    """Scales, zero points and post-operations of a primitive, with the scratchpad outside it.

    Post-operations run in the order in which they are appended, on the f32 (or s32) result, before
    the destination's scale and rounding. real = scale * (stored - zero_point) for every argument.
    """

    def __init__(self, library: Library) -> None:
        super().__init__(
            library, library.create("dnnl_primitive_attr_create"), "dnnl_primitive_attr_destroy"
        )
        library.call("dnnl_primitive_attr_set_scratchpad_mode", self.value, _SCRATCHPAD_BY_USER)
        self._chain = Handle(
            library, library.create("dnnl_post_ops_create"), "dnnl_post_ops_destroy"
        )
        self._count = 0

    def scale(self, argument: Argument, mask: int = 0) -> int:
        """Scale one argument by a vector over the axes in ``mask`` (bits), given at execution.

        Returns the execution argument that takes the f32 scales.
        """
        self.library.call("dnnl_primitive_attr_set_scales_mask", self.value, argument, mask)
        return Argument.SCALES | argument

    def zero_point(self, argument: Argument, mask: int = 0) -> int:
        """Shift one argument; returns the execution argument that takes the s32 zero points."""
        self.library.call("dnnl_primitive_attr_set_zero_points_mask", self.value, argument, mask)
        return Argument.ZERO_POINTS | argument

    def float_math(self, mode: FloatMath) -> None:
        """Allow f32 products in a narrower type; STRICT is the default."""
        self.library.call("dnnl_primitive_attr_set_fpmath_mode", self.value, mode)

    def eltwise(self, algorithm: Algorithm, alpha: float = 0.0, beta: float = 0.0) -> None:
        """Append x = algorithm(x)."""
        self._append("dnnl_post_ops_append_eltwise", algorithm, alpha, beta)

    def sum(
        self, scale: float = 1.0, zero_point: int = 0, element: ElementType | None = None
    ) -> None:
        """Append x = x + scale * (dst - zero_point), dst read before it is overwritten.

        element: the type to read dst as, of the same width; None for its own.
        """
        self._append("dnnl_post_ops_append_sum", scale, zero_point, element or 0)

    def binary(self, algorithm: Algorithm, descriptor: MemoryDescriptor) -> int:
        """Append x = algorithm(x, other); returns the execution argument that takes ``other``.

        Sizes of ``other`` are x's or 1.
        """
        self._append("dnnl_post_ops_append_binary", algorithm, descriptor.value)
        return post_operation_argument(self._count - 1)

    def _append(self, name: str, *arguments: Any) -> None:
        self.library.call(name, self._chain.value, *arguments)
        # oneDNN copies the chain, so it is set again after each change.
        self.library.call("dnnl_primitive_attr_set_post_ops", self.value, self._chain.value)
        self._count += 1
