"""Matrix products by constant weights, of float32 and, by dot products of them, of bytes.

A block of rows stays in the second-level cache while panels of the weights pass by; a panel is
read from memory once a block, ahead of its use. The layer's epilogue follows tile by tile. Sums of
bytes are exact. Those of float32 are summed in blocks of the depth: each block's weights stay in
the first-level cache, and the error grows with a block's length instead of the depth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.formats import HWC
from workbench.records import Refusal
from workbench.tactics.native import nothing
from workbench.tactics.numba.cache import KernelCache
from workbench.tactics.numba.calls import operand_arrays, packed_constants, part, raw
from workbench.tactics.numba.product_code import GEOMETRY, Rows, product_text
from workbench.tactics.numba.product_plan import ProductPlan
from workbench.tactics.numba.product_shapes import (
    DEPTH_OF_PATCHES,
    FEW,
    GROUP,
    SUMMED,
    SUMMED_OF_FEW,
    SUMMED_OF_PATCHES,
    UNROLLED,
)
from workbench.tactics.numba.threads import pieces, together
from workbench.tactics.onednn.descriptors import aligned_bytes
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.workspace import over_limit

BLOCK_BYTES = 5 << 17
"""Of a block of rows: with two panels of weights it stays in a second-level cache of 1 MB."""


def _packed(plan: ProductPlan, constants: Mapping[str, Array]) -> Array:
    """The weights, flat: panels of columns, words of the depth, columns, a word's elements."""
    w = np.asarray(constants[plan.weights.name])
    if plan.image is not None:
        w = w.transpose(0, 2, 3, 1)  # as patches lie
    w = w.reshape((plan.columns, plan.depth) if plan.turned else (plan.depth, plan.columns))
    wide, word = plan.code.tile.columns, 4 // w.itemsize
    words, panels = plan.turns * UNROLLED, -(-plan.columns // wide)
    padded = np.zeros((panels * wide, words * word), w.dtype)
    padded[: plan.columns, : plan.depth] = w if plan.turned else w.T
    grouped = padded.reshape(panels, wide, words, word)
    # Vectors that begin at a cache line: one that crosses two is read twice.
    found = aligned_bytes(padded.nbytes).view(w.dtype)
    np.copyto(found.reshape(panels, words, wide, word), grouped.transpose(0, 2, 1, 3))
    return found


def _zero(plan: ProductPlan, constants: Mapping[str, Array]) -> int:
    """The first factor's zero point, as the unsigned byte that it is copied as."""
    zero = 0
    if plan.source.zero:
        zero = int(np.asarray(constants[plan.source.zero]).reshape(-1)[0])
    return zero + (128 if plan.code.source is DataType.INT8 else 0)


def _columns(
    plan: ProductPlan, constants: Mapping[str, Array], packed: Array
) -> tuple[Array, Array] | Refusal:
    """Each column's factor, and what its sums lack: the first factor is read as unsigned."""
    if not plan.code.integers:
        return np.zeros(1, np.float32), np.zeros(1, np.int32)
    if plan.weights.zero and np.any(np.asarray(constants[plan.weights.zero])):
        return Refusal(
            f"'{plan.weights.zero}' is not 0: weights here have no zero point", code="zero"
        )
    # Over words first: NumPy adds long rows of bytes 16 times as fast as groups of 4.
    words = packed.reshape(-1, plan.turns * UNROLLED, plan.code.tile.columns * 4)
    sums = words.sum(1, dtype=np.int32).reshape(-1, 4).sum(1)
    scale = np.ones(sums.size, np.float32)
    scale[: plan.columns] = np.asarray(constants[plan.source.scale]).reshape(-1)[0] * np.asarray(
        constants[plan.weights.scale]
    ).reshape(-1)
    return scale, (-_zero(plan, constants) * sums).astype(np.int32)


@dataclass(frozen=True)
class _Blocks:
    """How rows are cut. length: bytes of a thread's scratch memory; tiles: where its sums lie."""

    units: int
    geometry: dict[str, int]
    length: int
    tiles: int


def _summed(plan: ProductPlan) -> int:
    """Products of float32 in one partial sum, at most."""
    if plan.rows * plan.depth * plan.columns < FEW and plan.code.tile.rows > 1:
        # As long as there are sums to add: neither chain makes an error alone.
        return max(SUMMED_OF_FEW, math.isqrt(plan.depth))
    short = plan.code.rows is Rows.PATCHES and plan.depth <= DEPTH_OF_PATCHES
    return SUMMED_OF_PATCHES if short else SUMMED


def _blocks(plan: ProductPlan) -> _Blocks:
    tile, turns = plan.code.tile, plan.turns
    nbytes = plan.depth * plan.code.source.info.bits // 8
    # Copies have an odd number of lines between rows: they fall on different sets of a cache.
    copied = plan.code.rows is not Rows.IN_PLACE
    step = (-(-nbytes // 64) | 1) * 64 if copied else nbytes
    most = max(1, BLOCK_BYTES // step // tile.rows)
    tiles = -(-plan.rows // tile.rows)
    block = math.ceil(tiles / math.ceil(tiles / most)) * tile.rows
    panels = -(-plan.columns // tile.columns)
    rounds = 1 if plan.code.integers else -(-turns * UNROLLED // _summed(plan))
    sums = 4 * tile.rows * tile.columns
    sizes = {
        **{"rows": plan.rows, "depth": plan.depth, "columns": plan.columns},
        **{"block": block, "panels": panels, "step": step},
        **{"turns": turns, "deep": -(-turns // rounds), "apart": 0 if rounds == 1 else sums},
    }
    # The last turn of the last row's loop may read beyond the depth.
    rows = -(-(block * step + GROUP) // 64) * 64 if copied else 64
    length = rows + sums * (1 if rounds == 1 else block // tile.rows)
    return _Blocks(-(-plan.rows // block) * panels, sizes, length, rows)


def _geometry(plan: ProductPlan, blocks: _Blocks, blank: int) -> Array:
    """What the kernel is given of sizes; see GEOMETRY."""
    known = {**blocks.geometry, "blank": blank}
    if plan.image is not None:
        shape, window = plan.image
        pairs = {
            ("height", "width"): shape[2:],
            ("down", "across"): window.output,
            ("tall", "wide"): window.kernel,
            ("step_y", "step_x"): window.strides,
            ("gap_y", "gap_x"): window.dilations,
            ("pad_y", "pad_x"): window.begin,
        }
        known["channels"] = shape[1]
        for names, numbers in pairs.items():
            known |= dict(zip(names, numbers, strict=True))
    return np.array([known.get(name, 0) for name in GEOMETRY], np.int64)


def product_call(
    plan: ProductPlan, problem: Problem, cache: KernelCache, threads: int
) -> Call | Refusal:
    """Compile a plan, pack its weights, and give its Call."""
    body, blocks, code = problem.body, _blocks(plan), plan.code
    ranges = pieces(blocks.units, threads)
    nbytes = len(ranges) * blocks.length
    hungry = over_limit(nbytes, problem.workspace_limit)
    if hungry is not None:
        return hungry
    dtype = np.int8 if code.integers else np.float32
    kind = "INT8" if code.integers else "float32"
    key = f"weights of a product of {kind} by {code.tile.columns} and {GROUP}"
    kept = problem.prepacked.get(key)
    weights = _packed(plan, problem.constants) if kept is None else kept.view(dtype)
    columns = _columns(plan, problem.constants, weights)
    if isinstance(columns, Refusal):
        return columns
    blank = _zero(plan, problem.constants) if code.integers else 0
    geometry = _geometry(plan, blocks, blank)
    numbers = code.epilogue.values(problem.constants)
    kernel = cache.compile(product_text(code))
    rank = 4 if plan.layout == HWC else 0
    constants = packed_constants(code.epilogue.operands, problem, rank, plan.layout)
    position = [i.name for i in body.dynamic_inputs].index(plan.source.name)
    stored = (np.uint8, np.int32) if code.integers else (np.float32, np.float32)

    def bind(
        inputs: Sequence[Buffer], results: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        if not blocks.units:
            return nothing
        assert workspace is not None
        arrays = operand_arrays(code.epilogue.operands, constants, body, inputs)
        arrays += [raw(b, t.dtype) for b, t in zip(results, body.output_types, strict=True)]
        arrays += [raw(inputs[position], code.source), weights, *columns, numbers]
        launches: list[Launch] = []
        for k, (a, b) in enumerate(ranges):
            own = raw(workspace, DataType.UINT8)[k * blocks.length : (k + 1) * blocks.length]
            copies, sums = own[: blocks.tiles], own[blocks.tiles :]
            scratch = (copies.view(stored[0]), sums.view(stored[1]))
            launches.append(part(kernel, a, b, geometry, *arrays, *scratch))
        return together(launches)

    name = "int8 product" if code.integers else "product"
    return Call(
        f"numba {name} {code.tile.name} {'+'.join(body.operator_names)}",
        bind,
        nbytes,
        packed={"weights": weights},
        prepacked={key: weights.view(np.uint8)},
    )
