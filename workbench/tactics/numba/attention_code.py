"""The text of an attention kernel: packing, two tiled products, and the softmax between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.datatypes import DataType
from workbench.tactics.numba.cache import KernelText
from workbench.tactics.numba.expressions import IMPORTS
from workbench.tactics.numba.nests import Stream, indented
from workbench.tactics.numba.product_shapes import SUMMED
from workbench.tactics.numba.scalars import STORAGE, loaded, stored


@dataclass(frozen=True)
class Tile:
    """A product in registers: its intrinsic, and the rows and columns of its result."""

    name: str
    rows: int
    columns: int


@dataclass(frozen=True)
class Factor:
    """Queries, keys, values, or the result. unit: its elements lie side by side.

    lines, value: what is computed from the element x on the way.
    """

    dtype: DataType
    unit: bool
    lines: tuple[str, ...]
    value: str


@dataclass(frozen=True)
class AttentionCode:
    """All that the text depends on: one compiled kernel serves every size.

    turned: keys lie with all first elements side by side, then all second ones.
    factors: queries, keys, values. masks: what the softmax's passes read. before, after: lines of
    one score (t[j]) and of one probability (y), what they result in, and the masks that they read.
    """

    tile: Tile
    factors: tuple[Factor, ...]
    result: Factor
    turned: bool
    masks: tuple[Stream, ...]
    before_lines: tuple[str, ...]
    before: str
    before_reads: tuple[int, ...]
    after_lines: tuple[str, ...]
    after: str
    after_reads: tuple[int, ...]


_HEAD = """\
def kernel({arguments}):
    queries, keys, depth, width, heads = g[0], g[1], g[2], g[3], g[4]
    rows, parts, deep, line = g[5], g[6], g[7], g[8]
    at_k, at_v, at_q, at_s, at_r, at_c, at_t = g[9], g[10], g[11], g[12], g[13], g[14], g[15]
    w_address = w.ctypes.data
    here = -1
    for unit in range(start, stop):
        h = unit // parts
        first = queries * (unit % parts) // parts
        last = queries * (unit % parts + 1) // parts
        if h != here:
            here = h
"""

_KEYS = """\
for panel in range(0, keys, COLUMNS):
    base = at_k + panel * deep
    count = min(COLUMNS, keys - panel)
    for i in range(COLUMNS):
        if i < count:
            p = p_a1 + (panel + i) * row_a1
            <rows a1 p depth>
            f = w[at_t + i * deep : at_t + i * deep + depth]
            for j in range(depth):
                <load a1 p>
                f[j] = <value>
        else:
            w[at_t + i * deep : at_t + i * deep + depth] = float32(0.0)
    for i in range(0, COLUMNS, 8):
        for d in range(0, deep, 8):
            transpose_u32(
                w_address + 4 * (at_t + i * deep + d), 4 * deep,
                w_address + 4 * (base + d * COLUMNS + i), 4 * COLUMNS,
            )
"""

_TURNED_KEYS = """\
for panel in range(0, keys, COLUMNS):
    base = at_k + panel * deep
    count = min(COLUMNS, keys - panel)
    for d in range(depth):
        p = p_a1 + panel * row_a1 + d * column_a1
        q = base + d * COLUMNS
        <rows a1 p count>
        f = w[q : q + count]
        for j in range(count):
            <load a1 p>
            f[j] = <value>
        w[q + count : q + COLUMNS] = float32(0.0)
"""

_VALUES = """\
for panel in range(0, width, COLUMNS):
    base = at_v + panel * keys
    count = min(COLUMNS, width - panel)
    for k in range(keys):
        p = p_a2 + k * row_a2 + panel * column_a2
        q = base + k * COLUMNS
        <rows a2 p count>
        f = w[q : q + count]
        for j in range(count):
            <load a2 p>
            f[j] = <value>
        w[q + count : q + COLUMNS] = float32(0.0)
"""

_QUERIES = """\
for block in range(first, last, rows):
    count = min(rows, last - block)
    full = (count + ROWS - 1) // ROWS * ROWS
    for i in range(count):
        p = p_a0 + (block + i) * row_a0
        <rows a0 p depth>
        f = w[at_q + i * depth : at_q + i * depth + depth]
        for j in range(depth):
            <load a0 p>
            f[j] = <value>
    w[at_q + count * depth : at_q + full * depth] = float32(0.0)
"""

_SCORES = """\
    for panel in range(0, keys, COLUMNS):
        for i in range(0, full, ROWS):
            TILE(
                w_address + 4 * (at_q + i * depth), 4 * depth,
                w_address + 4 * (at_k + panel * deep), 4 * COLUMNS,
                w_address + 4 * (at_s + i * line + panel), 4 * line, depth, 0,
            )
    for i in range(count):
        s = at_s + i * line
        t = w[s : s + keys]
        n = keys
"""

_MIX = """\
    for panel in range(0, width, COLUMNS):
        for k in range(0, keys, SUMMED):
            for i in range(0, full, ROWS):
                TILE(
                    w_address + 4 * (at_s + i * line + k), 4 * line,
                    w_address + 4 * (at_v + panel * keys + k * COLUMNS), 4 * COLUMNS,
                    w_address + 4 * (at_r + i * spread + panel), 4 * spread,
                    min(SUMMED, keys - k), k,
                )
    for i in range(count):
        c = w[at_c + i]
        p = p_o0 + (block + i) * row_o0
        f = w[at_r + i * spread : at_r + i * spread + width]
        <rows o0 p width>
        for j in range(width):
            x = f[j] * c
"""


def attention_text(code: AttentionCode) -> KernelText:
    """The kernel ``(start, stop, g, table, *operands, output, scratch)``.

    It runs parts of heads: unit u is part u mod parts of head u div parts.
    """
    count = 3 + len(code.masks)
    arrays = [*(f"a{k}" for k in range(count)), "o0"]
    lines = _HEAD.format(arguments=", ".join(["start", "stop", "g", "z", *arrays, "w"])).split("\n")
    lines = [x for x in lines if x]
    for k, a in enumerate(arrays):
        lines.insert(4, f"    row_{a}, column_{a} = g[{16 + 2 * k}], g[{17 + 2 * k}]")
    lines.insert(4, "    spread = (width + COLUMNS - 1) // COLUMNS * COLUMNS")
    where = [f"p_{a} = z[{k} * heads + h]" for k, a in enumerate(arrays)]
    at = next(i for i, x in enumerate(lines) if "if h != here" in x)
    lines[at:at] = indented(where, 2)
    turned = code.turned
    lines += indented(packing(_TURNED_KEYS if turned else _KEYS, code.factors[1], "a1", turned), 3)
    lines += indented(packing(_VALUES, code.factors[2], "a2"), 3)
    lines += indented(packing(_QUERIES, code.factors[0], "a0"), 2)
    lines += indented(_SCORES.split("\n")[:-1], 2)
    lines += indented(_softmax(code), 4)
    lines += indented(packing(_MIX, code.result, "o0"), 2)
    target = "r[j]" if code.result.unit else "o0[p + j * column_o0]"
    result = stored(code.result.dtype, code.result.value)
    lines += indented([*code.result.lines, f"{target} = {result}"], 5)
    text = "\n".join(lines)
    for name, value in (
        ("TILE", code.tile.name),
        ("COLUMNS", str(code.tile.columns)),
        ("SUMMED", str(SUMMED)),
        ("ROWS", str(code.tile.rows)),
    ):
        text = text.replace(name, value)
    source = f"{IMPORTS}{_imports(code.tile)}\n\n{text}\n"
    dtypes = [*(f.dtype for f in code.factors), *(m.dtype for m in code.masks), code.result.dtype]
    kinds = [f"{STORAGE[d]}[::1]" for d in dtypes]
    signature = ["int64", "int64", "int64[::1]", "int64[::1]", *kinds, "float32[::1]"]
    return KernelText(source, f"void({', '.join(signature)})")


def _imports(tile: Tile) -> str:
    return (
        "from workbench.tactics.numba.blocks import transpose_u32\n"
        f"from workbench.tactics.numba.tiles import {tile.name}\n"
    )


def packing(template: str, factor: Factor, array: str, turned: bool = False) -> list[str]:
    """A packing loop: each element loaded, scaled, and laid where a tile reads it.

    Elements side by side are a slice: numba wraps negative indices at every other access, which
    LLVM does not vectorise.
    """
    unit = factor.unit or turned
    lines: list[str] = []
    for line in template.split("\n")[:-1]:
        depth = (len(line) - len(line.lstrip())) // 4
        text = line.strip()
        if text.startswith("<rows"):
            _, name, base, count = text.strip("<>").split()
            lines += indented([f"r = {name}[{base} : {base} + {count}]"] if unit else [], depth)
        elif text.startswith("<load"):
            _, name, base = text.strip("<>").split()
            place = "r[j]" if unit else f"{name}[{base} + j * column_{array}]"
            lines += indented([f"x = {loaded(factor.dtype, place)}", *factor.lines], depth)
        else:
            lines.append(line.replace("<value>", factor.value))
    return lines


def _softmax(code: AttentionCode) -> list[str]:
    """One row of scores t[0:n] made probabilities, but for a factor that is kept for the end."""
    lines = mask_rows(code.masks)
    if code.before != "t[j]":
        body = [
            *mask_loads(code.before_reads, code.masks),
            *code.before_lines,
            f"t[j] = {code.before}",
        ]
        lines += ["for j in range(n):", *indented(body, 1)]
    lines += ["m = row_max(t, n)", "for j in range(n):", "    t[j] = exp_f32(t[j] - m)"]
    total = "float32(1.0) / row_sum(t, n)"
    if code.after == "y":
        return [*lines, f"w[at_c + i] = {total}"]
    body = [
        "y = t[j] * c",
        *mask_loads(code.after_reads, code.masks),
        *code.after_lines,
        f"t[j] = {code.after}",
    ]
    return [
        *lines,
        f"c = {total}",
        "for j in range(n):",
        *indented(body, 1),
        "w[at_c + i] = float32(1.0)",
    ]


def mask_rows(masks: Sequence[Stream]) -> list[str]:
    """Of each mask the row r{k} of a query's keys, or the one number s{k} for all of them."""
    lines: list[str] = []
    for k, mask in enumerate(masks):
        place = f"p_a{k + 3} + (block + i) * row_a{k + 3}"
        if mask.unit:
            lines.append(f"r{k} = a{k + 3}[{place} : {place} + n]")
        else:
            lines.append(f"s{k} = {loaded(mask.dtype, f'a{k + 3}[{place}]')}")
    return lines


def mask_loads(reads: Sequence[int], masks: Sequence[Stream]) -> list[str]:
    """Inside the loop over keys: x{k} is the element of mask k."""
    return [
        f"x{k} = {loaded(masks[k].dtype, f'r{k}[j]') if masks[k].unit else f's{k}'}" for k in reads
    ]
