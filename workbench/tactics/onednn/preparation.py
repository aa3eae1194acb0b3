"""From a chosen implementation to a Call: code generated, constants packed, steps in a row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workbench.body import Array, TensorType
from workbench.datatypes import DataType
from workbench.digests import sha256_hex
from workbench.errors import DeviceError
from workbench.formats import Format
from workbench.tactics.onednn.constants import Argument, ElementType, Status
from workbench.tactics.onednn.descriptors import (
    ALIGNMENT,
    ELEMENT_TYPES,
    Memory,
    MemoryDescriptor,
)
from workbench.tactics.onednn.library import Library
from workbench.tactics.onednn.parts import Layer
from workbench.tactics.onednn.primitives import Primitive, PrimitiveDescriptor, reorder, run
from workbench.tactics.onednn.recipe import (
    HALVES,
    Constant,
    Recipe,
    Variant,
    describe_tensor,
)
from workbench.tactics.onednn.steps import (
    HalfConversion,
    InputSlot,
    OutputSlot,
    PackedSlot,
    Slot,
    Step,
    Workspace,
    make_call,
    with_scratchpad,
)
from workbench.tactics.protocol import Call

WORTH_STORING = 1 << 12
"""Bytes from which a packed constant is stored in the plan, beside the linear one."""


def make_layer_call(
    library: Library,
    layer: Layer,
    variant: Variant,
    recipe: Recipe,
    descriptor: PrimitiveDescriptor,
) -> Call:
    """The Call that runs one implementation of a layer."""
    workspace = Workspace()
    arguments: dict[int, tuple[MemoryDescriptor, Slot]] = {}
    prepacked: dict[str, Array] = {}
    for argument, constant in recipe.arguments.constants.items():
        wanted, name = constant.wanted or descriptor.weights, _argument_name(argument)
        if wanted == constant.source:
            memory = _as_given(constant)
        elif wanted.size_bytes < WORTH_STORING:
            memory = pack(constant, wanted)
        else:
            key = _prepacked_key(library, name, constant, wanted)
            stored = layer.problem.prepacked.get(key)
            if stored is not None and stored.nbytes == wanted.size_bytes:
                memory = _in_place(wanted, stored)
            else:
                memory = pack(constant, wanted)
            prepacked[key] = np.asarray(memory.owner)
        arguments[argument] = (wanted, PackedSlot(name, memory))
    conversions = _Conversions(library, layer, variant, workspace)
    for argument, (index, seen) in recipe.arguments.inputs.items():
        arguments[argument] = (seen, conversions.input(index))
    target = conversions.output(recipe.destination)
    arguments[Argument.DST] = (recipe.destination, target)
    passes = [Step(Primitive(descriptor), arguments)]
    if recipe.first is not None:
        seen, source = arguments[Argument.SRC]
        between = arguments[Argument.SRC] = (seen, workspace.take(seen))
        first: dict[int, tuple[MemoryDescriptor, Slot]]
        first = {Argument.SRC: (recipe.first.source, source), Argument.DST: between}
        passes.insert(0, Step(Primitive(recipe.first.descriptor), first))
    steps = [*conversions.before, *passes, *conversions.after]
    ready = [with_scratchpad(s, workspace) if isinstance(s, Step) else s for s in steps]
    call = make_call(
        *(ready, descriptor.implementation, library),
        threads=layer.problem.threads,
        workspace_bytes=workspace.nbytes,
        overwrites=variant.overwrites,
    )
    return replace(call, prepacked=prepacked)


def lies_well(array: Array) -> bool:
    """Whether its first element begins a cache line."""
    return array.ctypes.data % ALIGNMENT == 0


def _as_given(constant: Constant) -> Memory:
    """A constant that lies as it is wanted: where it is, or a copy that begins a cache line."""
    array = constant.array
    if lies_well(array):
        return Memory.over(constant.source, array)
    if array.flags.c_contiguous and array.nbytes == constant.source.size_bytes:
        return _in_place(constant.source, array.reshape(-1).view(np.uint8))
    return pack(constant, constant.source)


def _in_place(wanted: MemoryDescriptor, stored: Array) -> Memory:
    """Packed bytes where they lie, or a copy of them where no cache line begins there."""
    if lies_well(stored):
        return Memory.over(wanted, stored)
    memory = Memory.allocated(wanted)
    np.copyto(np.asarray(memory.owner), stored)
    return memory


def _prepacked_key(
    library: Library, name: str, constant: Constant, wanted: MemoryDescriptor
) -> str:
    """What a plan stores packed bytes by: argument, both layouts, library and instruction set."""
    text = f"{library.fingerprint} {constant.source.text} > {wanted.text}"
    return f"{name} {sha256_hex(text.encode())[:16]}"


def pack(constant: Constant, wanted: MemoryDescriptor) -> Memory:
    """A constant in the layout and type that a primitive wants, in memory of its own."""
    packed = Memory.allocated(wanted)
    source = Memory.over(constant.source, constant.array)
    run(_reorder(constant.source, wanted), {Argument.SRC: source, Argument.DST: packed})
    return packed


class _Conversions:
    """Reorders around a primitive that computes in f32 what is stored in halves."""

    def __init__(
        self, library: Library, layer: Layer, variant: Variant, workspace: Workspace
    ) -> None:
        self.library, self.layer, self.variant = library, layer, variant
        self.workspace = workspace
        self.before: list[Step | HalfConversion] = []
        self.after: list[Step | HalfConversion] = []
        self._inputs: dict[int, Slot] = {}

    def input(self, index: int) -> Slot:
        """Where the primitive finds this dynamic input."""
        if index not in self._inputs:
            self._inputs[index] = self._read(index)
        return self._inputs[index]

    def _read(self, index: int) -> Slot:
        type_ = self.layer.problem.body.dynamic_inputs[index].type
        slot = InputSlot(index)
        if not self.variant.widened or type_.dtype not in HALVES:
            return slot
        wide = self._wide(type_, self.variant.inputs[index])
        target = self.workspace.take(wide)
        step = self._step(type_, self.variant.inputs[index], slot, target, widen=True)
        self.before.append(step)
        return target

    def output(self, seen: MemoryDescriptor) -> Slot:
        """Where the primitive writes its result, which it sees as ``seen``."""
        type_ = self.layer.output
        if not self.variant.widened or type_.dtype not in HALVES:
            return OutputSlot()
        source = self.workspace.take(seen)
        self.after.append(self._step(type_, self.variant.output, source, OutputSlot(), widen=False))
        return source

    def _wide(self, type_: TensorType, layout: Format) -> MemoryDescriptor:
        return describe_tensor(self.library, type_.shape, ElementType.F32, layout)

    def _step(
        self, type_: TensorType, layout: Format, source: Slot, target: Slot, *, widen: bool
    ) -> Step | HalfConversion:
        wide = self._wide(type_, layout)
        if type_.dtype is DataType.HALF:
            kinds = (type_.dtype, DataType.FLOAT) if widen else (DataType.FLOAT, type_.dtype)
            count = wide.size_bytes // DataType.FLOAT.itemsize
            return HalfConversion(count, (kinds[0], source), (kinds[1], target))
        narrow = describe_tensor(self.library, type_.shape, ELEMENT_TYPES[type_.dtype], layout)
        first, second = (narrow, wide) if widen else (wide, narrow)
        primitive = Primitive(_reorder(first, second))
        return Step(primitive, {Argument.SRC: (first, source), Argument.DST: (second, target)})


def _reorder(source: MemoryDescriptor, target: MemoryDescriptor) -> PrimitiveDescriptor:
    found = reorder(source, target)
    if isinstance(found, Status):
        raise DeviceError(
            f"oneDNN cannot rewrite {source.text} as {target.text}: {found.words}",
            place="dnnl_reorder_primitive_desc_create",
        )
    return found


def _argument_name(argument: int) -> str:
    base = argument & ~(Argument.SCALES | Argument.ZERO_POINTS)
    known = next((a.name.lower() for a in Argument if a == base), f"argument {base}")
    if argument & Argument.SCALES:
        return f"{known} scales"
    return f"{known} zero points" if argument & Argument.ZERO_POINTS else known
