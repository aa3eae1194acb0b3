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

from workbench.body import Body, Node
from workbench.datatypes import DataType
from workbench.devices import CpuDevice
from workbench.records import Refusal
from workbench.tactics.arithmetic import is_reduced
from workbench.tactics.attention_body import read_attention
from workbench.tactics.numba.attention_blocks import (
    MOST_QUERIES,
    Blocks,
    Heads,
    blocked_call,
    cut,
    of_one_element,
    placed,
    require_along,
)
from workbench.tactics.numba.attention_code import AttentionCode, Factor, Tile, attention_text
from workbench.tactics.numba.cache import KernelCache
from workbench.tactics.numba.expressions import Operand, Translator
from workbench.tactics.protocol import Call, Problem
from workbench.tactics.scalar_text import Untranslatable

BLOCK_BYTES = 1 << 17
"""Scores of one block of queries: they stay in the second-level cache."""


@dataclass(frozen=True, eq=False)
class AttentionPlan(Heads):
    """The code, and where everything lies."""

    code: AttentionCode


@functools.cache
def has_wide_registers() -> bool:
    """Whether vector registers hold 16 float32."""
    known = CpuDevice().fingerprint.features
    if known:
        return "avx512f" in known
    # Not Linux: LLVM knows, but takes 40 MiB to say so.
    from llvmlite import binding

    return bool(binding.get_host_cpu_features().get("avx512f"))


def tile_for(keys: int, width: int) -> Tile:
    """The tile that fits this processor's vector registers, and is not wider than both products."""
    if not has_wide_registers():
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
        table, steps, streams = placed(ways, read.result, operands, shape)
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
        return AttentionPlan((*sources, *operands), table, read.sizes, steps, code)

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
        scales = [i for i in self.body.inputs if i.constant and i.name in read]
        small = of_one_element(self.body, nodes, self.body.types[source].dtype, scales)
        translator = Translator(small, [] if operands is None else operands)
        translator.define("x", "x")
        result = translator.value(small.outputs[0]).text
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
        require_along(operands, self.body.types[scores.outputs[0]].shape)
        return operands, sides[0], sides[1]


# -- call ---------------------------------------------------------------------------------
def _blocks(plan: AttentionPlan, threads: int) -> Blocks:
    queries, keys, depth, width = plan.sizes
    tile = plan.code.tile
    panels, columns = -(-keys // tile.columns), -(-width // tile.columns)
    deep, line = -(-depth // 8) * 8, panels * tile.columns
    fits = max(1, min(MOST_QUERIES, BLOCK_BYTES // (4 * line)) // tile.rows) * tile.rows
    rows = min(fits, -(-queries // tile.rows) * tile.rows)
    sizes = (
        panels * deep * tile.columns,  # keys
        columns * keys * tile.columns,  # values
        rows * depth,  # queries
        rows * line,  # scores
        rows * columns * tile.columns,  # result
        rows,  # what each row is divided by
        tile.columns * deep,  # keys on their way
    )
    return cut(plan, threads, rows=rows, deep=deep, line=line, sizes=sizes)


def attention_call(
    plan: AttentionPlan, problem: Problem, cache: KernelCache, threads: int
) -> Call | Refusal:
    """Compile a plan and give its Call."""
    return blocked_call(
        plan,
        problem,
        _blocks(plan, threads),
        threads,
        title=f"numba attention {plan.code.tile.name}",
        compiled=lambda: cache.compile(attention_text(plan.code)),
    )
