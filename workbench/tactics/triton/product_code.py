"""Kernels of a product: one loop of matrix multiplications, then whatever follows, then stores.

The sums may be split among programs; a second kernel then adds their parts in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from workbench.datatypes import DataType
from workbench.formats import Format
from workbench.tactics.product import Product
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.triton.epilogue import Packs, finish
from workbench.tactics.triton.frame import Frame, Group
from workbench.tactics.triton.kernel import Arguments, Kernel, Program
from workbench.tactics.triton.sides import Side
from workbench.tactics.triton.tiles import Tile

ROW_ORDER = 8
"""Tiles of rows that are done together, so that the factors stay in the L2 cache."""
SHORT_SUM, HELD_BYTES = 8, 128
"""Steps of a sum beside which a residual may wait in registers, and its bytes a thread."""
REDUCED_ROWS, REDUCED_COLUMNS = 8, 128
"""Tile of the kernel that adds the parts of split sums."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A product's kernel but for its tile.

    frame: the output's tile, given the texts of batch, row and column. channel: the output's axis
    along which bias and scales lie. steps: of the loop, given the tile.
    """

    product: Product
    left: Side
    right: Callable[[Tile], tuple[Side, Packs]]
    rows: int
    columns: int
    batches: int
    steps: Callable[[Tile], int]
    frame: Callable[[Group, Group], Frame]
    channel: int
    layouts: Mapping[str, Format]
    title: str
    before: tuple[Kernel, ...] = ()
    workspace: Mapping[str, int] = field(default_factory=dict[str, int])


def program_of(plan: Plan, tile: Tile) -> Program:
    """The launches of a plan with a tile. Raises Untranslatable."""
    right, packs = plan.right(tile)
    workspace = dict(plan.workspace)
    name = f"{plan.title} {tile.title}"
    if tile.split == 1:
        kernel = _main(plan, tile, right, packs)
        return Program(name, (*plan.before, kernel), packs, workspace)
    if plan.batches > 1:
        raise Untranslatable("sums of several products side by side are not split")
    workspace["parts"] = 4 * tile.split * plan.rows * plan.columns
    kernel = _main(plan, tile, right, packs)
    return Program(name, (*plan.before, kernel, _reduction(plan, tile, packs)), packs, workspace)


# -- multiplication -----------------------------------------------------------------------
def _main(plan: Plan, tile: Tile, right: Side, packs: Packs) -> Kernel:
    arguments = Arguments(plan.product.body)
    product = plan.product
    down, across = -(-plan.rows // tile.rows), -(-plan.columns // tile.columns)
    lines = _order(down, across)
    lines += [
        f"rm = tile_m * {tile.rows} + tl.arange(0, {tile.rows})",
        f"rn = tile_n * {tile.columns} + tl.arange(0, {tile.columns})",
        f"rk = tl.arange(0, {tile.depth})",
    ]
    if plan.batches > 1:
        lines.append("batch = tl.program_id(1)")
    lines += [*plan.left.setup(tile, arguments), *right.setup(tile, arguments)]
    opening = len(lines)
    lines.append(f"acc = tl.zeros(({tile.rows}, {tile.columns}), {product.accumulator})")
    steps = plan.steps(tile)
    inner: list[str] = []
    if tile.split > 1:
        steps //= tile.split
        lines.append("part = tl.program_id(2)")
        inner.append(f"t = part * {steps} + i")
    lines.append(f"for {'i' if tile.split > 1 else 't'} in range(0, {steps}):")
    inner += [*plan.left.load(tile, arguments), *right.load(tile, arguments), _dot(product, tile)]
    lines += [f"    {line}" for line in inner]
    grid = (down * across, plan.batches, tile.split)
    row = Group((), "rm[:, None]", f"(rm < {plan.rows})[:, None]" if plan.rows % tile.rows else "")
    ragged = plan.columns % tile.columns
    column = Group((), "rn[None, :]", f"(rn < {plan.columns})[None, :]" if ragged else "")
    if tile.split > 1:
        lines += _store_part(plan, arguments, row, column)
    else:
        frame = plan.frame(row, column)
        early: list[str] | None = [] if _loads_early(product, tile, steps) else None
        lines += finish(product, arguments, frame, plan.layouts, plan.channel, packs, early=early)
        lines[opening:opening] = early or []
    return arguments.kernel(lines, grid, warps=tile.warps, stages=tile.stages)


def _loads_early(product: Product, tile: Tile, steps: int) -> bool:
    """Whether a residual is asked for before a short sum, so that it arrives with the factors."""
    factors = {product.left.value, product.right.value}
    beside = [i for i in product.body.dynamic_inputs if i.name not in factors]
    size = sum(i.type.dtype.itemsize for i in beside if len(i.type.shape) == len(product.out))
    held = tile.rows * tile.columns * size / (32 * tile.warps)
    return steps <= SHORT_SUM and held <= HELD_BYTES


def _order(down: int, across: int) -> list[str]:
    """Which tile a program computes."""
    lines = ["pid = tl.program_id(0)"]
    if across == 1:
        return [*lines, "tile_m = pid", "tile_n = 0"]
    if down == 1:
        return [*lines, "tile_m = 0", "tile_n = pid"]
    if down <= ROW_ORDER:
        return [*lines, f"tile_m = pid % {down}", f"tile_n = pid // {down}"]
    width = ROW_ORDER * across
    return [
        *lines,
        f"first = pid // {width} * {ROW_ORDER}",
        f"high = tl.minimum({down} - first, {ROW_ORDER})",
        f"tile_m = first + (pid % {width}) % high",
        f"tile_n = (pid % {width}) // high",
    ]


def _dot(product: Product, tile: Tile) -> str:
    match product.kind:
        case DataType.INT8:
            return "acc = tl.dot(a, b, acc, out_dtype=tl.int32)"
        case DataType.FLOAT:
            return f'acc = tl.dot(a, b, acc, input_precision="{tile.multiply}")'
        case _:
            # FP8: the matrix units keep 14 bits of such a sum, which its bound knows. With sums
            # promoted to float each step (max_num_imprecise_acc), the PTX of Triton 3.6 adds the
            # results of asynchronous products before it waits for them: NaN on an H200.
            return "acc = tl.dot(a, b, acc)"


# -- split sums ---------------------------------------------------------------------------
def _store_part(plan: Plan, arguments: Arguments, row: Group, column: Group) -> list[str]:
    dtype = DataType.INT32 if plan.product.exact else DataType.FLOAT
    pointer = arguments.workspace("parts", dtype)
    size = plan.rows * plan.columns
    mask = " & ".join(g.mask for g in (row, column) if g.mask)
    suffix = f", mask={mask}" if mask else ""
    at = f"part * {size} + {row.text} * {plan.columns} + {column.text}"
    return [f"tl.store({pointer} + ({at}), acc{suffix})"]


def _reduction(plan: Plan, tile: Tile, packs: Packs) -> Kernel:
    """Adds the parts in order, then finishes as the undivided kernel does."""
    arguments = Arguments(plan.product.body)
    dtype = DataType.INT32 if plan.product.exact else DataType.FLOAT
    pointer = arguments.workspace("parts", dtype)
    rows = -(-plan.rows // REDUCED_ROWS)
    across = -(-plan.columns // REDUCED_COLUMNS)
    size = plan.rows * plan.columns
    row = Group((), "rm[:, None]", f"(rm < {plan.rows})[:, None]")
    column = Group((), "rn[None, :]", f"(rn < {plan.columns})[None, :]")
    mask = f"{row.mask} & {column.mask}"
    lines = [
        f"rm = tl.program_id(0) // {across} * {REDUCED_ROWS} + tl.arange(0, {REDUCED_ROWS})",
        f"rn = tl.program_id(0) % {across} * {REDUCED_COLUMNS} + tl.arange(0, {REDUCED_COLUMNS})",
        f"at = {row.text} * {plan.columns} + {column.text}",
        f"acc = tl.load({pointer} + at, mask={mask}, other=0)",
    ]
    for part in range(1, tile.split):
        lines.append(f"acc += tl.load({pointer} + ({part * size} + at), mask={mask}, other=0)")
    frame = plan.frame(row, column)
    lines += finish(plan.product, arguments, frame, plan.layouts, plan.channel, packs)
    return arguments.kernel(lines, (rows * across, 1, 1), warps=4, stages=1)
