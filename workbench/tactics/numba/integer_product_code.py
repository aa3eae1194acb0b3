"""The text of an INT8 product kernel: unsigned rows, tiles in registers, an epilogue a tile."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.datatypes import DataType
from workbench.tactics.numba.cache import KernelText
from workbench.tactics.numba.expressions import IMPORTS
from workbench.tactics.numba.product_epilogue import MOST_OPERANDS, MOST_OUTPUTS, Epilogue
from workbench.tactics.numba.product_shapes import GROUP, ProductTile
from workbench.tactics.numba.scalars import STORAGE


@dataclass(frozen=True)
class ProductCode:
    """All that the text depends on: one compiled kernel serves every size.

    source: type of the first factor.
    """

    tile: ProductTile
    source: DataType
    epilogue: Epilogue


_TEXT = """\
def kernel({arguments}):
    rows, depth, columns, block = g[0], g[1], g[2], g[3]
    panels, step, turns = g[4], g[5], g[6]
    u_address, w_address, t_address = u.ctypes.data, w.ctypes.data, t.ctypes.data
    {addresses}
    here = -1
    for unit in range(start, stop):
        first = unit // panels * block
        lead = unit % panels * COLUMNS
        count = min(block, rows - first)
        if unit // panels != here:
            here = unit // panels
            for i in range(count):
                e = x[(first + i) * depth : (first + i) * depth + depth]
                d = u[i * step : i * step + depth]
                for j in range(depth):
                    d[j] = {unsigned}
        width = min(COLUMNS, columns - lead)
        panel = w_address + lead * turns * GROUP
        ahead = panel + turns * GROUP * COLUMNS
        after = ahead + turns * GROUP * COLUMNS
        for m in range(0, count, ROWS):
            stride = 64 if ahead < after else 0
            product(u_address + m * step, step, panel, t_address, turns, ahead, stride)
            ahead += stride * turns
            finish(
                t_address, min(ROWS, count - m), width, (first + m) * columns + lead, lead, columns,
                s.ctypes.data, c.ctypes.data, f.ctypes.data, {operands},
            )
"""


def product_text(code: ProductCode) -> KernelText:
    """The kernel ``kernel(start, stop, g, *operands, *outputs, x, w, s, c, f, u, t)``.

    It runs units start to stop: a block of rows by a panel of columns each. g: rows, depth,
    columns, rows of a block, panels, bytes between rows in u, turns of a tile's loop. w: panels of
    columns, by groups of 4 of the depth. s, c: factor and correction of each column's sums. f: the
    epilogue's numbers. u, t: a block's rows as unsigned bytes, and a tile's sums.
    """
    epilogue, tile = code.epilogue, code.tile
    reads = [f"a{k}" for k in range(len(epilogue.operands))]
    writes = [f"o{k}" for k in range(len(epilogue.results))]
    given = [*reads, *["0"] * (MOST_OPERANDS - len(reads))]
    given += [*writes, *["0"] * (MOST_OUTPUTS - len(writes))]
    text = _TEXT.format(
        arguments=", ".join(["start", "stop", "g", *reads, *writes, *"xwscfut"]),
        addresses="; ".join(f"{a}_address = {a}.ctypes.data" for a in (*reads, *writes)),
        unsigned="uint8(int32(e[j]) ^ int32(128))" if code.source is DataType.INT8 else "e[j]",
        operands=", ".join(a if a == "0" else f"{a}_address" for a in given),
    )
    for name, number in (("COLUMNS", tile.columns), ("ROWS", tile.rows), ("GROUP", GROUP)):
        text = text.replace(name, str(number))
    kinds = [STORAGE[o.dtype] for o in epilogue.operands]
    finish = [tile.vectors, tile.lanes, epilogue.steps, epilogue.results, tuple(kinds)]
    head = (
        "from workbench.tactics.numba.product_finish import tile_finish\n"
        "from workbench.tactics.numba.product_tiles import TILE\n\n"
        f"product = TILE[{tile.name!r}]\n"
        f"finish = tile_finish({', '.join(map(repr, finish))}, {epilogue.count})\n"
    )
    arrays = [*kinds, *(kind for _, kind in epilogue.results), STORAGE[code.source]]
    arrays += ["int8", "float32", "int32", "float32", "uint8", "int32"]
    signature = ["int64", "int64", "int64[::1]", *(f"{a}[::1]" for a in arrays)]
    return KernelText(IMPORTS + head + "\n\n" + text, f"void({', '.join(signature)})")
