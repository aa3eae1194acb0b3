"""Prepared primitives in a row, bound to addresses: what a Call of this source holds.

Most layers are one step. A layer whose type the CPU has no kernel for is three: convert to f32,
compute, convert back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from workbench.devices import Buffer
from workbench.errors import ExecutionError
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
    """The layer's output."""


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


def make_call(
    steps: Sequence[Step], kernel: str, library: Library, *, threads: int, workspace_bytes: int
) -> Call:
    """The Call that runs these steps under ``threads`` OpenMP threads."""
    packed = {
        slot.name: np.asarray(slot.memory.owner)
        for s in steps
        for _, slot in s.arguments.values()
        if isinstance(slot, PackedSlot)
    }

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        def memory(descriptor: MemoryDescriptor, slot: Slot) -> Memory:
            match slot:
                case PackedSlot():
                    return slot.memory
                case InputSlot():
                    buffer = inputs[slot.index]
                    return Memory(descriptor, buffer.address, buffer.memory)
                case OutputSlot():
                    return Memory(descriptor, outputs[0].address, outputs[0].memory)
                case WorkspaceSlot():
                    assert workspace is not None
                    return Memory(descriptor, workspace.address + slot.offset, workspace.memory)

        bound = [
            Execution(s.primitive, {a: memory(*where) for a, where in s.arguments.items()})
            for s in steps
        ]
        return _launch(bound, library, threads)

    return Call(kernel, bind, workspace_bytes, packed=packed)


class _ThreadState(threading.local):
    """OpenMP's thread count of each Python thread, as this module last set it."""

    count = 0


_state = _ThreadState()


def use_threads(library: Library, count: int) -> None:
    """Make the calling Python thread use ``count`` OpenMP threads."""
    if _state.count != count:
        library.set_threads(count)
        _state.count = count


def _failed(status: int, kernel: str) -> NoReturn:
    raise ExecutionError(status_text(status), place=kernel)


def _launch(bound: Sequence[Execution], library: Library, threads: int) -> Launch:
    execute: Callable[..., int] = library.function("dnnl_primitive_execute")
    state = _state
    if len(bound) == 1:
        (only,) = bound
        primitive, stream, count, arguments = only.call

        def launch_one() -> None:
            if state.count != threads:
                use_threads(library, threads)
            status = execute(primitive, stream, count, arguments)
            if status:
                _failed(status, only.primitive.implementation)

        return launch_one

    def launch_all() -> None:
        use_threads(library, threads)
        for execution in bound:
            status = execute(*execution.call)
            if status:
                _failed(status, execution.primitive.implementation)

    return launch_all
