"""The text of a product's kernel: rows side by side, tiles in registers, an epilogue a tile."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from workbench.datatypes import DataType
from workbench.tactics.numba.cache import KernelText
from workbench.tactics.numba.expressions import IMPORTS
from workbench.tactics.numba.nests import indented
from workbench.tactics.numba.product_epilogue import MOST_OPERANDS, MOST_OUTPUTS, Epilogue
from workbench.tactics.numba.product_shapes import GROUP, ProductTile
from workbench.tactics.numba.scalars import STORAGE


class Rows(StrEnum):
    """Where a tile reads its rows: where they lie, or from a copy, of rows or of patches."""

    IN_PLACE = "in place"
    COPIED = "copied"
    PATCHES = "patches"


@dataclass(frozen=True)
class ProductCode:
    """All that the text depends on: one compiled kernel serves every size.

    source: type of the first factor, float32 or bytes.
    """

    tile: ProductTile
    source: DataType
    rows: Rows
    epilogue: Epilogue

    @property
    def integers(self) -> bool:
        return self.source is not DataType.FLOAT


GEOMETRY = (
    *("rows", "depth", "columns", "block", "panels", "step", "turns", "deep", "apart", "blank"),
    *("height", "width", "channels", "down", "across", "tall", "wide"),
    *("step_y", "step_x", "gap_y", "gap_x", "pad_y", "pad_x"),
)
"""What a kernel is given in g, in order. block: rows that are copied at once; panels: of columns;
step: bytes between rows; turns: of a tile's loop that a sum takes, deep: those taken at once,
apart: bytes between their sums, 0 where one is finished before the next begins; blank: what patches
read beyond an image, as copied; height and width of an image, its channels; results down and
across; the window's sizes, strides, dilations and padding."""

_TEXT = """\
def kernel({arguments}):
    {geometry}
    w_address, t_address = w.ctypes.data, t.ctypes.data
    {addresses}
    here = -1
    for unit in range(start, stop):
        first = unit // panels * block
        lead = unit % panels * COLUMNS
        count = min(block, rows - first)
        {prepare}
        panel = w_address + lead * turns * GROUP
        for k in range(0, turns, deep):
            many = min(deep, turns - k)
            piece = panel + k * GROUP * COLUMNS
            ahead = piece + many * GROUP * COLUMNS
            after = ahead + many * GROUP * COLUMNS
            for m in range(0, count, ROWS):
                low = {low}
                stride = 64 if ahead < after else 0
                sums = t_address + m // ROWS * apart
                product(base + low * step + k * GROUP, step, piece, sums, many, k, ahead, stride)
                ahead += stride * many
                if k + many == turns:
                    finish(
                        sums + (m - low) * COLUMNS * 4, min(ROWS, count - m),
                        min(COLUMNS, columns - lead), (first + m) * columns + lead, lead, columns,
                        s.ctypes.data, c.ctypes.data, f.ctypes.data, {operands},
                    )
"""

_IN_PLACE = "base = x.ctypes.data + first * step\n"

_COPY = """\
if unit // panels != here:
    here = unit // panels
{begin}
    for i in range(count):
{row}
        for j in range(depth, turns * GROUP // SIZE):
            u[uint64(i * step // SIZE + j)] = 0
    for i in range(count, -(-count // ROWS) * ROWS):
        u[i * step // SIZE : i * step // SIZE + turns * GROUP // SIZE] = 0
base = u.ctypes.data
"""

_ROW = """\
d = u[i * step // SIZE : i * step // SIZE + depth]
e = x[(first + i) * depth : (first + i) * depth + depth]
for j in range(depth):
    d[j] = {value}
"""

_FIRST_PATCH = """\
spot = first % across
line = first // across % down
image = first // across // down
"""

_PATCH = """\
y = line * step_y - pad_y
z = spot * step_x - pad_x
{copy}
spot += 1
if spot == across:
    spot = 0
    line += 1
    if line == down:
        line = 0
        image += 1
"""

_INSIDE = """\
if gap_x == 1 and 0 <= y <= height - 1 - (tall - 1) * gap_y and 0 <= z <= width - wide:
    copy_runs(
        x.ctypes.data + ((image * height + y) * width + z) * channels * SIZE,
        gap_y * width * channels * SIZE, u.ctypes.data + i * step, wide * channels, tall,
    )
else:
{copy}
"""

_RUNS = """\
d = u[i * step // SIZE : i * step // SIZE + depth]
run = wide if gap_x == 1 else 1
at = 0
for p in range(tall):
    a = y + p * gap_y
    for q in range(0, wide, run):
        b = z + q * gap_x
        low, high = run, run
        if 0 <= a < height:
            low = min(max(0, -b), run)
            high = max(low, min(run, width - b))
        here_x = ((image * height + a) * width + b) * channels
        e = x[here_x + low * channels : here_x + high * channels]
        d[at : at + low * channels] = blank
        for j in range((high - low) * channels):
            d[at + low * channels + j] = {value}
        d[at + high * channels : at + run * channels] = blank
        at += run * channels
"""


_COPIER = """\
from workbench.tactics.numba.patches import COPY_RUNS
copy_runs = COPY_RUNS[{lanes}]
"""


def product_text(code: ProductCode) -> KernelText:
    """The kernel ``kernel(start, stop, g, *operands, *outputs, x, w, s, c, f, u, t)``.

    It runs units start to stop: a block of rows by a panel of columns each. g: see GEOMETRY. w:
    panels of columns, by words of the depth. s, c: factor and correction of each column's sums, of
    bytes. f: the epilogue's numbers. u, t: copied rows (bytes as unsigned ones), and tiles' sums.
    """
    epilogue, tile = code.epilogue, code.tile
    reads = [f"a{k}" for k in range(len(epilogue.operands))]
    writes = [f"o{k}" for k in range(len(epilogue.results))]
    given = [*reads, *["0"] * (MOST_OPERANDS - len(reads))]
    given += [*writes, *["0"] * (MOST_OUTPUTS - len(writes))]
    text = _TEXT.format(
        arguments=", ".join(["start", "stop", "g", *reads, *writes, *"xwscfut"]),
        geometry="; ".join(f"{name} = g[{k}]" for k, name in enumerate(GEOMETRY)),
        addresses="; ".join(f"{a}_address = {a}.ctypes.data" for a in (*reads, *writes)),
        prepare="\n".join(indented(_prepare(code).splitlines(), 2)).strip(),
        low="min(m, count - ROWS)" if code.rows is Rows.IN_PLACE else "m",
        operands=", ".join(a if a == "0" else f"{a}_address" for a in given),
    )
    size = code.source.info.bits // 8
    known = {"COLUMNS": tile.columns, "ROWS": tile.rows, "GROUP": GROUP, "SIZE": size}
    for name, number in known.items():
        text = text.replace(name, str(number))
    kinds = [STORAGE[o.dtype] for o in epilogue.operands]
    finish = [tile.vectors, tile.lanes, code.integers, epilogue.steps, epilogue.results]
    tiles = "BYTES_TILE" if code.integers else "FLOAT_TILE"
    copying = code.rows is Rows.PATCHES and not code.integers
    head = (
        "from workbench.tactics.numba.product_finish import tile_finish\n"
        f"from workbench.tactics.numba.product_tiles import {tiles}\n\n"
        f"product = {tiles}[{tile.name!r}]\n"
        f"{_COPIER.format(lanes=tile.lanes) if copying else ''}"
        f"finish = tile_finish({', '.join(map(repr, finish))}, {tuple(kinds)!r}, "
        f"{epilogue.count})\n"
    )
    copies = "uint8" if code.integers else "float32"
    sums = "int32" if code.integers else "float32"
    arrays = [*kinds, *(kind for _, kind in epilogue.results), STORAGE[code.source]]
    arrays += ["int8" if code.integers else "float32", "float32", "int32", "float32", copies, sums]
    signature = ["int64", "int64", "int64[::1]", *(f"{a}[::1]" for a in arrays)]
    return KernelText(IMPORTS + head + "\n\n" + text, f"void({', '.join(signature)})")


def _prepare(code: ProductCode) -> str:
    """Lines that make ``base`` the address of a block's first row."""
    if code.rows is Rows.IN_PLACE:
        return _IN_PLACE
    value = "uint8(int32(e[j]) ^ int32(128))" if code.source is DataType.INT8 else "e[j]"
    if code.rows is Rows.COPIED:
        return _COPY.format(begin="", row=_inside(_ROW.format(value=value), 2))
    copy = _RUNS.format(value=value)
    if not code.integers:
        copy = _INSIDE.format(copy=_inside(copy, 1))
    return _COPY.format(begin=_inside(_FIRST_PATCH, 1), row=_inside(_PATCH.format(copy=copy), 2))


def _inside(text: str, depth: int) -> str:
    return "\n".join(indented(text.splitlines(), depth))
