"""Loop nests as source text: address arithmetic around the code of one row.

A kernel is ``kernel(start, stop, g, *operands, *outputs, *extra[, scratch])``. It runs iterations
start to stop of the outermost loop. g holds the loops' sizes, then every array's steps at each
loop, in elements: one compiled kernel serves every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.tactics.numba.cache import KernelText
from workbench.tactics.numba.expressions import IMPORTS
from workbench.tactics.numba.loops import Nest
from workbench.tactics.numba.scalars import STORAGE, loaded, stored

LANES = 16
"""Length of an innermost loop that is known when the kernel is compiled: the blocked layout's."""


@dataclass(frozen=True)
class Stream:
    """An array that a kernel runs through.

    unit: its step in the innermost loop is 1, else 0. lanes: the innermost loop has LANES turns;
    the array is then addressed without a slice, whose setup would cost more than the loop.
    index: an earlier array whose number says which row of n elements this one is read at.
    """

    dtype: DataType
    unit: bool
    lanes: bool = False
    index: int | None = None


def load_lines(reads: Sequence[int], streams: Sequence[Stream]) -> list[str]:
    """Inside the innermost loop: x{k} is element j of operand k."""
    lines: list[str] = []
    for k in reads:
        place = lane(f"a{k}") if streams[k].lanes else f"r{k}[j]"
        element = loaded(streams[k].dtype, place) if streams[k].unit else f"s{k}"
        lines.append(f"x{k} = {element}")
    return lines


def store_line(index: int, dtype: DataType, text: str, *, lanes: bool = False) -> str:
    """Inside the innermost loop: element j of output ``index``."""
    place = lane(f"o{index}") if lanes else f"q{index}[j]"
    return f"{place} = {stored(dtype, text)}"


def lane(array: str, offset: str = "") -> str:
    """Element j beyond an offset (the array's own if none is given), by an unsigned index.

    numba wraps negative signed indices, at each access.
    """
    return f"{array}[uint64({offset or f'p_{array}'} + j)]"


def indented(lines: Sequence[str], depth: int) -> list[str]:
    """Lines moved in by ``depth`` levels."""
    return [" " * 4 * depth + line for line in lines]


def nest_text(
    depth: int,
    streams: Sequence[Stream],
    outputs: Sequence[Stream],
    row: Sequence[str],
    *,
    head: Sequence[str] = (),
    extra: Sequence[tuple[str, str]] = (),
    scratch: bool = False,
) -> KernelText:
    """A kernel whose innermost loop is in ``row``: code over j in range(n).

    depth: number of loops, the innermost included. With one loop, start and stop cut that one.
    head: lines before all loops. extra: names and numba types of arrays that the row code
    addresses by itself.
    A stream that is not of unit step is the scalar s{k}; others are the row r{k}; outputs q{k}.
    """
    arrays = [f"a{k}" for k in range(len(streams))] + [f"o{k}" for k in range(len(outputs))]
    others = [name for name, _ in extra] + ["t"] * scratch
    lines = [f"def kernel({', '.join(['start', 'stop', 'g', *arrays, *others])}):"]
    outer = depth - 1
    lanes = any(s.lanes for s in (*streams, *outputs))
    count = str(LANES) if lanes else f"g[{outer}]" if outer else "stop - start"
    # Read once: after a store, LLVM must take g for changed.
    used = [*range(1, outer), *_outer_steps(depth, len(arrays))]
    lines += indented([f"n = {count}", *(f"g{k} = g[{k}]" for k in used), *head], 1)
    for level in range(outer):
        loop = "range(start, stop)" if level == 0 else f"range(g{level})"
        lines += indented([f"for i{level} in {loop}:"], 1 + level)
    inside = 1 + outer
    for position, (array, stream) in enumerate(zip(arrays, [*streams, *outputs], strict=True)):
        index, base = int(array[1:]), depth * (position + 1)
        steps = [f"i{level} * g{base + level}" for level in range(outer)]
        if not outer and stream.unit:
            steps = ["start"]
        if stream.index is not None:
            steps = [f"s{stream.index} * n"]
        offset = f"p_{array}"
        lines += indented([f"{offset} = {' + '.join(steps) or '0'}"], inside)
        row_name = f"r{index}" if array[0] == "a" else f"q{index}"
        if not stream.unit:
            text = f"s{index} = {loaded(stream.dtype, f'{array}[{offset}]')}"
            lines += indented([text], inside)
        elif not stream.lanes:
            lines += indented([f"{row_name} = {array}[{offset} : {offset} + n]"], inside)
    lines += indented(row, inside)
    source = IMPORTS + "\n\n" + "\n".join(lines) + "\n"
    kinds = [f"{STORAGE[s.dtype]}[::1]" for s in (*streams, *outputs)]
    kinds += [kind for _, kind in extra] + ["float32[::1]"] * scratch
    signature = f"void({', '.join(['int64', 'int64', 'int64[::1]', *kinds])})"
    return KernelText(source, signature)


def _outer_steps(depth: int, arrays: int) -> list[int]:
    """Where g holds each array's steps at the loops around the innermost."""
    return [depth * (k + 1) + level for k in range(arrays) for level in range(depth - 1)]


def geometry(nest: Nest) -> Array:
    """The numbers of ``g``."""
    return np.array([*nest.sizes, *(s for steps in nest.strides for s in steps)], np.int64)


def units(nest: Nest) -> list[bool] | None:
    """Which arrays have unit step in the innermost loop; None if one has neither 1 nor 0."""
    inner = [steps[-1] for steps in nest.strides]
    return [s == 1 for s in inner] if all(s in (0, 1) for s in inner) else None
