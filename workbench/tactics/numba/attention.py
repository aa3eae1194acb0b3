"""Attention in one kernel: softmax(Q·Kᵀ ...)·V, block by block of queries, a head at a time.

Heads are read where they lie: transposes, reshapes, splits and repeated heads are strides. The
scores of a block stay in scratch memory; masks, scales and soft caps are part of the softmax's
passes. Products run in float32, tile by tile in registers (``tiles.py``).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import CONSTANT, Array, Body, BodyInput, Node, TensorType
from workbench.datatypes import DataType
from workbench.devices import Buffer, CpuDevice
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.arithmetic import is_reduced
from workbench.tactics.attention_body import Way, is_number, read_attention
from workbench.tactics.numba.attention_code import AttentionCode, Factor, Tile, attention_text
from workbench.tactics.numba.cache import KernelCache
from workbench.tactics.numba.calls import operand_arrays, packed_constants, part, raw
from workbench.tactics.numba.expressions import Operand, Translator
from workbench.tactics.numba.loops import broadcast_strides
from workbench.tactics.numba.nests import Stream
from workbench.tactics.numba.threads import pieces, together
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.strided import Strided
from workbench.tactics.workspace import over_limit

BLOCK_BYTES = 1 << 17
"""Scores of one block of queries: they stay in the second-level cache."""

MOST_QUERIES = 64
"""Queries in a block: beyond it, reading keys and values again costs nothing that matters."""


@dataclass(frozen=True, eq=False)
class AttentionPlan:
    """The code, and where everything lies.

    operands: arrays that the kernel reads: those of queries, keys and values first, then what the
    softmax's passes read. table: each array's first element a head, [arrays, heads], the output
    last. sizes: queries, keys, size of a query, size of a value. steps: of every array within a
    head, as (row, column).
    """

    operands: tuple[Operand, ...]
    code: AttentionCode
    table: Array
    sizes: tuple[int, int, int, int]
    steps: tuple[tuple[int, int], ...]

    @property
    def heads(self) -> int:
        return self.table.shape[1]

    @property
    def elements(self) -> int:
        """Scores of all heads."""
        return self.heads * self.sizes[0] * self.sizes[1]


@functools.cache
def _has_wide_registers() -> bool:
    known = CpuDevice().fingerprint.features
    if known:
        return "avx512f" in known
    # Not Linux: LLVM knows, but takes 40 MiB to say so.
    from llvmlite import binding

    return bool(binding.get_host_cpu_features().get("avx512f"))


def tile_for(keys: int, width: int) -> Tile:
    """The tile that fits this processor's vector registers, and is not wider than both products."""
    if not _has_wide_registers():
        return Tile("tile_6x16", 6, 16)
    return Tile("tile_8x16", 8, 16) if max(keys, width) <= 16 else Tile("tile_8x32", 8, 32)


# -- plan ---------------------------------------------------------------------------------
def plan_attention(body: Body) -> AttentionPlan | Refusal:
    """How to run a Body of two products with a softmax between them, on linear tensors."""
    try:
        return _Reader(body).plan()
    except Untranslatable as e:
        return Refusal(str(e), code="not_attention")


class _Reader:
    """What the kernel needs of an attention. Raises Untranslatable, naming what does not fit."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.read = read_attention(body)
        self.inputs = {i.name: i.type for i in body.inputs}

    def plan(self) -> AttentionPlan:
        body, read = self.body, self.read
        ways = (read.queries, read.keys, read.values)
        for w in ways:
            dtype = self.inputs[w.source].dtype
            if not (dtype is DataType.FLOAT or is_reduced(dtype)):
                raise Untranslatable(f"'{w.source}' is {dtype}: its products are not float32's")
        operands, before, after = self._passes()
        finish = self._finishing(operands)
        shape = body.types[read.scores.outputs[0]].shape
        rank = len(shape)
        places = (*ways, read.result)
        tables = [w.view.offsets(range(rank - 2)) for w in places]
        steps = [steps_of(w) for w in places]
        masks = [broadcast_strides(o.shape, rank) for o in operands]
        tables[3:3] = [whole_view(shape, m).offsets(range(rank - 2)) for m in masks]
        steps[3:3] = [(m[-2], m[-1]) for m in masks]
        streams = tuple(Stream(o.dtype, m[-1] == 1) for o, m in zip(operands, masks, strict=True))
        types = [self.inputs[w.source] for w in ways]
        sources = tuple(
            Operand(w.source, t.dtype, t.shape) for w, t in zip(ways, types, strict=True)
        )
        factors = tuple(
            Factor(t.dtype, s[1] == 1, *self._scaling(w.nodes, w.source))
            for w, t, s in zip(ways, types, steps, strict=False)
        )
        result = Factor(body.output_types[0].dtype, steps[-1][1] == 1, *finish)
        tile = tile_for(read.sizes[1], read.sizes[3])
        turned = steps[1][0] == 1 and steps[1][1] != 1
        code = AttentionCode(tile, factors, result, turned, streams, *before, *after)
        return AttentionPlan(
            (*sources, *operands), code, np.stack(tables), read.sizes, tuple(steps)
        )

    def _finishing(self, operands: list[Operand]) -> tuple[tuple[str, ...], str]:
        """What becomes of the result; the scale that quantizes it joins the operands."""
        first = len(operands)
        read = self.read
        lines, text = self._scaling(read.result.nodes, read.mix.outputs[0], operands)
        # The softmax's pass of each row has read it: a load here would keep LLVM from vectors.
        loads = [f"x{k} = s{k}" for k in range(first, len(operands))]
        return (*loads, *lines), text

    def _scaling(
        self, nodes: Sequence[Node], source: str, operands: list[Operand] | None = None
    ) -> tuple[tuple[str, ...], str]:
        """Lines that turn the element x into what the product reads, and the result's name."""
        read = {v for n in nodes for v in n.inputs}
        scales = tuple(i for i in self.body.inputs if i.constant and i.name in read)
        constant = {i.name for i in scales}
        literals = [n for n in self.body.nodes if n.operator is CONSTANT]
        chain: list[Node] = []
        name = "x"
        for k, n in enumerate(nodes):
            inputs = tuple(
                v if v in constant or is_number(self.body, v) else name for v in n.inputs
            )
            name = f"x{k}"
            chain.append(Node(n.operator, inputs, (name,), n.attributes))
        start = BodyInput("x", TensorType(self.body.types[source].dtype, ()))
        small = Body((start, *scales), (*literals, *chain), (name,))
        translator = Translator(small, [] if operands is None else operands)
        translator.define("x", "x")
        result = translator.value(name).text
        return tuple(translator.lines), result

    # -- softmax --------------------------------------------------------------------------
    def _passes(self) -> tuple[list[Operand], tuple[Any, ...], tuple[Any, ...]]:
        """What lies between the products: operands, then (lines, result, reads) of each side."""
        scores, softmax, mix = self.read.scores, self.read.softmax, self.read.mix
        operands: list[Operand] = []
        sides: list[tuple[Any, ...]] = []
        for start, text, end in (
            (scores.outputs[0], "t[j]", softmax.inputs[0]),
            (softmax.outputs[0], "y", mix.inputs[0]),
        ):
            translator = Translator(self.body, operands)
            translator.define(start, text)
            result = translator.value(end).text
            sides.append((tuple(translator.lines), result, tuple(translator.reads)))
        shape = self.body.types[scores.outputs[0]].shape
        for o in operands:
            steps = broadcast_strides(o.shape, len(shape))
            if len(o.shape) > len(shape) or steps[-1] not in (0, 1):
                raise Untranslatable(f"'{o.name}' does not lie along the scores")
        return operands, sides[0], sides[1]


def steps_of(way: Way) -> tuple[int, int]:
    """Distance of a head's rows, and of its columns. Raises Untranslatable."""
    row, column = way.steps
    # One column lies anywhere.
    return row, 1 if way.view.shape[-1] == 1 else column


def whole_view(shape: Sequence[int], strides: Sequence[int]) -> Strided:
    """A broadcast operand's view of the scores."""
    return Strided(0, tuple(((n, s),) for n, s in zip(shape, strides, strict=True)))


# -- call ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Blocks:
    """How the queries are cut, and where in scratch memory (float32) each part lies."""

    rows: int
    parts: int
    geometry: Array
    length: int


def _blocks(plan: AttentionPlan, threads: int) -> _Blocks:
    queries, keys, depth, width = plan.sizes
    tile = plan.code.tile
    panels, columns = -(-keys // tile.columns), -(-width // tile.columns)
    deep, line = -(-depth // 8) * 8, panels * tile.columns
    fits = max(1, min(MOST_QUERIES, BLOCK_BYTES // (4 * line)) // tile.rows) * tile.rows
    rows = min(fits, -(-queries // tile.rows) * tile.rows)
    blocks = -(-queries // rows)
    parts = min(blocks, -(-threads * 2 // plan.heads)) if threads > 1 else 1
    sizes = (
        panels * deep * tile.columns,  # keys
        columns * keys * tile.columns,  # values
        rows * depth,  # queries
        rows * line,  # scores
        rows * columns * tile.columns,  # result
        rows,  # what each row is divided by
        tile.columns * deep,  # keys on their way
    )
    starts = [0]
    for n in sizes:
        starts.append(starts[-1] + -(-n // 16) * 16)
    numbers = [
        *(queries, keys, depth, width, plan.heads, rows, parts, deep, line),
        *starts[:-1],
        *(s for pair in plan.steps for s in pair),
    ]
    return _Blocks(rows, parts, np.array(numbers, np.int64), starts[-1])


def attention_call(
    plan: AttentionPlan, problem: Problem, cache: KernelCache, threads: int
) -> Call | Refusal:
    """Compile a plan and give its Call."""
    body = problem.body
    blocks = _blocks(plan, threads)
    ranges = pieces(plan.heads * blocks.parts, threads)
    nbytes = len(ranges) * blocks.length * 4
    hungry = over_limit(nbytes, problem.workspace_limit)
    if hungry is not None:
        return hungry
    kernel = cache.compile(attention_text(plan.code))
    constants = packed_constants(plan.operands, problem, 0, LINEAR)
    table = np.ascontiguousarray(plan.table.reshape(-1))

    def bind(
        inputs: Sequence[Buffer], results: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        assert workspace is not None
        arrays = operand_arrays(plan.operands, constants, body, inputs)
        arrays.append(raw(results[0], body.output_types[0].dtype))
        scratch = raw(workspace, DataType.FLOAT)
        return together(
            [
                part(
                    kernel,
                    a,
                    b,
                    blocks.geometry,
                    table,
                    *arrays,
                    scratch[k * blocks.length : (k + 1) * blocks.length],
                )
                for k, (a, b) in enumerate(ranges)
            ]
        )

    packed = {plan.operands[k].name: v for k, v in constants.items()}
    return Call(f"numba attention {plan.code.tile.name}", bind, nbytes, packed=packed)
