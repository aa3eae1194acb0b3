"""Copies between strided views: rows, blocked transpositions, gathered rows.

Three small kernels, compiled once for each element size, do every Transpose, Slice, Concat,
Split, Expand, Gather and reformat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Array, Body
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.errors import ExecutionError
from workbench.formats import Format
from workbench.records import Refusal
from workbench.tactics.native import in_order
from workbench.tactics.numba.cache import KernelCache, KernelText
from workbench.tactics.numba.calls import clear_padding, part, readable
from workbench.tactics.numba.threads import pieces, together
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.views import Copy, movement_copies, reformat_copies, strided

OUTER = 3
"""Loops around the two innermost ones."""

_HEAD = """\
def kernel(start, stop, g, source, target):
    for o0 in range(start, stop):
        for o1 in range(g[3]):
            for o2 in range(g[4]):
                s = g[0] + o0 * g[5] + o1 * g[6] + o2 * g[7]
                d = g[1] + o0 * g[8] + o1 * g[9] + o2 * g[10]
                m, n, sm, sn, dm, dn = g[11], g[12], g[13], g[14], g[15], g[16]
"""

ROWS = """\
                for i in range(m):
                    a = source[s + i * sm : s + i * sm + n]
                    b = target[d + i * dm : d + i * dm + n]
                    for j in range(n):
                        b[j] = a[j]
"""
"""Both views have unit step innermost."""

TRANSPOSED = """\
                read = source.ctypes.data + s * WIDTH
                write = target.ctypes.data + d * WIDTH
                for j0 in range(0, n, 64):
                    j1 = min(j0 + 64, n)
                    whole = j0 + (j1 - j0) // BLOCK * BLOCK
                    for i in range(0, m // BLOCK * BLOCK, BLOCK):
                        for j in range(j0, whole, BLOCK):
                            transpose_uBITS(
                                read + (i + j * sn) * WIDTH, sn * WIDTH,
                                write + (i * dm + j) * WIDTH, dm * WIDTH,
                            )
                        for j in range(whole, j1):
                            for k in range(i, i + BLOCK):
                                target[d + k * dm + j] = source[s + k + j * sn]
                    for i in range(m // BLOCK * BLOCK, m):
                        for j in range(j0, j1):
                            target[d + i * dm + j] = source[s + i + j * sn]
"""
"""The target has unit step innermost, the source in the loop before. Squares in registers; 64
columns at a time, so that each cache line that is read serves all its rows."""

BLOCKS = {1: 16, 2: 8, 4: 8, 8: 4}
"""Rows of a square, by bytes of an element."""

STRIDED = """\
                for i in range(m):
                    for j in range(n):
                        target[d + i * dm + j * dn] = source[s + i * sm + j * sn]
"""
"""Any steps."""

GATHER = """\
def kernel(start, stop, g, source, target, index, bad):
    # g: rows of the source, elements a row, indices; start and stop count (outer, index) pairs.
    # bad: where the first index outside lies, or -1.
    bad[0] = -1
    for k in range(start, stop):
        r = index[k % g[2]]
        r = r + g[0] if r < 0 else r
        if r < 0 or r >= g[0]:
            bad[0] = k % g[2]
            return
        s = (k // g[2] * g[0] + r) * g[1]
        a = source[s : s + g[1]]
        b = target[k * g[1] : k * g[1] + g[1]]
        for j in range(g[1]):
            b[j] = a[j]
"""


@dataclass(frozen=True, eq=False)
class StridedCopy:
    """One copy as loops.

    code: which of the kernels. g: its numbers. plain: one stretch of memory.
    """

    code: str
    g: Array
    outer: int
    plain: bool
    copy: Copy


def strided_copy(copy: Copy) -> StridedCopy | Refusal:
    """Loops over a copy: axes merged, the target's smallest step innermost."""
    (s0, ss), (d0, ds) = strided(copy.read), strided(copy.write)
    axes = sorted(
        ((n, s, d) for n, s, d in zip(copy.read.shape, ss, ds, strict=True) if n != 1),
        key=lambda a: -abs(a[2]),
    )
    merged: list[tuple[int, int, int]] = []
    for n, s, d in axes:
        if merged and merged[-1][1] == s * n and merged[-1][2] == d * n:
            merged[-1] = (merged[-1][0] * n, s, d)
        else:
            merged.append((n, s, d))
    if not merged:
        merged = [(1, 1, 1)]
    plain = len(merged) == 1 and merged[0][1:] == (1, 1)
    inner = merged.pop()
    # The loop before the innermost: where the source runs on, if the innermost jumps.
    position = next((k for k, a in enumerate(merged) if a[1] == 1), len(merged) - 1)
    second = merged.pop(position) if merged else (1, 0, 0)
    if len(merged) > OUTER:
        return Refusal(f"{len(merged) + 2} loops do not merge", code="loops")
    code = STRIDED
    if inner[2] == 1 and inner[1] == 1:
        code = ROWS
    elif inner[2] == 1 and second[1] == 1:
        code = TRANSPOSED
    outer = [*merged, *[(1, 0, 0)] * (OUTER - len(merged))]
    numbers = [s0, d0]
    for column in range(3):
        numbers += [a[column] for a in outer]
    for column in range(3):
        numbers += [second[column], inner[column]]
    return StridedCopy(code, np.array(numbers, np.int64), outer[0][0], plain, copy)


# -- plan ---------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class CopyPlan:
    """The copies of a Body, and the layout whose padding they leave to be zeroed."""

    copies: tuple[StridedCopy, ...]
    layout: Format

    @property
    def elements(self) -> int:
        return sum(c.copy.read.size for c in self.copies)


def plan_copies(body: Body, layout: Format) -> CopyPlan | Refusal:
    """How to run a Body of movement nodes."""
    found = movement_copies(body, layout)
    return found if isinstance(found, Refusal) else _plan(found, layout)


def plan_reformat(body: Body, source: Format, target: Format) -> CopyPlan | Refusal:
    """How to rewrite the Body's one tensor in another layout."""
    t = body.inputs[0].type
    name = body.inputs[0].name
    return _plan(reformat_copies(name, t.shape, t.dtype.numpy, source, target), target)


def _plan(copies: Sequence[Copy], layout: Format) -> CopyPlan | Refusal:
    made: list[StridedCopy] = []
    for c in copies:
        if not c.read.size:
            continue
        one = strided_copy(c)
        if isinstance(one, Refusal):
            return one
        made.append(one)
    if len(made) <= 1 and all(c.plain for c in made):
        return Refusal("one stretch of memory: NUMPY copies it as fast", code="plain_copy")
    return CopyPlan(tuple(made), layout)


# -- call ---------------------------------------------------------------------------------
def copies_call(plan: CopyPlan, problem: Problem, cache: KernelCache, threads: int) -> Call:
    """Compile what the copies need and give the Call."""
    body = problem.body
    kernels = [None if c.plain else cache.compile(_text(c)) for c in plan.copies]
    dynamic = {i.name: k for k, i in enumerate(body.dynamic_inputs)}

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        launches: list[Launch] = []
        for c, kernel in zip(plan.copies, kernels, strict=True):
            word = _word(c.copy.read.itemsize)
            if c.copy.source in dynamic:
                read = inputs[dynamic[c.copy.source]].memory.view(word)
            else:
                read = readable(problem.constants[c.copy.source]).view(word)
            write = outputs[c.copy.output].memory.view(word)
            if kernel is None:
                launches.append(_stretch(c, read, write))
            else:
                ranges = pieces(c.outer, threads)
                launches.append(together([part(kernel, a, b, c.g, read, write) for a, b in ranges]))
        for k, t in enumerate(body.output_types):
            cleared = clear_padding(outputs[k], t.dtype, plan.layout, t.shape)
            if cleared is not None:
                launches.append(cleared)
        return in_order(launches)

    return Call(f"numba copy {'+'.join(body.operator_names)}", bind)


def _stretch(c: StridedCopy, read: Array, write: Array) -> Launch:
    s, d, count = int(c.g[0]), int(c.g[1]), c.copy.read.size
    source, target = read[s : s + count], write[d : d + count]

    def launch() -> None:
        target[...] = source

    return launch


def _word(itemsize: int) -> np.dtype[Any]:
    return np.dtype(f"u{itemsize}")


def _text(c: StridedCopy) -> KernelText:
    width = c.copy.read.itemsize
    word = f"uint{width * 8}[::1]"
    signature = f"void(int64, int64, int64[::1], {word}, {word})"
    if c.code is not TRANSPOSED:
        return KernelText(_HEAD + c.code, signature)
    names = {"WIDTH": width, "BLOCK": BLOCKS[width], "BITS": width * 8}
    code = c.code
    for name, value in names.items():
        code = code.replace(name, str(value))
    head = f"from workbench.tactics.numba.blocks import transpose_u{width * 8}\n\n\n"
    return KernelText(head + _HEAD + code, signature)


# -- gather -------------------------------------------------------------------------------
def gather_refusal(body: Body) -> Refusal | None:
    """Why a Body is not a Gather of rows, or None."""
    if body.operator_names != ("Gather",) or len(body.nodes) != 1:
        return Refusal("not a Gather alone", code="not_gather")
    data, index = (body.types[v] for v in body.nodes[0].inputs)
    if index.dtype not in (DataType.INT32, DataType.INT64):
        return Refusal(f"indices are {index.dtype}", code="type")
    if dimensions.volume(data.shape) == 0:
        return Refusal("it gathers from nothing", code="empty")
    return None


def gather_call(problem: Problem, cache: KernelCache, threads: int) -> Call:
    """Rows of a table by index; an index outside raises ExecutionError at the launch."""
    body, node = problem.body, problem.body.nodes[0]
    table, index = node.inputs
    data, chosen = body.types[table], body.types[index]
    axis = node.attributes["axis"] % len(data.shape)
    rows, length = data.shape[axis], math.prod(data.shape[axis + 1 :])
    count = math.prod(chosen.shape)
    total = math.prod(data.shape[:axis]) * count
    g = np.array([rows, length, count], np.int64)
    word = f"uint{data.dtype.itemsize * 8}[::1]"
    arrays = f"int64[::1], {word}, {word}, {chosen.dtype.numpy}[::1], int64[::1]"
    kernel = cache.compile(KernelText(GATHER, f"void(int64, int64, {arrays})"))
    dynamic = {i.name: k for k, i in enumerate(body.dynamic_inputs)}

    def array(name: str, inputs: Sequence[Buffer], dtype: Any) -> Array:
        if name in dynamic:
            return inputs[dynamic[name]].memory.view(dtype)
        return readable(problem.constants[name]).view(dtype)

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        size = _word(data.dtype.itemsize)
        source, target = array(table, inputs, size), outputs[0].memory.view(size)
        numbers = array(index, inputs, chosen.dtype.numpy)

        ranges = pieces(total, threads)
        bad = np.full((len(ranges), 1), -1, np.int64)
        run = together(
            [
                part(kernel, a, b, g, source, target, numbers, bad[k])
                for k, (a, b) in enumerate(ranges)
            ]
        )

        def check() -> None:
            for where in bad[bad >= 0][:1]:
                raise ExecutionError(
                    f"index {numbers[where]} lies outside size {rows}",
                    place=f"Gather '{node.outputs[0]}'",
                    remedy="give indices inside the table",
                )

        return in_order([run, check])

    return Call("numba gather", bind)
