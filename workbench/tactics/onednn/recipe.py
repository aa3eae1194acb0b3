"""A layer described to oneDNN in chosen layouts, before an implementation is chosen.

A family (convolution, product, ...) turns a Layer and a Variant into a Recipe; everything after
that is the same for all: list the implementations, pack the constants, make the steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.formats import LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.onednn.activations import Eltwise
from workbench.tactics.onednn.constants import (
    Algorithm,
    Argument,
    ElementType,
    Status,
    Tag,
)
from workbench.tactics.onednn.descriptors import (
    ELEMENT_TYPES,
    Attributes,
    MemoryDescriptor,
    row_major_strides,
)
from workbench.tactics.onednn.layouts import tags_of
from workbench.tactics.onednn.library import Library
from workbench.tactics.onednn.parts import Combine, Layer, Operand, PostOperation
from workbench.tactics.onednn.primitives import PrimitiveDescriptor

HALVES = (DataType.HALF, DataType.BF16)


@dataclass(frozen=True)
class Variant:
    """One way to describe a layer: which primitive, in which layouts.

    inputs: layout of each dynamic input. widened: halves are converted to f32 around it.
    moves: elements are only moved, so that any type of the same width will do.
    overwrites: the dynamic input that is added in place: its memory becomes the output's.
    """

    primitive: str
    inputs: tuple[Format, ...]
    output: Format
    widened: bool = False
    moves: bool = False
    overwrites: int | None = None

    def element(self, dtype: DataType) -> ElementType:
        """The type that the primitive sees for a stored type."""
        if self.widened and dtype in HALVES:
            return ElementType.F32
        if self.moves and dtype is DataType.HALF:
            # oneDNN 3.2 moves bf16 hundreds of times faster than f16 without AVX512-FP16.
            return ElementType.BF16
        return ELEMENT_TYPES[dtype]


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant argument: its linear array, and the layout that the primitive wants.

    wanted: None for the primitive's own choice of weights layout.
    """

    array: Array
    source: MemoryDescriptor
    wanted: MemoryDescriptor | None


@dataclass(eq=False)
class Arguments:
    """What each execution argument of a primitive is.

    inputs: argument -> (dynamic input, how the primitive sees it).
    """

    inputs: dict[int, tuple[int, MemoryDescriptor]] = field(
        default_factory=dict[int, tuple[int, MemoryDescriptor]]
    )
    constants: dict[int, Constant] = field(default_factory=dict[int, Constant])


@dataclass(frozen=True, eq=False)
class FirstPass:
    """A primitive that makes what the next one reads as SRC; source: how it sees the input."""

    descriptor: PrimitiveDescriptor
    source: MemoryDescriptor


@dataclass(frozen=True, eq=False)
class Recipe:
    """A described primitive with its arguments; ``destination`` is how it sees the output."""

    descriptor: PrimitiveDescriptor
    arguments: Arguments
    destination: MemoryDescriptor
    first: FirstPass | None = None


def _is_permuted(array: Array) -> bool:
    """Whether it is one stretch of memory, its axes in some order."""
    order = sorted(range(array.ndim), key=lambda a: -array.strides[a])
    return array.transpose(order).flags.c_contiguous


def describe_tensor(
    library: Library, shape: Sequence[int], element: ElementType, layout: Format
) -> MemoryDescriptor:
    """The descriptor of a tensor in one of the workbench's formats."""
    if layout == LINEAR:
        return MemoryDescriptor.strided(library, shape or (1,), element)
    return MemoryDescriptor.tagged(library, shape, element, tags_of(layout)[len(shape)])


def as_read(
    library: Library, operand: Operand, element: ElementType, rank: int = 0
) -> MemoryDescriptor:
    """A linear operand as the primitive sees it: axes permuted by strides, 1s put before them."""
    stored = row_major_strides(operand.type.shape)
    strides = [stored[a] for a in operand.permutation or range(len(stored))]
    ones = max(rank - len(strides), 0)
    whole = int(np.prod(operand.shape))
    return MemoryDescriptor.strided(
        library, (1,) * ones + operand.shape, element, [whole] * ones + strides
    )


def open_layout(library: Library, shape: Sequence[int], element: ElementType) -> MemoryDescriptor:
    """A descriptor whose layout the primitive chooses."""
    return MemoryDescriptor.tagged(library, shape, element, Tag.ANY)


class Describer:
    """Collects the attributes and arguments of one primitive while it is described."""

    def __init__(self, library: Library, layer: Layer, variant: Variant) -> None:
        self.library = library
        self.layer = layer
        self.variant = variant
        self.attributes = Attributes(library)
        self.arguments = Arguments()

    # -- arguments ------------------------------------------------------------------------
    def input(
        self,
        argument: int,
        operand: Operand,
        shape: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        *,
        rank: int = 0,
    ) -> MemoryDescriptor:
        """A dynamic operand as an argument.

        shape, strides: view its elements with other sizes. rank: 1s are put before its sizes up
        to this.
        """
        assert operand.index is not None
        element = self.variant.element(operand.type.dtype)
        layout = self.variant.inputs[operand.index]
        if shape is not None:
            described = MemoryDescriptor.strided(self.library, shape, element, strides)
        elif operand.permutation is not None or rank > len(operand.shape):
            described = as_read(self.library, operand, element, rank)
        else:
            described = describe_tensor(self.library, operand.shape, element, layout)
        self.arguments.inputs[argument] = (operand.index, described)
        return described

    def constant(
        self, argument: int, array: Array, wanted: MemoryDescriptor | None = None
    ) -> MemoryDescriptor:
        """A constant argument in its linear layout, or to be packed as ``wanted``."""
        array = np.ascontiguousarray(array)
        element = ELEMENT_TYPES[DataType.of(array)]
        source = MemoryDescriptor.strided(self.library, array.shape or (1,), element)
        self.arguments.constants[argument] = Constant(array, source, wanted or source)
        return wanted or source

    def weights(self, array: Array) -> MemoryDescriptor:
        """Constant weights in whatever layout the primitive likes best; read where they lie."""
        array = array if _is_permuted(array) else np.ascontiguousarray(array)
        kind = DataType.of(array)
        strides = [s // array.itemsize for s in array.strides]
        source = MemoryDescriptor.strided(self.library, array.shape, ELEMENT_TYPES[kind], strides)
        self.arguments.constants[Argument.WEIGHTS] = Constant(array, source, None)
        return open_layout(self.library, array.shape, self.variant.element(kind))

    def output(
        self, shape: Sequence[int] | None = None, strides: Sequence[int] | None = None
    ) -> MemoryDescriptor:
        """The output, viewed with other sizes and strides where ``shape`` is given."""
        t = self.layer.output
        element = self.variant.element(t.dtype)
        if shape is not None:
            return MemoryDescriptor.strided(self.library, shape, element, strides)
        return describe_tensor(self.library, t.shape, element, self.variant.output)

    def recipe(
        self, descriptor: PrimitiveDescriptor | Status, destination: MemoryDescriptor
    ) -> Recipe | Refusal:
        """What was collected, with the primitive; a refusal where oneDNN has none."""
        if isinstance(descriptor, Status):
            what = f"{self.variant.primitive} to {self.layer.output.dtype.value}"
            layouts = " > ".join(map(str, (*self.variant.inputs, self.variant.output)))
            return self.layer.refusal(f"oneDNN has no {what} in {layouts}: {descriptor.words}")
        return Recipe(descriptor, self.arguments, destination)

    # -- attributes -----------------------------------------------------------------------
    def quantized_source(self, argument: Argument, operand: Operand) -> Refusal | None:
        """Scale and zero point of one quantized per-tensor input."""
        affine = operand.affine
        if affine is None:
            return None
        if not affine.is_per_tensor:
            return self.layer.refusal("an activation is quantized per channel")
        self.constant(self.attributes.scale(argument), affine.scale)
        if affine.zero_point:
            point = np.array([affine.zero_point], np.int32)
            self.constant(self.attributes.zero_point(argument), point)
        return None

    def quantized_output(self) -> None:
        """Scale and zero point of a quantized output."""
        affine = self.layer.affine
        if affine is None:
            return
        self.constant(self.attributes.scale(Argument.DST), affine.scale)
        if affine.zero_point:
            point = np.array([affine.zero_point], np.int32)
            self.constant(self.attributes.zero_point(Argument.DST), point)

    def post_operations(
        self, post: Sequence[PostOperation], result: MemoryDescriptor
    ) -> Refusal | None:
        """Append the layer's post-operations, which see the result as ``result`` is shaped."""
        for operation in post:
            if isinstance(operation, Eltwise):
                self.attributes.eltwise(operation.algorithm, operation.alpha, operation.beta)
                continue
            refusal = self._combine(operation, result)
            if refusal is not None:
                return refusal
        return None

    def _combine(self, operation: Combine, result: MemoryDescriptor) -> Refusal | None:
        operand, shape = operation.operand, result.shape
        if operand.index is not None and operand.index == self.variant.overwrites:
            return self._sum(operand)
        if operand.permutation is not None:
            return self.layer.refusal("the other input of an elementwise step is transposed")
        viewed = broadcast_view(operand.shape, self.layer.result.shape, shape)
        if viewed is None:
            have = f"{operand.shape} over {self.layer.result.shape}"
            return self.layer.refusal(f"oneDNN has no broadcast of {have} seen as {shape}")
        affine = operand.affine
        if affine is None or operand.is_constant:
            return self._append(operation.algorithm, operand, viewed, result)
        if operation.algorithm is not Algorithm.ADD or not affine.is_per_tensor:
            return self.layer.refusal("a quantized input is only added, with one scale")
        # x + s·(q - z) = s·(x/s - z + q): a binary post-operation has no scale of its own.
        scale = float(affine.scale[0])
        self.attributes.eltwise(Algorithm.LINEAR, 1 / scale, float(-affine.zero_point))
        refusal = self._append(operation.algorithm, operand, viewed, result)
        self.attributes.eltwise(Algorithm.LINEAR, scale, 0.0)
        return refusal

    def _sum(self, operand: Operand) -> Refusal | None:
        affine = operand.affine
        if affine is None:
            self.attributes.sum()
        elif affine.is_per_tensor:
            self.attributes.sum(float(affine.scale[0]), affine.zero_point)
        else:
            return self.layer.refusal("what it adds in place is quantized per channel")
        return None

    def _append(
        self,
        algorithm: Algorithm,
        operand: Operand,
        viewed: tuple[int, ...],
        result: MemoryDescriptor,
    ) -> Refusal | None:
        element = self.variant.element(operand.type.dtype)
        if operand.array is not None:
            array = real_values(operand).reshape(viewed)
            full = viewed == result.shape and self.variant.output != LINEAR
            layout = self.variant.output if full else LINEAR
            wanted = describe_tensor(self.library, viewed, ElementType.F32, layout)
            self.constant(self.attributes.binary(algorithm, wanted), array, wanted)
            return None
        assert operand.index is not None
        layout = self.variant.inputs[operand.index]
        described = describe_tensor(self.library, viewed, element, layout)
        argument = self.attributes.binary(algorithm, described)
        self.arguments.inputs[argument] = (operand.index, described)
        return None


def broadcast_view(
    shape: Sequence[int], over: Sequence[int], seen: Sequence[int]
) -> tuple[int, ...] | None:
    """``shape``, which broadcasts to ``over``, as it lies beside ``over`` viewed as ``seen``.

    Only leading axes may be merged in the view (all but the last into one). None where that cuts
    a broadcast axis.
    """
    padded = (1,) * (len(over) - len(shape)) + tuple(shape)
    if tuple(over) == tuple(seen):
        return padded
    if len(seen) == 2 and len(over) >= 1 and seen[1] == (over[-1] if over else 1):
        lead = padded[:-1]
        if all(d == 1 for d in lead):
            return (1, padded[-1])
        if lead == tuple(over[:-1]):
            return (seen[0], padded[-1])
    return None


def real_values(operand: Operand) -> Array:
    """A constant operand as float32 numbers, its quantization undone."""
    assert operand.array is not None
    array, affine = operand.array, operand.affine
    if affine is not None:
        shape = [1] * array.ndim
        if affine.axis is not None:
            shape[affine.axis] = -1
        array = (array.astype(np.float32) - affine.zero_point) * affine.scale.reshape(shape)
    return array.astype(np.float32)


def linear_formats(layer: Layer) -> tuple[Format, ...]:
    """LINEAR for every dynamic input."""
    return (LINEAR,) * len(layer.problem.body.dynamic_inputs)


def overwritable(layer: Layer) -> int | None:
    """The dynamic input that may be added in the output's memory: the first that is added whole.

    It is read nowhere else in the layer, and stored as the output is.
    """
    read = [o.index for o in layer.operands if o is not None]
    added = [p.operand for p in layer.post if isinstance(p, Combine)]
    for p in layer.post:
        if not isinstance(p, Combine) or p.algorithm is not Algorithm.ADD:
            continue
        o, alone = p.operand, [*read, *(x.index for x in added)].count(p.operand.index) == 1
        whole = o.index is not None and o.permutation is None and o.type == layer.output
        if whole and alone and layer.result.shape == layer.output.shape:
            return o.index
    return None


def in_place_too(layer: Layer, found: Iterable[Variant]) -> Iterator[Variant]:
    """The variants, then each again with its sum in place where the layer has one."""
    kept = list(found)
    yield from kept
    index = overwritable(layer)
    if index is not None:
        for v in kept:
            if v.inputs[index] == v.output:
                yield replace(v, overwrites=index)


def assigned(
    layer: Layer, wanted: Sequence[tuple[Operand | None, Format]], output: Format
) -> tuple[Format, ...] | None:
    """A layout for each dynamic input, or None where two uses of one input differ.

    wanted: layouts of the anchor's own operands. Post-operations read tensors of the result's
    shape in the output's layout and smaller ones linear.
    """
    uses = [(o, f) for o, f in wanted if o is not None and o.index is not None]
    for p in layer.post:
        if isinstance(p, Combine) and p.operand.index is not None:
            full = tuple(p.operand.shape) == tuple(layer.result.shape)
            uses.append((p.operand, output if full else LINEAR))
    chosen: dict[int, Format] = {}
    for operand, layout in uses:
        assert operand.index is not None
        if chosen.setdefault(operand.index, layout) != layout:
            return None
    count = len(layer.problem.body.dynamic_inputs)
    return tuple(chosen.get(i, LINEAR) for i in range(count))
