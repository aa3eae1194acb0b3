"""Attention in one kernel: softmax(Q·Kᵀ ...)·V, block by block of queries, a head at a time.

Heads are read where they lie: transposes, reshapes, splits and repeated heads are strides. The
scores of a block stay in scratch memory; masks, scales and soft caps are part of the softmax's
passes. Products run in float32, tile by tile in registers (``tiles.py``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import CONSTANT, Array, Body, BodyInput, Node, TensorType
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.arithmetic import is_reduced
from workbench.tactics.numba.attention_code import AttentionCode, Factor, Tile, attention_text
from workbench.tactics.numba.cache import KernelCache
from workbench.tactics.numba.calls import operand_arrays, packed_constants, part, raw
from workbench.tactics.numba.expressions import Operand, Translator
from workbench.tactics.numba.loops import broadcast_strides
from workbench.tactics.numba.nests import Stream
from workbench.tactics.numba.scalars import Untranslatable
from workbench.tactics.numba.threads import pieces, together
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.strided import SHUFFLES, Strided, follow, unfollow

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
    from llvmlite import binding

    return bool(binding.get_host_cpu_features().get("avx512f"))


def tile_for(keys: int, width: int) -> Tile:
    """The tile that fits this processor's vector registers, and is not wider than both products."""
    if not _has_wide_registers():
        return Tile("tile_6x16", 6, 16)
    return Tile("tile_8x16", 8, 16) if max(keys, width) <= 16 else Tile("tile_8x32", 8, 32)


# -- plan ---------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Way:
    """How a factor comes from an input: its view, and pointwise nodes of one number on the way."""

    source: str
    view: Strided
    nodes: tuple[Node, ...]


def plan_attention(body: Body) -> AttentionPlan | Refusal:
    """How to run a Body of two products with a softmax between them, on linear tensors."""
    reader = _Reader(body)
    try:
        return reader.plan()
    except Untranslatable as e:
        return Refusal(str(e), code="not_attention")


class _Reader:
    """Takes an attention's Body apart. Raises Untranslatable, naming what does not fit."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.producers = {o: n for n in body.nodes for o in n.outputs if o}
        self.inputs = {i.name: i for i in body.inputs}

    def plan(self) -> AttentionPlan:
        body, softmax = self.body, self.body.anchor_node
        products = [k for k, n in enumerate(body.nodes) if n.op == "MatMul"]
        if softmax is None or softmax.op != "Softmax" or len(products) != 2 or body.anchor is None:
            raise Untranslatable("it is not two products with a softmax between them")
        if len(body.outputs) != 1 or not products[0] < body.anchor < products[1]:
            raise Untranslatable("it has other outputs than the second product's")
        scores, mix = (body.nodes[k] for k in products)
        shape = body.types[scores.outputs[0]].shape
        if softmax.attributes["axis"] % len(shape) != len(shape) - 1 or 0 in shape:
            raise Untranslatable("its softmax does not run over the keys, or there are none")
        heads = shape[:-2]
        ways = (
            self._factor(scores.inputs[0], heads),
            self._factor(scores.inputs[1], heads),
            self._factor(mix.inputs[1], heads),
        )
        views = [ways[0].view, _turned(ways[1].view), ways[2].view]
        operands, before, after = self._passes(scores, softmax, mix)
        target, finish = self._result(mix)
        rank = len(shape)
        tables = [v.offsets(range(rank - 2)) for v in (*views, target)]
        steps = [self._steps(v) for v in (*views, target)]
        masks = [broadcast_strides(o.shape, rank) for o in operands]
        tables[3:3] = [_whole(shape, m).offsets(range(rank - 2)) for m in masks]
        steps[3:3] = [(m[-2], m[-1]) for m in masks]
        streams = tuple(Stream(o.dtype, m[-1] == 1) for o, m in zip(operands, masks, strict=True))
        sources = tuple(
            Operand(w.source, self.inputs[w.source].type.dtype, self.inputs[w.source].type.shape)
            for w in ways
        )
        factors = tuple(
            Factor(self.inputs[w.source].type.dtype, s[1] == 1, *self._scaling(w.nodes, w.source))
            for w, s in zip(ways, steps, strict=False)
        )
        output = body.output_types[0].dtype
        result = Factor(output, steps[-1][1] == 1, *self._scaling(finish, mix.outputs[0]))
        sizes = (*shape[-2:], views[0].shape[-1], views[2].shape[-1])
        tile = tile_for(sizes[1], sizes[3])
        turned = steps[1][0] == 1 and steps[1][1] != 1
        code = AttentionCode(tile, factors, result, turned, streams, *before, *after)
        return AttentionPlan((*sources, *operands), code, np.stack(tables), sizes, tuple(steps))

    # -- queries, keys, values ------------------------------------------------------------
    def _factor(self, value: str, heads: Sequence[int]) -> _Way:
        way = self._way(value)
        shape = (*heads, *way.view.shape[-2:])
        view = way.view.broadcast(shape) if len(way.view.axes) <= len(shape) else None
        if view is None:
            raise Untranslatable(f"'{value}' does not broadcast to the scores' heads")
        return _Way(way.source, view, way.nodes)

    def _way(self, value: str) -> _Way:
        if value in self.inputs:
            dtype = self.inputs[value].type.dtype
            if not (dtype is DataType.FLOAT or is_reduced(dtype)):
                raise Untranslatable(f"'{value}' is {dtype}: its products are not float32's")
            return _Way(value, Strided.whole(self.inputs[value].type.shape), ())
        node = self.producers[value]
        if node.op in SHUFFLES:
            way = self._way(node.inputs[0])
            views = follow(node, way.view, self.body)
            if isinstance(views, Refusal):
                raise Untranslatable(views.reason)
            return _Way(way.source, views[node.outputs.index(value)], way.nodes)
        carried = [v for v in node.inputs if not self._is_number(v)]
        if not node.operator.pointwise or len(carried) != 1:
            raise Untranslatable(f"{node.op} '{value}' is neither a shuffle nor a scale")
        way = self._way(carried[0])
        return _Way(way.source, way.view, (*way.nodes, node))

    def _is_number(self, value: str) -> bool:
        node = self.producers.get(value)
        literal = node is not None and node.operator is CONSTANT
        return literal and math.prod(self.body.types[value].shape) == 1

    def _steps(self, view: Strided) -> tuple[int, int]:
        rank = len(view.axes)
        row, column = view.step(rank - 2), view.step(rank - 1)
        if row is None or column is None:
            raise Untranslatable("a head's rows are not evenly spaced")
        # One column lies anywhere.
        return row, 1 if view.shape[-1] == 1 else column

    def _scaling(self, nodes: Sequence[Node], source: str) -> tuple[tuple[str, ...], str]:
        """Lines that turn the element x into what the product reads, and the result's name."""
        literals = [n for n in self.body.nodes if n.operator is CONSTANT]
        chain: list[Node] = []
        name = "x"
        for k, n in enumerate(nodes):
            inputs = tuple(v if self._is_number(v) else name for v in n.inputs)
            name = f"x{k}"
            chain.append(Node(n.operator, inputs, (name,), n.attributes))
        start = BodyInput("x", TensorType(self.body.types[source].dtype, ()))
        small = Body((start,), (*literals, *chain), (name,))
        translator = Translator(small, [])
        translator.define("x", "x")
        result = translator.value(name).text
        return tuple(translator.lines), result

    # -- softmax --------------------------------------------------------------------------
    def _passes(
        self, scores: Node, softmax: Node, mix: Node
    ) -> tuple[list[Operand], tuple[Any, ...], tuple[Any, ...]]:
        """What lies between the products: operands, then (lines, result, reads) of each side."""
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

    # -- result ---------------------------------------------------------------------------
    def _result(self, mix: Node) -> tuple[Strided, tuple[Node, ...]]:
        """Where the second product's elements are stored, and what becomes of them first."""
        way: list[Node] = []
        value = mix.outputs[0]
        while value != self.body.outputs[0]:
            readers = [n for n in self.body.nodes if value in n.inputs]
            if len(readers) != 1:
                raise Untranslatable(f"'{value}' is read {len(readers)} times")
            way.append(readers[0])
            value = readers[0].outputs[0]
        view = Strided.whole(self.body.output_types[0].shape)
        finish: list[Node] = []
        for node in reversed(way):
            if node.op in SHUFFLES:
                before = unfollow(node, view, self.body)
                if isinstance(before, Refusal):
                    raise Untranslatable(before.reason)
                view = before
            elif node.operator.pointwise and sum(not self._is_number(v) for v in node.inputs) == 1:
                finish.insert(0, node)
            else:
                raise Untranslatable(f"{node.op} '{node.outputs[0]}' follows the second product")
        return view, tuple(finish)


def _turned(view: Strided) -> Strided:
    """Keys as [..., key, element]: the product reads them turned."""
    rank = len(view.axes)
    return view.transposed((*range(rank - 2), rank - 1, rank - 2))


def _whole(shape: Sequence[int], strides: Sequence[int]) -> Strided:
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
    if nbytes > problem.workspace_limit:
        return Refusal(
            f"needs {nbytes} bytes of workspace, {problem.workspace_limit} are allowed",
            remedy="raise the workspace limit",
            code="workspace",
        )
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
