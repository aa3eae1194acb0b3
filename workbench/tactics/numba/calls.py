"""From compiled kernels to Launches: raw buffers, constants, ranges over threads."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.body import Array, Body
from workbench.datatypes import DataType
from workbench.devices import ALIGNMENT, Buffer
from workbench.formats import LINEAR, Format
from workbench.tactics.numba.entry import machine_call
from workbench.tactics.numba.expressions import Operand
from workbench.tactics.numba.scalars import STORAGE
from workbench.tactics.protocol import Launch, Problem


def raw(buffer: Buffer, dtype: DataType) -> Array:
    """A buffer's elements, as generated code sees them."""
    return buffer.memory[: buffer.nbytes].view(STORAGE[dtype])


def part(kernel: Any, start: int, stop: int, *arrays: Array) -> Launch:
    """Iterations start to stop of a kernel's outermost loop."""
    arguments = (start, stop, *arrays)
    return machine_call(kernel, arguments) or (lambda: kernel(*arguments))


def channels_of(shape: Sequence[int], rank: int) -> int:
    """Size on axis 1 of a loop space of ``rank`` axes."""
    k = 1 - rank + len(shape)
    return shape[k] if k >= 0 else 1


def constant_layout(shape: Sequence[int], rank: int, layout: Format) -> Format:
    """The layout in which a constant is packed: linear where it has no channels of its own."""
    if layout == LINEAR or not layout.fits(rank):
        return LINEAR
    return layout if channels_of(shape, rank) > 1 else LINEAR


def packed_constants(
    operands: Sequence[Operand], problem: Problem, rank: int, layout: Format
) -> dict[int, Array]:
    """Constant operands by index, as kernels read them: flat, in their layout, bits as stored."""
    dynamic = {i.name for i in problem.body.dynamic_inputs}
    return {
        k: _packed(o, problem.constants, rank, layout)
        for k, o in enumerate(operands)
        if o.name not in dynamic
    }


def _packed(operand: Operand, constants: Mapping[str, Array], rank: int, layout: Format) -> Array:
    literal = operand.literal
    array = literal.array({}) if literal is not None else np.asarray(constants[operand.name])
    array = array.reshape(operand.stored or operand.shape)
    kept = constant_layout(operand.shape, rank, layout)
    if kept != LINEAR:
        array = kept.pack(array.reshape((*(1,) * (rank - array.ndim), *array.shape)))
    return readable(array).view(STORAGE[operand.dtype])


def on_a_line(array: Array) -> Array:
    """A contiguous copy whose first element begins a cache line, as it does in a plan.

    A vector that lies across two lines is read twice: products took a tenth longer.
    """
    space = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -space.ctypes.data % ALIGNMENT
    target = space[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(target, array)
    return target


def readable(array: Array) -> Array:
    """A constant's bytes, for a kernel that only reads them; keep the constant alive meanwhile.

    Kernels are compiled for arrays that can be written, weights may be read-only: this is the
    same memory without that mark.
    """
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if flat.flags.writeable:
        return flat
    memory = (ctypes.c_uint8 * flat.nbytes).from_address(flat.ctypes.data)
    # The view owns its address only; the array that owns the bytes hangs on it.
    memory.owner = flat  # pyright: ignore[reportAttributeAccessIssue]
    return np.ctypeslib.as_array(memory)


def operand_arrays(
    operands: Sequence[Operand],
    constants: Mapping[int, Array],
    body: Body,
    inputs: Sequence[Buffer],
) -> list[Array]:
    """What a kernel reads, in the operands' order."""
    dynamic = {i.name: k for k, i in enumerate(body.dynamic_inputs)}
    return [
        constants[k] if k in constants else raw(inputs[dynamic[o.name]], o.dtype)
        for k, o in enumerate(operands)
    ]


def clear_padding(
    buffer: Buffer, dtype: DataType, layout: Format, shape: Sequence[int]
) -> Launch | None:
    """Zeros in the lanes beyond the last channel; None where there are none."""
    if not layout.block or shape[1] % layout.block == 0:
        return None
    physical = layout.physical_shape(tuple(shape))
    count = int(np.prod(physical, dtype=np.int64))
    lanes = raw(buffer, dtype)[:count].reshape(physical)[:, -1, ..., shape[1] % layout.block :]

    def launch() -> None:
        lanes[...] = 0

    return launch


def cleared_outputs(body: Body, layout: Format, outputs: Sequence[Buffer]) -> list[Launch]:
    """Launches that zero the padding of every output in ``layout``."""
    found = (
        clear_padding(b, t.dtype, layout, t.shape)
        for b, t in zip(outputs, body.output_types, strict=True)
    )
    return [c for c in found if c is not None]
