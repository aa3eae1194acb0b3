"""Primitives: described, listed by implementation, created, and bound to memories.

Each function below gives a PrimitiveDescriptor, or the Status with which oneDNN turned it down
(UNIMPLEMENTED, INVALID_ARGUMENTS).
Convolutions and pools take sizes per spatial axis; padding is (before, after).
Source: oneapi/dnnl/dnnl.h of oneDNN 3.2.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from ctypes import c_char_p, c_int, c_void_p
from typing import Any

from workbench.errors import DeviceError
from workbench.tactics.onednn.constants import (
    FORWARD_INFERENCE,
    Algorithm,
    Argument,
    NormalizationFlag,
    Query,
    Status,
)
from workbench.tactics.onednn.descriptors import (
    Attributes,
    Handle,
    Memory,
    MemoryDescriptor,
    sizes,
)
from workbench.tactics.onednn.library import Library

Padding = tuple[Sequence[int], Sequence[int]]


class PrimitiveDescriptor(Handle):
    """One implementation of one operation on described tensors, with layouts decided.

    cursor: oneDNN's own descriptor, which walks on to the next implementations; a copy of a
    descriptor cannot walk (``dnnl_primitive_desc_next_impl`` says at once that it was the last).
    """

    def __init__(self, library: Library, value: int, cursor: Handle | None = None) -> None:
        super().__init__(library, value, "dnnl_primitive_desc_destroy")
        self._cursor = cursor
        self._later: list[PrimitiveDescriptor] = []

    @classmethod
    def walking(cls, library: Library, created: int) -> PrimitiveDescriptor:
        """The first implementation, able to list the others."""
        cursor = Handle(library, created, "dnnl_primitive_desc_destroy")
        return cls(library, library.create("dnnl_primitive_desc_clone", created), cursor)

    @property
    def implementation(self) -> str:
        """The kernel, as oneDNN names it, such as ``brgconv:avx512_core_amx``."""
        out = c_char_p()
        self.library.call(
            *("dnnl_primitive_desc_query", self.value, Query.IMPLEMENTATION_NAME, 0),
            ctypes.addressof(out),
        )
        return (out.value or b"").decode()

    @property
    def is_reference(self) -> bool:
        """Whether it is, or calls, oneDNN's plain loop: up to 1,000 times slower than a kernel."""
        return any(part.startswith("ref") for part in self.implementation.split("+"))

    def implementations(self) -> Iterator[PrimitiveDescriptor]:
        """Itself and every later one, best first by oneDNN's own order."""
        yield self
        yield from self._later
        while self._cursor is not None:
            status = self.library.function("dnnl_primitive_desc_next_impl")(self._cursor.value)
            if status == Status.LAST_IMPLEMENTATION_REACHED:
                self._cursor = None
                return
            if status:
                raise DeviceError(f"status {status}", place="dnnl_primitive_desc_next_impl")
            copied = self.library.create("dnnl_primitive_desc_clone", self._cursor.value)
            self._later.append(PrimitiveDescriptor(self.library, copied))
            yield self._later[-1]

    def source(self, index: int = 0) -> MemoryDescriptor:
        return self._memory(Query.SRC, index)

    @property
    def weights(self) -> MemoryDescriptor:
        return self._memory(Query.WEIGHTS, 0)

    @property
    def destination(self) -> MemoryDescriptor:
        return self._memory(Query.DST, 0)

    @property
    def scratchpad_bytes(self) -> int:
        """Workspace that one execution needs, aligned to 64 bytes; 0 for none."""
        return self._memory(Query.SCRATCHPAD, 0).size_bytes

    @property
    def scratchpad(self) -> MemoryDescriptor:
        return self._memory(Query.SCRATCHPAD, 0)

    def _memory(self, query: Query, index: int) -> MemoryDescriptor:
        borrowed = self.library.query_memory(self.value, query, index)
        if not borrowed:
            place = "dnnl_primitive_desc_query_md"
            raise DeviceError(f"{self.implementation} has no {query.name} {index}", place=place)
        return MemoryDescriptor.copied(self.library, borrowed)


class Primitive(Handle):
    """Generated code for a PrimitiveDescriptor. Stateless: any number of executions share it."""

    def __init__(self, descriptor: PrimitiveDescriptor) -> None:
        library = descriptor.library
        made = library.create("dnnl_primitive_create", descriptor.value)
        super().__init__(library, made, "dnnl_primitive_destroy")
        self.descriptor = descriptor
        self.implementation = descriptor.implementation


class _BoundArgument(ctypes.Structure):
    _fields_ = (("argument", c_int), ("memory", c_void_p))


class Execution:
    """A primitive bound to its memories, ready to launch.

    ``call`` is what dnnl_primitive_execute takes: raw addresses into this object, which must
    outlive every use of them. Memories may be rebound; ``call`` stays the same.
    """

    def __init__(self, primitive: Primitive, memories: Mapping[int, Memory]) -> None:
        self.primitive = primitive
        self.memories = dict(memories)
        self._arguments = (_BoundArgument * len(memories))(
            *(_BoundArgument(argument, m.value) for argument, m in memories.items())
        )
        library = primitive.library
        self.call: tuple[int, int, int, int] = (
            *(primitive.value, library.stream, len(memories)),
            ctypes.addressof(self._arguments),
        )

    def __call__(self) -> None:
        """Run once; ExecutionError on failure."""
        self.primitive.library.execute(self.call)


def run(descriptor: PrimitiveDescriptor, memories: Mapping[int, Memory]) -> None:
    """Create a primitive, run it once with its own workspace, and drop it."""
    bound = dict(memories)
    if descriptor.scratchpad_bytes:
        bound[Argument.SCRATCHPAD] = Memory.allocated(descriptor.scratchpad)
    Execution(Primitive(descriptor), bound)()


def convolution_forward(
    source: MemoryDescriptor,
    weights: MemoryDescriptor,
    bias: MemoryDescriptor | None,
    destination: MemoryDescriptor,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
    attributes: Attributes,
    algorithm: Algorithm = Algorithm.CONVOLUTION_DIRECT,
) -> PrimitiveDescriptor | Status:
    """Weights (O, I, *kernel), grouped (G, O/G, I/G, *kernel). dilations: 1 for dense kernels.

    DECONVOLUTION_DIRECT is the transposed convolution: strides spread the source, padding crops.
    """
    operation = "de" if algorithm is Algorithm.DECONVOLUTION_DIRECT else ""
    return _described(
        *(f"dnnl_{operation}convolution_forward_primitive_desc_create", source.library),
        *(FORWARD_INFERENCE, algorithm),
        *(source.value, weights.value, _value(bias), destination.value),
        sizes(strides),
        sizes([d - 1 for d in dilations]),  # oneDNN counts the gaps: 0 for dense kernels
        *(sizes(padding[0]), sizes(padding[1])),
        attributes.value,
    )


def inner_product_forward(
    source: MemoryDescriptor,
    weights: MemoryDescriptor,
    bias: MemoryDescriptor | None,
    destination: MemoryDescriptor,
    *,
    attributes: Attributes,
) -> PrimitiveDescriptor | Status:
    """Source (N, C, ...) by weights (O, C, ...) to (N, O)."""
    return _described(
        *("dnnl_inner_product_forward_primitive_desc_create", source.library),
        FORWARD_INFERENCE,
        *(source.value, weights.value, _value(bias), destination.value),
        attributes.value,
    )


def matmul(
    source: MemoryDescriptor,
    weights: MemoryDescriptor,
    bias: MemoryDescriptor | None,
    destination: MemoryDescriptor,
    *,
    attributes: Attributes,
) -> PrimitiveDescriptor | Status:
    """(..., M, K) by (..., K, N); equal ranks, batch sizes equal or 1."""
    return _described(
        *("dnnl_matmul_primitive_desc_create", source.library),
        *(source.value, weights.value, _value(bias), destination.value),
        attributes.value,
    )


def pooling_forward(
    algorithm: Algorithm,
    source: MemoryDescriptor,
    destination: MemoryDescriptor,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
    attributes: Attributes,
) -> PrimitiveDescriptor | Status:
    """One of the three POOLING_* algorithms. dilations: 1 for dense windows."""
    return _described(
        *("dnnl_pooling_forward_primitive_desc_create", source.library),
        *(FORWARD_INFERENCE, algorithm, source.value, destination.value),
        *(sizes(strides), sizes(kernel), sizes([d - 1 for d in dilations])),
        *(sizes(padding[0]), sizes(padding[1])),
        attributes.value,
    )


def softmax_forward(
    source: MemoryDescriptor,
    destination: MemoryDescriptor,
    *,
    axis: int,
    attributes: Attributes,
    algorithm: Algorithm = Algorithm.SOFTMAX_ACCURATE,
) -> PrimitiveDescriptor | Status:
    """Softmax (or its logarithm) along one axis, counted from 0."""
    return _described(
        *("dnnl_softmax_forward_primitive_desc_create", source.library),
        *(FORWARD_INFERENCE, algorithm, source.value, destination.value, axis),
        attributes.value,
    )


def layer_normalization_forward(
    source: MemoryDescriptor,
    destination: MemoryDescriptor,
    *,
    epsilon: float,
    flags: NormalizationFlag,
    attributes: Attributes,
) -> PrimitiveDescriptor | Status:
    """Over the last axis; SCALE and SHIFT are f32 vectors where the flags name them."""
    return _described(
        *("dnnl_layer_normalization_forward_primitive_desc_create", source.library),
        *(FORWARD_INFERENCE, source.value, destination.value, None, epsilon, flags),
        attributes.value,
    )


def eltwise_forward(
    algorithm: Algorithm,
    source: MemoryDescriptor,
    destination: MemoryDescriptor,
    *,
    alpha: float = 0.0,
    beta: float = 0.0,
    attributes: Attributes,
) -> PrimitiveDescriptor | Status:
    """One function of each element, with two parameters whose meaning the algorithm gives."""
    return _described(
        *("dnnl_eltwise_forward_primitive_desc_create", source.library),
        *(FORWARD_INFERENCE, algorithm, source.value, destination.value, alpha, beta),
        attributes.value,
    )


def binary(
    algorithm: Algorithm,
    first: MemoryDescriptor,
    second: MemoryDescriptor,
    destination: MemoryDescriptor,
    *,
    attributes: Attributes,
) -> PrimitiveDescriptor | Status:
    """Equal ranks; sizes of either input are the destination's or 1."""
    return _described(
        *("dnnl_binary_primitive_desc_create", first.library, algorithm),
        *(first.value, second.value, destination.value),
        attributes.value,
    )


def reduction(
    algorithm: Algorithm,
    source: MemoryDescriptor,
    destination: MemoryDescriptor,
    *,
    attributes: Attributes,
) -> PrimitiveDescriptor | Status:
    """Over the axes on which the destination's size is 1 and the source's is not."""
    return _described(
        *("dnnl_reduction_primitive_desc_create", source.library, algorithm),
        *(source.value, destination.value, 0.0, 0.0),
        attributes.value,
    )


def concat(
    sources: Sequence[MemoryDescriptor],
    destination: MemoryDescriptor | None,
    *,
    axis: int,
    attributes: Attributes,
) -> PrimitiveDescriptor | Status:
    """Inputs are the arguments MULTIPLE_SRC, MULTIPLE_SRC + 1, ..."""
    library = sources[0].library
    handles = (c_void_p * len(sources))(*(s.value for s in sources))
    return _described(
        *("dnnl_concat_primitive_desc_create", library, _value(destination)),
        *(len(sources), axis, handles),
        attributes.value,
    )


def resampling_forward(
    algorithm: Algorithm,
    source: MemoryDescriptor,
    destination: MemoryDescriptor,
    *,
    attributes: Attributes,
) -> PrimitiveDescriptor | Status:
    """Sizes decide the factors; coordinates are half_pixel, as in ONNX Resize."""
    return _described(
        *("dnnl_resampling_forward_primitive_desc_create", source.library),
        *(FORWARD_INFERENCE, algorithm, None, source.value, destination.value),
        attributes.value,
    )


def reorder(
    source: MemoryDescriptor, destination: MemoryDescriptor, *, attributes: Attributes | None = None
) -> PrimitiveDescriptor | Status:
    """Copy to another layout or type; scales and zero points quantize on the way."""
    library = source.library
    given = attributes or Attributes(library)  # a name: a temporary would be destroyed too early
    value = library.try_create(
        "dnnl_reorder_primitive_desc_create",
        *(source.value, library.engine, destination.value, library.engine),
        given.value,
    )
    return value if isinstance(value, Status) else PrimitiveDescriptor.walking(library, value)


def _value(handle: Handle | None) -> int | None:
    return None if handle is None else handle.value


def _described(name: str, library: Library, *arguments: Any) -> PrimitiveDescriptor | Status:
    value = library.try_create(name, library.engine, *arguments)
    return value if isinstance(value, Status) else PrimitiveDescriptor.walking(library, value)
