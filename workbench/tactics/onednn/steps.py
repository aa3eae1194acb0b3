"""Prepared primitives in a row, bound to addresses: what a Call of this source holds.

Most layers are one primitive. A layer whose half type the CPU has no arithmetic for is three steps:
convert to f32, compute, convert back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.tactics.native import copy, function_call, in_order, procedure
from workbench.tactics.onednn.constants import Argument
from workbench.tactics.onednn.descriptors import ALIGNMENT, Memory, MemoryDescriptor
from workbench.tactics.onednn.library import Library, status_text
from workbench.tactics.onednn.primitives import Execution, Primitive
from workbench.tactics.protocol import Call, Launch


@dataclass(frozen=True)
class InputSlot:
    """The dynamic input at this position."""

    index: int


@dataclass(frozen=True)
class OutputSlot:
    """The output at this position."""

    index: int = 0


@dataclass(frozen=True)
class WorkspaceSlot:
    """A stretch of the workspace. offset: bytes, a multiple of ALIGNMENT."""

    offset: int


@dataclass(frozen=True, eq=False)
class PackedSlot:
    """Bytes fixed when the layer is prepared: packed weights, bias, scales."""

    name: str
    memory: Memory


Slot = InputSlot | OutputSlot | WorkspaceSlot | PackedSlot


@dataclass(frozen=True, eq=False)
class Step:
    """One primitive and where each of its arguments lies."""

    primitive: Primitive
    arguments: Mapping[int, tuple[MemoryDescriptor, Slot]]


@dataclass(frozen=True, eq=False)
class HalfConversion:
    """Elements from one float type to another, in place in the layout; by NumPy.

    oneDNN 3.2 converts FP16 one element after the other on a CPU without AVX512-FP16: measured,
    40 times slower than this.
    """

    count: int
    source: tuple[DataType, Slot]
    target: tuple[DataType, Slot]


class Workspace:
    """Offsets into the workspace, handed out one after the other."""

    def __init__(self) -> None:
        self.nbytes = 0

    def take(self, descriptor: MemoryDescriptor) -> WorkspaceSlot:
        """A stretch that holds the described tensor."""
        slot = WorkspaceSlot(self.nbytes)
        self.nbytes += -(-descriptor.size_bytes // ALIGNMENT) * ALIGNMENT
        return slot


def with_scratchpad(step: Step, workspace: Workspace) -> Step:
    """The step with the scratch memory that its primitive asks for."""
    scratchpad = step.primitive.descriptor.scratchpad
    if not scratchpad.size_bytes:
        return step
    slot = workspace.take(scratchpad)
    return Step(step.primitive, {**step.arguments, Argument.SCRATCHPAD: (scratchpad, slot)})


@dataclass(frozen=True, eq=False)
class _Places:
    """The buffers that one binding of a Call has."""

    inputs: Sequence[Buffer]
    outputs: Sequence[Buffer]
    workspace: Buffer | None

    def buffer(self, slot: Slot) -> Buffer:
        match slot:
            case InputSlot(index):
                return self.inputs[index]
            case OutputSlot(index):
                return self.outputs[index]
            case WorkspaceSlot(offset):
                assert self.workspace is not None
                return self.workspace.slice(offset, self.workspace.nbytes - offset)
            case PackedSlot():
                raise AssertionError("packed constants have memories of their own")

    def memory(self, descriptor: MemoryDescriptor, slot: Slot) -> Memory:
        if isinstance(slot, PackedSlot):
            return slot.memory
        buffer = self.buffer(slot)
        return Memory(descriptor, buffer.address, buffer.memory)

    def array(self, kind: DataType, slot: Slot, count: int) -> Array:
        return self.buffer(slot).view(kind, (count,))


def make_call(
    steps: Sequence[Step | HalfConversion],
    kernel: str,
    library: Library,
    *,
    threads: int,
    workspace_bytes: int,
    overwrites: int | None = None,
) -> Call:
    """The Call that runs these steps under ``threads`` OpenMP threads.

    overwrites: the input that the steps expect in the output's memory; copied where it is not.
    """
    packed = {
        slot.name: np.asarray(slot.memory.owner)
        for s in steps
        if isinstance(s, Step)
        for _, slot in s.arguments.values()
        if isinstance(slot, PackedSlot)
    }

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        places = _Places(inputs, outputs, workspace)
        launches = [
            _execution(s, places, library, threads)
            if isinstance(s, Step)
            else _conversion(s, places)
            for s in steps
        ]
        if overwrites is not None and inputs[overwrites].address != outputs[0].address:
            given, target = inputs[overwrites], outputs[0]
            moved, _ = copy(target.address, given.address, min(given.nbytes, target.nbytes))
            launches.insert(0, moved)
        return in_order(launches)

    return Call(kernel, bind, workspace_bytes, packed=packed)


def _execution(step: Step, places: _Places, library: Library, threads: int) -> Launch:
    memories = {a: places.memory(*where) for a, where in step.arguments.items()}
    execution = Execution(step.primitive, memories)
    # OpenMP's count is the calling thread's, whatever ran before: a neighbour may want another one.
    team, _ = procedure(library.set_threads_address, (threads,), "omp_set_num_threads")
    run = function_call(
        library.execute_address,
        execution.call,
        execution.primitive.implementation,
        execution,
        words_of=status_text,
    )
    return in_order([team, run])


def _conversion(step: HalfConversion, places: _Places) -> Launch:
    source = places.array(*step.source, step.count)
    target = places.array(*step.target, step.count)

    def launch() -> None:
        # Values beyond FP16's range become infinite, as ONNX's Cast makes them.
        with np.errstate(over="ignore"):
            np.copyto(target, source, casting="unsafe")

    return launch
