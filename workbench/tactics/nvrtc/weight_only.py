"""Products of a few rows with a matrix of 4-bit integers, two of which are read from each byte.

The matrix is packed column by column as numbers from 0 to 15. A warp takes some columns; its lanes
run along them, each with 8 or 32 weights at once, and a row of the other operand is read once for
all the warp's columns. The zero point is subtracted from each weight, which is exact.
"""

from __future__ import annotations

from math import prod

import numpy as np

from workbench.body import Array, Body, Node
from workbench.datatypes import DataType
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.nvrtc.element_rules import elements_of
from workbench.tactics.nvrtc.elements import Elements, Index, offset, operand
from workbench.tactics.nvrtc.frame import KernelText, Stage, program_text
from workbench.tactics.nvrtc.row_families import HELPERS
from workbench.tactics.nvrtc.scalars import STORAGE, loaded, number, stored
from workbench.tactics.scalar_text import Untranslatable

MOST_ROWS = 8
"""Of the first operand: each takes registers for its sums."""
COLUMNS = (4, 2, 1)
"""Columns a warp, best guess first."""
WARPS = 4
"""Of a block."""
FOUR_BITS = (DataType.INT4, DataType.UINT4)


def dequantizer(body: Body) -> Node | None:
    """The DequantizeLinear of a constant 4-bit matrix that the anchor multiplies by, or None."""
    anchor = body.anchor_node
    if anchor is None or anchor.op not in ("MatMul", "Gemm"):
        return None
    constants = {i.name for i in body.inputs if i.constant and i.type.dtype in FOUR_BITS}
    for n in body.nodes:
        if n.op == "DequantizeLinear" and n.outputs[0] == anchor.inputs[1]:
            matrix = len(body.types[n.inputs[0]].shape) == 2
            return n if matrix and n.inputs[0] in constants else None
    return None


def weight_only_kernel(body: Body, columns: int, lanes: int = 32) -> KernelText | Refusal:
    """The kernel of a Body with a ``dequantizer``; so many lanes have some columns."""
    try:
        return _kernel(body, columns, lanes)
    except Untranslatable as problem:
        return Refusal(str(problem), code="operator")


def _kernel(body: Body, columns: int, lanes: int) -> KernelText:
    node, dq = body.anchor_node, dequantizer(body)
    assert node is not None and dq is not None
    a = node.attributes
    rows_first = node.op == "Gemm" and bool(a["transB"])
    x, out = body.types[node.inputs[0]], body.types[node.outputs[0]]
    depth, rows, width = x.shape[-1], prod(x.shape[:-1]), out.shape[-1]
    dynamic = {i.name for i in body.dynamic_inputs}
    if node.inputs[0] not in dynamic or x.dtype not in (
        DataType.FLOAT,
        DataType.HALF,
        DataType.BF16,
    ):
        raise Untranslatable("rows that another node makes, or of another type")
    if rows > MOST_ROWS or (node.op == "Gemm" and a["transA"]):
        raise Untranslatable(f"{rows} rows, {MOST_ROWS} are the most")
    if any(t.shape != out.shape for t in body.output_types):
        raise Untranslatable("an output has another shape than the product")
    block = _along_depth(body, dq, rows_first=rows_first)
    step = next((s for s in (32, 8) if depth % s == 0 and block % s == 0), 0)
    if not step:
        raise Untranslatable(f"{depth} weights in blocks of {block} do not divide into words of 8")
    e = elements_of(body, {})
    lines = [
        f"const int lane = threadIdx.x % {lanes};",
        f"const idx first = ((idx)blockIdx.x * {WARPS} + threadIdx.x / {lanes}) * {columns};",
        f"if (first >= {width}) return;",
        f"float acc[{rows}][{columns}] = {{}};",
        *_walk(e, body, dq, (rows, depth, width, columns, step, lanes), rows_first=rows_first),
        *_store(e, body, node, (rows, width, columns, lanes)),
    ]
    blocks = -(-width // (columns * WARPS))
    text = program_text(body, (Stage(lines, blocks, lanes * WARPS),), e.tables, helpers=HELPERS)
    weights = [i.name for i in body.inputs].index(dq.inputs[0])
    packing = "nibbles of rows" if rows_first else "nibbles of columns"
    turned = ((k, "transposed") for k in turned_grains(body, dq, rows_first=rows_first))
    return text.with_packing(((weights, packing), *turned), aligned=16)


def turned_grains(body: Body, dq: Node, *, rows_first: bool) -> tuple[int, ...]:
    """Scales and zero points by block that are stored a column after the other.

    So a warp reads those of a column side by side, as it does the weights.
    """
    if rows_first or not dq.attributes["block_size"] or dq.attributes["axis"] % 2:
        return ()
    constants = {i.name: k for k, i in enumerate(body.inputs) if i.constant}
    return tuple(constants[v] for v in dq.inputs[1:] if v in constants)


def _along_depth(body: Body, dq: Node, *, rows_first: bool) -> int:
    """Weights of a column that share a scale: a block, or all."""
    shape, scale = body.types[dq.inputs[0]].shape, body.types[dq.inputs[1]].shape
    axis, along = dq.attributes["axis"] % 2, 1 if rows_first else 0
    if dq.attributes["block_size"] and axis == along:
        return dq.attributes["block_size"]
    if dq.attributes["block_size"] or scale in ((), (1,)) or axis != along:
        return shape[along]
    raise Untranslatable("every weight of a column has a scale of its own")


def _grain(body: Body, dq: Node, index: Index) -> Index:
    """Where the scale of a weight lies."""
    shape, block = body.types[dq.inputs[1]].shape, dq.attributes["block_size"]
    axis = dq.attributes["axis"] % 2
    if block:
        return tuple(f"({i}) / {block}" if a == axis else i for a, i in enumerate(index))
    return ("0",) if shape == (1,) else (index[axis],) if shape else ()


def _walk(
    e: Elements, body: Body, dq: Node, sizes: tuple[int, ...], *, rows_first: bool
) -> list[str]:
    """The sums: over the words of the columns, and the 8 weights of a word."""
    rows, depth, width, columns, step, lanes = sizes
    names = [i.name for i in body.inputs]
    anchor = body.anchor_node
    assert anchor is not None
    x, w = (names.index(v) for v in (anchor.inputs[0], dq.inputs[0]))
    kind = body.types[anchor.inputs[0]].dtype
    words, wide = step // 8, "u128" if step == 32 else "unsigned"
    index = ("n", "k") if rows_first else ("k", "n")
    own = _grain(body, dq, index)
    turned = turned_grains(body, dq, rows_first=rows_first)
    for k in turned:
        kind_of = body.inputs[k].type
        place = f"in{k}[n * {kind_of.shape[0]} + k / {dq.attributes['block_size']}]"
        e.ready[names[k]] = lambda asked, p=place, t=kind_of: loaded(t.dtype, p)
    scale = e.at(dq.inputs[1], own)
    zero = e.at(dq.inputs[2], own) if operand(dq, 2) else "0"
    for k in turned:
        del e.ready[names[k]]
    shift = "+ 8" if body.types[dq.inputs[0]].dtype is DataType.INT4 else ""
    grain, e.lines = e.lines, []
    e.helper("struct alignas(16) u128 { unsigned v[4]; };")
    each = 16 // kind.itemsize
    pack = f"Pack<{STORAGE[kind]}, {each}>"
    value = loaded(kind, f"part.v[q % {each}]")
    word = "word[c].v[p]" if step == 32 else "word[c]"
    return [
        '_Pragma("unroll 2")',
        f"for (idx k = lane * {step}; k < {depth}; k += {lanes * step}) {{",
        f"{wide} word[{columns}]; float scale[{columns}], zero[{columns}];",
        f'_Pragma("unroll") for (int c = 0; c < {columns}; ++c) {{',
        f"const idx n = first + c < {width} ? first + c : {width - 1};",
        f"word[c] = *reinterpret_cast<const {wide}*>(in{w} + (n * {depth} + k) / 2);",
        *grain,
        f"scale[c] = (float){scale}; zero[c] = 8388608.0f + (float)({zero} {shift}); }}",
        f"float sum[{rows}][{columns}] = {{}};",
        f'_Pragma("unroll") for (int p = 0; p < {words}; ++p) {{',
        f"float given[{rows}][8];",
        f'_Pragma("unroll") for (int m = 0; m < {rows}; ++m)',
        f'_Pragma("unroll") for (int h = 0; h < 8; h += {each}) {{',
        f"const auto* spot = in{x} + m * {depth} + k + p * 8 + h;",
        f"const {pack} part = *reinterpret_cast<const {pack}*>(spot);",
        f'_Pragma("unroll") for (int q = h; q < h + {each}; ++q) given[m][q] = {value}; }}',
        f'_Pragma("unroll") for (int c = 0; c < {columns}; ++c)',
        '_Pragma("unroll") for (int q = 0; q < 8; ++q) {',
        "// 2^23 + v as a float is the bits of 2^23 with those of v: no conversion.",
        f"const float weight = __uint_as_float(0x4B000000u | ({word} >> (4 * q) & 15u)) - zero[c];",
        f'_Pragma("unroll") for (int m = 0; m < {rows}; ++m)',
        "sum[m][c] += weight * given[m][q]; } }",
        f'_Pragma("unroll") for (int m = 0; m < {rows}; ++m)',
        f'_Pragma("unroll") for (int c = 0; c < {columns}; ++c)',
        "acc[m][c] += scale[c] * sum[m][c]; }",
    ]


def _store(e: Elements, body: Body, node: Node, sizes: tuple[int, ...]) -> list[str]:
    """The lanes' sums joined, what follows the product, and the result."""
    rows, width, columns, lanes = sizes
    shape = body.types[node.outputs[0]].shape
    e.begin()
    inner: list[str] = []
    stride = rows
    for size in shape[:-1]:
        stride //= max(size, 1)
        inner.append("0" if size == 1 else f"m / {stride} % {size}")
    full = (*inner, "n")
    product = "total"
    if node.op == "Gemm":
        product = f"{number(node.attributes['alpha'], DataType.FLOAT)} * total"
        if operand(node, 2):
            beta = number(node.attributes["beta"], DataType.FLOAT)
            product += f" + {beta} * {e.broadcast(node.inputs[2], full)}"
    y = e.variable("float", product)
    e.ready[node.outputs[0]] = lambda asked: y if asked == full else None
    for k, o in enumerate(body.outputs):
        value = stored(body.output_types[k].dtype, e.at(o, full))
        e.lines.append(f"out{k}[{offset(shape, LINEAR, full)}] = {value};")
    return [
        f'_Pragma("unroll") for (int m = 0; m < {rows}; ++m)',
        f'_Pragma("unroll") for (int c = 0; c < {columns}; ++c) {{',
        f"const float total = across<{lanes}, Sum>(acc[m][c]);",
        "const idx n = first + c;",
        f"if (lane == 0 && n < {width}) {{",
        *e.lines,
        "} }",
    ]


# -- packing ------------------------------------------------------------------------------
def _nibbles(matrix: Array) -> Array:
    """A matrix of 4-bit integers, two of a row in each byte, the earlier one below; uint8.

    Signed ones count from 8 on: 0 is -8.
    """
    numbers = matrix.astype(np.int16) + (8 if DataType.of(matrix) is DataType.INT4 else 0)
    low, high = numbers[:, 0::2], numbers[:, 1::2]
    return np.ascontiguousarray((low | high << 4).astype(np.uint8))


def packed(name: str, matrix: Array) -> Array:
    """A constant as a kernel reads it: as it is, transposed, or in rows of nibbles of either."""
    if not name:
        return matrix
    if name == "transposed":
        return np.ascontiguousarray(matrix.T)
    return _nibbles(matrix if name == "nibbles of rows" else matrix.T)
