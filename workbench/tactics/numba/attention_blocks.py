"""What the attention kernels of floats and of integers share: where heads lie, blocks of queries.

The kernels differ in what they pack and multiply; both read heads where they lie, cut the queries
of a head into blocks, and keep a block's scores in scratch memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import CONSTANT, Array, Body, BodyInput, Node, TensorType
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.dimensions import Shape
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.attention_body import Way, is_number
from workbench.tactics.numba.calls import operand_arrays, packed_constants, part, raw
from workbench.tactics.numba.expressions import Operand
from workbench.tactics.numba.loops import broadcast_strides
from workbench.tactics.numba.nests import Stream
from workbench.tactics.numba.threads import pieces, together
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.strided import Strided
from workbench.tactics.workspace import over_limit

MOST_QUERIES = 64
"""Queries in a block: beyond it, reading keys and values again costs nothing that matters."""
WORD = 16
"""Elements to a multiple of which each part of scratch memory is aligned: 64 bytes."""

Step = tuple[int, int]
"""From one row to the next, and from one column to the next, in elements."""


# -- where heads lie ----------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Heads:
    """Where everything lies that an attention's kernel reads and writes.

    operands: arrays that the kernel reads: those of queries, keys and values first, then what the
    softmax's passes read. table: each array's first element a head, [arrays, heads], the output
    last. sizes: queries, keys, size of a query, size of a value. steps: of every array within a
    head.
    """

    operands: tuple[Operand, ...]
    table: Array
    sizes: tuple[int, int, int, int]
    steps: tuple[Step, ...]

    @property
    def heads(self) -> int:
        return self.table.shape[1]

    @property
    def elements(self) -> int:
        """Scores of all heads."""
        return self.heads * self.sizes[0] * self.sizes[1]


def placed(
    ways: Sequence[Way], result: Way, masks: Sequence[Operand], shape: Shape
) -> tuple[Array, tuple[Step, ...], tuple[Stream, ...]]:
    """Table and steps of ``ways``, of what is read beside the scores, and of the result.

    shape: of the scores. The streams are those of the masks. Raises Untranslatable.
    """
    rank = len(shape)
    tables = [w.view.offsets(range(rank - 2)) for w in (*ways, result)]
    steps = [_steps(w) for w in (*ways, result)]
    strides = [broadcast_strides(o.shape, rank) for o in masks]
    tables[-1:-1] = [_whole_view(shape, m).offsets(range(rank - 2)) for m in strides]
    steps[-1:-1] = [(m[-2], m[-1]) for m in strides]
    streams = tuple(Stream(o.dtype, m[-1] == 1) for o, m in zip(masks, strides, strict=True))
    return np.stack(tables), tuple(steps), streams


def require_along(masks: Sequence[Operand], shape: Shape) -> None:
    """Raises Untranslatable for what does not lie along the scores, which have this shape."""
    rank = len(shape)
    for o in masks:
        if len(o.shape) > rank or broadcast_strides(o.shape, rank)[-1] not in (0, 1):
            raise Untranslatable(f"'{o.name}' does not lie along the scores")


def _steps(way: Way) -> Step:
    """Distance of a head's rows, and of its columns. Raises Untranslatable."""
    row, column = way.steps
    # One column lies anywhere.
    return row, 1 if way.view.shape[-1] == 1 else column


def _whole_view(shape: Sequence[int], strides: Sequence[int]) -> Strided:
    """A broadcast operand's view of the scores."""
    return Strided(0, tuple(((n, s),) for n, s in zip(shape, strides, strict=True)))


def of_one_element(
    body: Body, nodes: Sequence[Node], dtype: DataType, scales: Sequence[BodyInput] = ()
) -> Body:
    """Pointwise nodes, one behind the other, as a Body of the element ``x``.

    scales: the constants that they read beside numbers.
    """
    kept = {i.name for i in scales}
    literals = [n for n in body.nodes if n.operator is CONSTANT]
    chain: list[Node] = []
    name = "x"
    for k, n in enumerate(nodes):
        inputs = tuple(v if v in kept or is_number(body, v) else name for v in n.inputs)
        name = f"x{k}"
        chain.append(Node(n.operator, inputs, (name,), n.attributes))
    start = BodyInput("x", TensorType(dtype, ()))
    return Body((start, *scales), (*literals, *chain), (name,))


# -- blocks of queries --------------------------------------------------------------------
@dataclass(frozen=True)
class Blocks:
    """How the queries are cut, and where in scratch memory each part lies.

    parts: of a head, for threads. geometry: what the kernel reads of it. length: scratch memory of
    a thread, in elements of four bytes.
    """

    parts: int
    geometry: Array
    length: int


def cut(
    plan: Heads, threads: int, *, rows: int, deep: int, line: int, sizes: Sequence[int]
) -> Blocks:
    """Blocks of ``rows`` queries. sizes: of each part of scratch memory, in order.

    deep, line: size of a packed key, and of a row of scores.
    """
    blocks = -(-plan.sizes[0] // rows)
    parts = min(blocks, -(-threads * 2 // plan.heads)) if threads > 1 else 1
    starts = [0]
    for n in sizes:
        starts.append(starts[-1] + -(-n // WORD) * WORD)
    numbers = [
        *(*plan.sizes, plan.heads, rows, parts, deep, line),
        *starts[:-1],
        *(s for pair in plan.steps for s in pair),
    ]
    return Blocks(parts, np.array(numbers, np.int64), starts[-1])


def blocked_call(
    plan: Heads,
    problem: Problem,
    blocks: Blocks,
    threads: int,
    *,
    title: str,
    compiled: Callable[[], Any],
    numbers: Sequence[Array] = (),
    scratch: Callable[[Array], Sequence[Array]] = lambda own: (own,),
) -> Call | Refusal:
    """The Call of a plan whose kernel ``compiled`` gives.

    numbers: what it reads behind its operands. scratch: a thread's own, as the kernel takes it.
    """
    body = problem.body
    ranges = pieces(plan.heads * blocks.parts, threads)
    nbytes = len(ranges) * blocks.length * 4
    hungry = over_limit(nbytes, problem.workspace_limit)
    if hungry is not None:
        return hungry
    kernel = compiled()
    constants = packed_constants(plan.operands, problem, 0, LINEAR)
    table = np.ascontiguousarray(plan.table.reshape(-1))

    def bind(
        inputs: Sequence[Buffer], results: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        assert workspace is not None
        arrays = operand_arrays(plan.operands, constants, body, inputs)
        arrays += [raw(results[0], body.output_types[0].dtype), *numbers]
        whole = raw(workspace, DataType.FLOAT)
        launches: list[Launch] = []
        for k, (a, b) in enumerate(ranges):
            own = scratch(whole[k * blocks.length : (k + 1) * blocks.length])
            launches.append(part(kernel, a, b, blocks.geometry, table, *arrays, *own))
        return together(launches)

    packed = {plan.operands[k].name: v for k, v in constants.items()}
    return Call(title, bind, nbytes, packed=packed)
