"""The text of an INT8 attention kernel: 8-bit packing, two exact products, softmax in float32."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.datatypes import DataType
from workbench.tactics.numba.attention_code import Factor, Tile, mask_loads, mask_rows, packing
from workbench.tactics.numba.cache import KernelText
from workbench.tactics.numba.expressions import IMPORTS
from workbench.tactics.numba.nests import Stream, indented
from workbench.tactics.numba.scalars import STORAGE, stored

PARAMETERS = 7
"""Numbers in f: the scales of the scores and of the second product; 1 / scale of queries, keys,
values, probabilities and the result, which are quantized by it: division takes ten times as long
as multiplication, whose unit of roundoff moves what lies on a tie alone."""
F_SCORES, F_MIX, F_QUERIES, F_KEYS, F_VALUES, F_PROBABILITIES, F_RESULT = range(PARAMETERS)


AHEAD = 6
"""Rows of a factor that are on their way from memory while one is packed: a head's rows lie apart,
where no processor looks ahead by itself."""


@dataclass(frozen=True)
class IntegerCode:
    """All that the text depends on: one compiled kernel serves every size.

    tile: its intrinsics' name without the side that is signed. factors: queries, keys, values; the
    value of each is the integer that is multiplied. high: the largest probability that is stored.
    masks, before_lines, before, before_reads: as ``AttentionCode`` has them. coarse: whether a
    score's unit is no less than ``LEAST_UNIT``.
    """

    tile: Tile
    factors: tuple[Factor, ...]
    result: Factor
    high: int
    masks: tuple[Stream, ...]
    before_lines: tuple[str, ...]
    before: str
    before_reads: tuple[int, ...]
    coarse: bool = False

    @property
    def by_integers(self) -> bool:
        """Whether scores go to their softmax as the integers they are: nothing lies between."""
        return self.coarse and not self.masks and not self.before_lines and self.before == "x"


FAR = -(1 << 30)
"""Stands for no key among integer scores: below any of fewer than 2**15 products."""
DEEPEST = 1 << 14
"""Products of one score up to which FAR lies 2**29 below it."""
LEAST_UNIT = 80 / (1 << 29)
"""What one is worth among integer scores, at least, that exp of FAR is nearly nothing."""


_HEAD = """\
def kernel({arguments}):
    queries, keys, depth, width, heads = g[0], g[1], g[2], g[3], g[4]
    rows, parts, deep, line = g[5], g[6], g[7], g[8]
    at_k, at_v, at_q, at_s = g[9], g[10], g[11], g[12]
    at_p, at_r, at_c, at_t = g[13], g[14], g[15], g[16]
    groups = (depth + 3) // 4
    fours = (keys + 3) // 4
    spread = (width + COLUMNS - 1) // COLUMNS * COLUMNS
    w_address = w.ctypes.data
    a0_address, a1_address, a2_address = a0.ctypes.data, a1.ctypes.data, a2.ctypes.data
    here = -1
    for unit in range(start, stop):
        h = unit // parts
        first = queries * (unit % parts) // parts
        last = queries * (unit % parts + 1) // parts
"""

_KEYS = """\
for panel in range(0, keys, COLUMNS):
    base = at_k + panel * deep
    for i in range(min(COLUMNS, keys - panel)):
        p = p_a1 + (panel + i) * row_a1
        ahead = a1_address + AHEAD * row_a1 * a1.itemsize + p * a1.itemsize
        for j in range(0, depth * a1.itemsize, 64):
            prefetch(ahead + j)
        <rows a1 p depth>
        q = 4 * (at_t + i * deep)
        e = b[q : q + depth]
        for j in range(depth):
            <load a1 p>
            e[j] = int8(int32(<value>) ^ int32(128))
    for i in range(0, COLUMNS, 8):
        for d in range(0, deep, 8):
            transpose_u32(
                w_address + 4 * (at_t + i * deep + d), 4 * deep,
                w_address + 4 * (base + d * COLUMNS + i), 4 * COLUMNS,
            )
"""
"""Each key's bytes, 4 a word, plus 128: the unsigned factor of its products."""

_VALUES = """\
for k in range(fours):
    for i in range(min(4, keys - 4 * k)):
        p = p_a2 + (4 * k + i) * row_a2
        ahead = a2_address + AHEAD * row_a2 * a2.itemsize + p * a2.itemsize
        for j in range(0, width * a2.itemsize, 64):
            prefetch(ahead + j)
        <rows a2 p width>
        q = 4 * at_t + i * spread
        e = b[q : q + width]
        for j in range(width):
            <load a2 p>
            e[j] = int8(<value>)
    e0 = b[4 * at_t : 4 * at_t + width]
    e1 = b[4 * at_t + spread : 4 * at_t + spread + width]
    e2 = b[4 * at_t + 2 * spread : 4 * at_t + 2 * spread + width]
    e3 = b[4 * at_t + 3 * spread : 4 * at_t + 3 * spread + width]
    for panel in range(0, width, COLUMNS):
        count = min(COLUMNS, width - panel)
        q = at_v + panel * fours + k * COLUMNS
        word = u[q : q + count]
        z0 = e0[panel : panel + count]
        z1 = e1[panel : panel + count]
        z2 = e2[panel : panel + count]
        z3 = e3[panel : panel + count]
        for j in range(count):
            low = (int32(z0[j]) & int32(255)) | ((int32(z1[j]) & int32(255)) << int32(8))
            high = ((int32(z2[j]) & int32(255)) << int32(16)) | (int32(z3[j]) << int32(24))
            word[j] = int32(low | high)
"""
"""Four keys' values side by side: what one word of probabilities is multiplied with."""

_QUERIES = """\
for block in range(first, last, rows):
    count = min(rows, last - block)
    full = (count + ROWS - 1) // ROWS * ROWS
    for i in range(count):
        p = p_a0 + (block + i) * row_a0
        ahead = a0_address + AHEAD * row_a0 * a0.itemsize + p * a0.itemsize
        for j in range(0, depth * a0.itemsize, 64):
            prefetch(ahead + j)
        <rows a0 p depth>
        q = 4 * (at_q + i * groups)
        e = b[q : q + depth]
        total = int32(0)
        for j in range(depth):
            <load a0 p>
            number = int32(<value>)
            e[j] = int8(number)
            total += number
        b[q + depth : q + 4 * groups] = int8(0)
        u[at_c + i] = int32(total * 128)
"""
"""128 times each query's sum: what the keys' 128 adds to its scores."""

_SCORES = """\
    for panel in range(0, keys, COLUMNS):
        for i in range(0, full, ROWS):
            TILE_signed_rows(
                w_address + 4 * (at_q + i * groups), 4 * groups,
                w_address + 4 * (at_k + panel * deep), 4 * COLUMNS,
                w_address + 4 * (at_s + i * line + panel), 4 * line, groups, 0,
            )
    for i in range(count):
        s = at_s + i * line
"""

_SCORED = """\
t = w[s : s + line]
n = keys
shift = u[at_c + i]
c = f[SCORES]
"""

_SOFTMAX_OF_INTEGERS = """\
u[s + keys : s + line] = int32(FAR)
c = exp_integers_LANES(
    w_address + 4 * s, line // LANES, integers_top_LANES(w_address + 4 * s, line // LANES),
    f[SCORES],
)
"""
"""What all scores of a query lack, 128 times its sum, a softmax does not see."""

_SOFTMAX = """\
t[keys:line] = float32(-inf)
c = exp_row_LANES(w_address + 4 * s, line // LANES, row_max(t, line))
"""
"""Over whole tiles, so that no loop has a rest: what lies beyond the last key is no probability."""

_ROUNDED = """\
round_row_LANES(
    w_address + 4 * s, w_address + 4 * at_p + i * line, line // LANES,
    f[PROBABILITIES] / c, float32(HIGH),
)
"""

_MIX = """\
    for panel in range(0, width, COLUMNS):
        for i in range(0, full, ROWS):
            TILE_signed_columns(
                w_address + 4 * at_p + i * line, line,
                w_address + 4 * (at_v + panel * fours), 4 * COLUMNS,
                w_address + 4 * (at_r + i * spread + panel), 4 * spread, fours, 0,
            )
    for i in range(count):
        c = f[MIX]
        p = p_o0 + (block + i) * row_o0
        t = w[at_r + i * spread : at_r + i * spread + width]
        <rows o0 p width>
        for j in range(width):
            x = float32(bits_of(t[j])) * c
"""


def quantized(text: str, parameter: int, dtype: DataType) -> tuple[tuple[str, ...], str]:
    """Lines that quantize the float32 of ``text`` by 1 / f[parameter], zero point 0."""
    info = dtype.info
    lines = (
        f"y = rint(({text}) * f{parameter})",
        f"y = float32({info.low}) if y < float32({info.low}) else y",
        f"y = float32({info.high}) if y > float32({info.high}) else y",
        "y = y if y == y else float32(0.0)",
    )
    return lines, "int32(y)"


def _softmax(code: IntegerCode) -> list[str]:
    """Lines from a row of scores, as integers, to its probabilities, as bytes."""
    if code.by_integers:
        return [*_SOFTMAX_OF_INTEGERS.splitlines(), *_ROUNDED.splitlines()]
    scores = ["x = float32(int32(bits_of(t[j]) - shift)) * c"]
    scores += [*mask_loads(code.before_reads, code.masks), *code.before_lines]
    lines = [*_SCORED.splitlines(), *mask_rows(code.masks), "for j in range(n):"]
    lines += indented([*scores, f"t[j] = {code.before}"], 1)
    return [*lines, *_SOFTMAX.splitlines(), *_ROUNDED.splitlines()]


def integer_attention_text(code: IntegerCode) -> KernelText:
    """The kernel ``(start, stop, g, table, *operands, output, f, w, u, b)``.

    It runs parts of heads: unit k is part k mod parts of head k div parts. w, u and b are the same
    scratch memory as float32, int32 and int8; every place in it is counted in words of 4 bytes.
    """
    count = 3 + len(code.masks)
    arrays = [*(f"a{k}" for k in range(count)), "o0"]
    arguments = ", ".join(["start", "stop", "g", "z", *arrays, "f", "w", "u", "b"])
    lines = _HEAD.format(arguments=arguments).split("\n")[:-1]
    steps = [
        f"    row_{a}, column_{a} = g[{17 + 2 * k}], g[{18 + 2 * k}]" for k, a in enumerate(arrays)
    ]
    # Read once: after a store, LLVM must take f for changed.
    lines[4:4] = [*steps, *(f"    f{k} = f[{k}]" for k in range(F_QUERIES, PARAMETERS))]
    lines += indented([f"p_{a} = z[{k} * heads + h]" for k, a in enumerate(arrays)], 2)
    lines += ["        if h != here:", "            here = h"]
    lines += indented(packing(_KEYS, code.factors[1], "a1"), 3)
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
        ("ROWS", str(code.tile.rows)),
        ("AHEAD", str(AHEAD)),
        ("LANES", str(code.tile.columns // 2)),
        ("HIGH", str(code.high)),
        ("FAR", str(FAR)),
        ("f[SCORES]", f"f[{F_SCORES}]"),
        ("f[MIX]", f"f[{F_MIX}]"),
        ("f[PROBABILITIES]", f"f{F_PROBABILITIES}"),
    ):
        text = text.replace(name, value)
    name, lanes = code.tile.name, code.tile.columns // 2
    imports = (
        "from workbench.tactics.numba.blocks import transpose_u32\n"
        "from workbench.tactics.numba.mathematics import bits_of\n"
        "from workbench.tactics.numba.vector_rows import "
        f"exp_integers_{lanes}, exp_row_{lanes}, integers_top_{lanes}, round_row_{lanes}\n"
        "from workbench.tactics.numba.vnni_tiles import "
        f"{name}_signed_columns, {name}_signed_rows, prefetch\n"
    )
    source = f"{IMPORTS}{imports}\n\n{text}\n"
    dtypes = [*(x.dtype for x in code.factors), *(m.dtype for m in code.masks), code.result.dtype]
    kinds = [f"{STORAGE[d]}[::1]" for d in dtypes]
    scratch = ["float32[::1]", "float32[::1]", "int32[::1]", "int8[::1]"]
    signature = ["int64", "int64", "int64[::1]", "int64[::1]", *kinds, *scratch]
    return KernelText(source, f"void({', '.join(signature)})")
