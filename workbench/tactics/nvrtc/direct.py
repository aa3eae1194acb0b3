"""Products and windows, computed directly: a thread sums one place of several output channels.

Every Body with such an anchor runs by one of these, whatever comes before and after it; they are
not fast. Sums are made in a fixed order, in float32 (double for double).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from workbench.body import Body, Node
from workbench.datatypes import DataType
from workbench.formats import Format
from workbench.operators.convolution import transposed_window
from workbench.operators.windows import Window, window_of
from workbench.records import Refusal
from workbench.tactics.nvrtc.element_rules import elements_of
from workbench.tactics.nvrtc.elements import Elements, Index, offset, split
from workbench.tactics.nvrtc.frame import KernelText, kernel_text
from workbench.tactics.nvrtc.pointwise import THREADS, followed_layouts
from workbench.tactics.nvrtc.scalars import lowest, stored, working
from workbench.tactics.scalar_text import Untranslatable

TILES = (8, 4, 2, 1)
"""Output channels a thread."""


def direct_kernel(body: Body, layout: Format, tile: int) -> KernelText | Refusal:
    """The kernel of a Body anchored at a product, a convolution or a pooling."""
    node = body.anchor_node
    assert node is not None
    try:
        e = elements_of(body, followed_layouts(body, layout))
        out = body.types[node.outputs[0]]
        if any(t.shape != out.shape for t in body.output_types):
            raise Untranslatable("an output has another shape than the anchor's")
        if not out.shape:
            raise Untranslatable(f"{node.op} of vectors")
        kind = working(out.dtype)
        axis = 1 if node.op in WINDOWS else len(out.shape) - 1
        sizes = list(out.shape)
        sizes[axis] = -(-sizes[axis] // tile)
        count = prod(sizes)
        stored_order = [0, *range(2, len(sizes)), 1] if layout.channels_last else range(len(sizes))
        places = split(e, "i", [sizes[a] for a in stored_order])
        index = list(places)
        for a, p in zip(stored_order, places, strict=True):
            index[a] = p
        head, e.lines = e.lines, []
        lines = [
            f"const idx i = (idx)blockIdx.x * {THREADS} + threadIdx.x;",
            f"if (i >= {count}) return;",
            *head,
            f"{kind} acc[{tile}];",
            f'_Pragma("unroll") for (int t = 0; t < {tile}; ++t) acc[t] = 0;',
        ]
        first = f"({index[axis]}) * {tile}"
        channel = f"({first} + t)"
        rule = WINDOWS.get(node.op) or PRODUCTS[node.op]
        lines += rule(e, node, tuple(index), channel, tile, kind)
        e.begin()
        full = tuple(channel if a == axis else i for a, i in enumerate(index))
        y = e.variable(kind, _with_bias(e, node, full, axis))
        e.ready[node.outputs[0]] = lambda asked: y if asked == full else None
        for k, o in enumerate(body.outputs):
            value = stored(body.output_types[k].dtype, e.at(o, full))
            e.lines.append(f"out{k}[{offset(out.shape, layout, full)}] = {value};")
        lines += [
            f'_Pragma("unroll") for (int t = 0; t < {tile}; ++t) {{',
            f"if ({channel} < {out.shape[axis]}) {{",
            *e.lines,
            "} }",
        ]
    except Untranslatable as problem:
        return Refusal(str(problem), code="operator")
    return kernel_text(body, lines, e.tables, blocks=-(-count // THREADS), threads=THREADS)


def _with_bias(e: Elements, node: Node, full: Index, axis: int) -> str:
    if node.op in ("Conv", "ConvTranspose") and len(node.inputs) > 2 and node.inputs[2]:
        return f"acc[t] + {e.at(node.inputs[2], (full[axis],))}"
    if node.op == "Gemm":
        product = f"{float(node.attributes['alpha']):.9g} * acc[t]"
        if len(node.inputs) > 2 and node.inputs[2]:
            beta = float(node.attributes["beta"])
            return f"{product} + {beta:.9g} * {e.broadcast(node.inputs[2], full)}"
        return product
    return "acc[t]"


# -- sums ---------------------------------------------------------------------------------
def _loops(names: Sequence[str], sizes: Sequence[int]) -> list[str]:
    return [
        f"for (int {n} = 0; {n} < {d}; ++{n})" for n, d in zip(names, sizes, strict=True) if d != 1
    ]


def _multiplied(e: Elements, node: Node, a: Index, b: Index, bound: str, tile: int) -> list[str]:
    """acc[t] += left[a] * right[b], where b depends on t; ``bound``: which t there are."""
    e.begin()
    left = e.at(node.inputs[0], a)
    outer, e.lines = e.lines, []
    right = e.at(node.inputs[1], b)
    inner, e.lines = e.lines, []
    kind = working(e.body.types[node.outputs[0]].dtype)
    return [
        "{",
        *outer,
        f'_Pragma("unroll") for (int t = 0; t < {tile}; ++t) if ({bound}) {{',
        *inner,
        f"acc[t] += ({kind}){left} * ({kind}){right};",
        "} }",
    ]


def _product(
    e: Elements, node: Node, index: Index, channel: str, tile: int, kind: str
) -> list[str]:
    a, b = (e.body.types[v].shape for v in node.inputs[:2])
    if len(a) < 2 or len(b) < 2:
        raise Untranslatable(f"{node.op} of a vector")
    trans_a = node.op == "Gemm" and node.attributes["transA"]
    trans_b = node.op == "Gemm" and node.attributes["transB"]
    depth = a[-2] if trans_a else a[-1]
    columns = e.body.types[node.outputs[0]].shape[-1]

    def batch(shape: Sequence[int]) -> Index:
        own = index[len(index) - len(shape) : len(index) - 2]
        return tuple("0" if d == 1 else i for d, i in zip(shape[:-2], own, strict=True))

    row, m = "kk", index[-2]
    left = (*batch(a), *((row, m) if trans_a else (m, row)))
    right = (*batch(b), *((channel, row) if trans_b else (row, channel)))
    return [
        f"for (int kk = 0; kk < {depth}; ++kk)",
        *_multiplied(e, node, left, right, f"{channel} < {columns}", tile),
    ]


def _taps(g: Window) -> list[str]:
    """Loop variables over a window; 0 along axes of one tap."""
    return [f"r{k}" if d != 1 else "0" for k, d in enumerate(g.kernel)]


def _window(
    g: Window, taps: Sequence[str], index: Index, x: Sequence[int]
) -> tuple[list[str], str]:
    """Where in x a tap of an output's window lies, and the test that it is no padding."""
    spots = [
        f"(({index[2 + k]}) * {g.strides[k]} - {g.begin[k]} + {tap} * {g.dilations[k]})"
        for k, tap in enumerate(taps)
    ]
    return spots, " && ".join(f"{s} >= 0 && {s} < {x[2 + k]}" for k, s in enumerate(spots))


def _convolution(
    e: Elements, node: Node, index: Index, channel: str, tile: int, kind: str
) -> list[str]:
    x, w = (e.body.types[v].shape for v in node.inputs[:2])
    out = e.body.types[node.outputs[0]].shape
    group = node.attributes["group"]
    if group > 1 and (out[1] // group) % tile:
        raise Untranslatable("a tile would cross groups")
    g = window_of(node.attributes, x[2:], w[2:])
    rank, taps = len(g.kernel), _taps(g)
    spots, inside = _window(g, taps, index, x)
    source = "c" if group == 1 else f"(({index[1]}) * {tile} / {out[1] // group}) * {w[1]} + c"
    return [
        *_loops([f"r{k}" for k in range(rank)], g.kernel),
        f"if ({inside})",
        f"for (int c = 0; c < {w[1]}; ++c)",
        *_multiplied(
            e, node, (index[0], source, *spots), (channel, "c", *taps), f"{channel} < {w[0]}", tile
        ),
    ]


def _transposed(
    e: Elements, node: Node, index: Index, channel: str, tile: int, kind: str
) -> list[str]:
    x, w = (e.body.types[v].shape for v in node.inputs[:2])
    out = e.body.types[node.outputs[0]].shape
    group = node.attributes["group"]
    each, depth = out[1] // group, x[1] // group
    if group > 1 and each % tile:
        raise Untranslatable("a tile would cross groups")
    g = transposed_window(node.attributes, x[2:], w[2:])
    rank, taps = len(g.kernel), _taps(g)
    places = [
        f"(({index[2 + k]}) + {g.begin[k]} - {taps[k]} * {g.dilations[k]})" for k in range(rank)
    ]
    inside = " && ".join(
        f"{p} >= 0 && {p} % {s} == 0 && {p} / {s} < {x[2 + k]}"
        for k, (p, s) in enumerate(zip(places, g.strides, strict=True))
    )
    spots = [f"({p} / {s})" for p, s in zip(places, g.strides, strict=True)]
    first = "0" if group == 1 else f"(({index[1]}) * {tile} / {each}) * {depth}"
    own = channel if group == 1 else f"{channel} % {each}"
    return [
        *_loops([f"r{k}" for k in range(rank)], g.kernel),
        f"if ({inside})",
        f"for (int c = 0; c < {depth}; ++c)",
        *_multiplied(
            e,
            node,
            (index[0], f"({first} + c)", *spots),
            (f"({first} + c)", own, *taps),
            f"{channel} < {out[1]}",
            tile,
        ),
    ]


def _pooling(
    e: Elements, node: Node, index: Index, channel: str, tile: int, kind: str
) -> list[str]:
    x = e.body.types[node.inputs[0]].shape
    out = e.body.types[node.outputs[0]].shape
    if any(o and any(o in n.inputs for n in e.body.nodes) for o in node.outputs[1:]):
        raise Untranslatable("the places of the largest elements")
    g = window_of(node.attributes, x[2:], node.attributes["kernel_shape"])
    rank, taps = len(g.kernel), _taps(g)
    spots, inside = _window(g, taps, index, x)
    e.begin()
    value = e.at(node.inputs[0], (index[0], channel, *spots))
    inner, e.lines = e.lines, []
    largest = node.op == "MaxPool"
    step = f"acc[t] = max_nan(acc[t], {value});" if largest else f"acc[t] += {value};"
    start = lowest(kind) if largest else "0"
    padded = not largest and node.attributes["count_include_pad"]
    if padded and node.attributes["ceil_mode"]:
        raise Untranslatable("count_include_pad with ceil_mode")
    lines = [
        f'_Pragma("unroll") for (int t = 0; t < {tile}; ++t) acc[t] = {start};',
        "int seen = 0;",
        *_loops([f"r{k}" for k in range(rank)], g.kernel),
        f"if ({inside}) {{ ++seen;",
        f'_Pragma("unroll") for (int t = 0; t < {tile}; ++t) if ({channel} < {out[1]}) {{',
        *inner,
        step,
        "} }",
    ]
    if not largest:
        lines.append(f"const {kind} share = 1 / ({kind}){prod(g.kernel) if padded else 'seen'};")
        lines.append(f'_Pragma("unroll") for (int t = 0; t < {tile}; ++t) acc[t] *= share;')
    return lines


WINDOWS = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "MaxPool": _pooling,
    "AveragePool": _pooling,
}
PRODUCTS = {"Gemm": _product, "MatMul": _product}
ANCHORS = frozenset({*WINDOWS, *PRODUCTS})


def computed_types(body: Body) -> Refusal | None:
    """Why the anchor's sums are not made here, or None."""
    node = body.anchor_node
    assert node is not None
    kind = body.types[node.outputs[0]].dtype
    if (
        kind.is_float
        or node.op == "MaxPool"
        or kind in (DataType.INT32, DataType.INT64, DataType.UINT32)
    ):
        return None
    return Refusal(f"{node.op} of {kind.value}", code="type")
