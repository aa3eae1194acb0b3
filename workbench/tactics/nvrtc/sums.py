"""Operators of which a thread computes an element by a loop: sums, extremes and windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod

from workbench.body import Node
from workbench.datatypes import DataType
from workbench.formats import LINEAR
from workbench.operators.matrix import einsum_terms
from workbench.operators.windows import Window, window_of
from workbench.tactics.nvrtc.elements import Elements, Index, Movement, offset, operand
from workbench.tactics.nvrtc.movements import known
from workbench.tactics.nvrtc.scalars import (
    INTEGERS,
    highest,
    lowest,
    number,
    powered,
    rooted,
    working,
    wrapped,
)
from workbench.tactics.scalar_text import Untranslatable

BIGGER = r"""
template <typename T> INLINE bool beats(T a, T b) { return a > b || (a != a && b == b); }
"""
"""NaN is above every number, as where NumPy sorts; where the smallest is looked for, too."""


# -- along axes ---------------------------------------------------------------------------
def _full(axes: Sequence[int], inner: Index, outer: Index, rank: int, *, kept: bool) -> Index:
    """Coordinates of an element: ``inner`` along the axes, elsewhere those of the result."""
    rest = iter(outer)
    found: list[str] = []
    for a in range(rank):
        if a in axes:
            found.append(inner[list(axes).index(a)])
            if kept:
                next(rest)
        else:
            found.append(next(rest))
    return tuple(found)


def _extreme(e: Elements, node: Node, name: str, index: Index) -> str:
    """ArgMax and ArgMin by one thread: of computed elements in rows too long for registers."""
    x = e.body.types[node.inputs[0]]
    axis = node.attributes["axis"] % len(x.shape)
    kind, kept = working(x.dtype), bool(node.attributes["keepdims"])
    e.helper(BIGGER)
    best, place = e.variable(kind, "0"), e.variable("i64", "-1")
    with e.loops([x.shape[axis]]) as (j,):
        full = _full((axis,), (j,), index, len(x.shape), kept=kept)
        value = e.at(node.inputs[0], full)
        flip = "" if node.op == "ArgMax" else "~" if kind in INTEGERS else "-"
        order = (f"{flip}{value}", f"{flip}{best}")
        better = f"beats({', '.join(order)})"
        if node.attributes["select_last_index"]:
            better = f"!beats({order[1]}, {order[0]})"
        with e.branch(f"{place} < 0 || {better}"):
            e.lines.append(f"{best} = {value}; {place} = {j};")
    return place


_STEPS = {
    "ReduceSum": "{t} + {x}",
    "ReduceMean": "{t} + {x}",
    "ReduceL1": "{t} + ({x} < 0 ? -{x} : {x})",
    "ReduceL2": "{t} + {x} * {x}",
    "ReduceSumSquare": "{t} + {x} * {x}",
    "ReduceLogSum": "{t} + {x}",
    "ReduceLogSumExp": "{t} + exp_({x} - {shift})",
    "ReduceProd": "{t} * {x}",
    "ReduceMax": "max_nan({t}, {x})",
    "ReduceMin": "min_nan({t}, {x})",
}
_ENDS = {
    "ReduceMean": "{t} / {n}",
    "ReduceL2": "sqrt_({t})",
    "ReduceLogSum": "log_({t})",
    "ReduceLogSumExp": "{shift} + log_({t})",
}


def _reduction(e: Elements, node: Node, name: str, index: Index) -> str:
    """A reduction by one thread: of nothing, of rows too long for ``rows``, or no reduction."""
    x = e.body.types[node.inputs[0]]
    rank, kept = len(x.shape), bool(node.attributes["keepdims"])
    given = known(e, node, 1, ()) if operand(node, 1) else ()
    none = not given and node.attributes["noop_with_empty_axes"]
    chosen = () if none else tuple(int(a) % rank for a in given) or tuple(range(rank))
    kind = "i64" if x.dtype is DataType.BOOL else working(x.dtype)
    _refuse_floats_only(node, kind)
    shift = ""
    if node.op == "ReduceLogSumExp":
        most = e.variable(kind, lowest(kind))
        with e.loops([x.shape[a] for a in chosen]) as inner:
            value = e.at(node.inputs[0], _full(chosen, inner, index, rank, kept=kept))
            e.lines.append(f"{most} = max_nan({most}, {value});")
        shift = e.variable(kind, f"{most} - {most} == 0 ? {most} : 0")
    total = e.variable(kind, _start(node, kind, x.dtype))
    with e.loops([x.shape[a] for a in chosen]) as inner:
        value = f"({kind}){e.at(node.inputs[0], _full(chosen, inner, index, rank, kept=kept))}"
        e.lines.append(f"{total} = {_STEPS[node.op].format(t=total, x=value, shift=shift)};")
    n = prod(x.shape[a] for a in chosen)
    text = _ENDS.get(node.op, "{t}").format(t=total, n=f"({kind}){n}", shift=shift)
    out = e.body.types[name].dtype
    return e.variable(working(out), wrapped(out, f"({working(out)})({text})"))


def _refuse_floats_only(node: Node, kind: str) -> None:
    if kind in INTEGERS and node.op in ("ReduceL2", "ReduceLogSum", "ReduceLogSumExp"):
        raise Untranslatable(f"{node.op} of integers")


def _start(node: Node, kind: str, dtype: DataType) -> str:
    if node.op == "ReduceProd":
        return "1"
    if node.op not in ("ReduceMax", "ReduceMin"):
        return "0"
    largest = node.op == "ReduceMax"
    if dtype.is_float:
        return lowest(kind) if largest else highest(kind)
    limit = dtype.info.low if largest else dtype.info.high
    return number(limit, DataType.INT64 if dtype is DataType.BOOL else dtype)


# -- products -----------------------------------------------------------------------------
def _matmul(e: Elements, node: Node, name: str, index: Index) -> str:
    """A product of which one operand is a vector."""
    a, b = (e.body.types[v].shape for v in node.inputs[:2])
    own = list(index)
    column = [own.pop()] if len(b) > 1 else []
    row = [own.pop()] if len(a) > 1 else []

    def batch(shape: Sequence[int]) -> Index:
        sizes = shape[:-2]
        places = own[len(own) - len(sizes) :]
        return tuple("0" if d == 1 else i for d, i in zip(sizes, places, strict=True))

    dtype = e.body.types[name].dtype
    total = e.variable(working(dtype), "0")
    with e.loops(a[len(a) - 1 :]) as (k,):
        left = e.at(node.inputs[0], (*batch(a), *row, k))
        right = e.at(node.inputs[1], (*batch(b), k, *column))
        e.lines.append(f"{total} += {left} * {right};")
    return e.variable(working(dtype), wrapped(dtype, total))


def _einsum(e: Elements, node: Node, name: str, index: Index) -> str:
    shapes = [e.body.types[v].shape for v in node.inputs]
    named, result = einsum_terms(node.attributes["equation"], [len(s) for s in shapes])
    sizes: dict[str, int] = {}
    for letters, shape in zip(named, shapes, strict=True):
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size) if size else 0
    dtype = e.body.types[name].dtype
    total = e.variable(working(dtype), "0")
    summed = [c for c in sizes if c not in result]
    with e.loops([sizes[c] for c in summed]) as inner:
        where = {**dict(zip(result, index, strict=True)), **dict(zip(summed, inner, strict=True))}
        factors = [
            e.at(v, tuple("0" if d == 1 else where[c] for c, d in zip(letters, shape, strict=True)))
            for v, letters, shape in zip(node.inputs, named, shapes, strict=True)
        ]
        e.lines.append(f"{total} += {' * '.join(factors)};")
    return e.variable(working(dtype), wrapped(dtype, total))


# -- windows ------------------------------------------------------------------------------
def _window(e: Elements, node: Node) -> tuple[Window, tuple[int, ...]]:
    x = e.body.types[node.inputs[0]].shape
    return window_of(node.attributes, x[2:], node.attributes["kernel_shape"]), x


def _spots(g: Window, taps: Index, index: Index) -> list[str]:
    """Where in the input a tap lies; outside of it in the padding."""
    return [
        f"({index[2 + k]}) * {g.strides[k]} - {g.begin[k]} + {tap} * {g.dilations[k]}"
        for k, tap in enumerate(taps)
    ]


def _inside(spots: Sequence[str], low: Sequence[int], high: Sequence[int]) -> str:
    return " && ".join(
        f"{s} >= {-b} && {s} < {h}" for s, b, h in zip(spots, low, high, strict=True)
    )


def _max_pool(e: Elements, node: Node, name: str, index: Index) -> str:
    """The largest element of a window; as second output its place in the input, the first such."""
    g, x = _window(e, node)
    dtype = e.body.types[node.inputs[0]].dtype
    kind = working(dtype)
    best, place = e.variable(kind, lowest(kind)), e.variable("i64", "-1")
    with e.loops(g.kernel) as taps:
        spots = [e.variable("const idx", s) for s in _spots(g, taps, index)]
        with e.branch(_inside(spots, (0,) * len(spots), x[2:])):
            value = e.at(node.inputs[0], (*index[:2], *spots))
            with e.branch(f"{place} < 0 || {value} > {best}"):
                e.lines.append(f"{place} = {_plane_offset(node, x, spots)};")
            e.lines.append(f"{best} = max_nan({best}, {value});")
    if name == node.outputs[0]:
        return best
    plane = offset(x[:2], LINEAR, index[:2])
    return e.variable("i64", f"{place} + (i64)({plane}) * {prod(x[2:])}")


def _plane_offset(node: Node, x: Sequence[int], spots: Sequence[str]) -> str:
    if node.attributes["storage_order"]:
        return offset(x[2:][::-1], LINEAR, tuple(spots[::-1]))
    return offset(x[2:], LINEAR, tuple(spots))


def _average_pool(e: Elements, node: Node, name: str, index: Index) -> str:
    g, x = _window(e, node)
    kind = working(e.body.types[name].dtype)
    total, seen = e.variable(kind, "0"), e.variable("int", "0")
    padded = bool(node.attributes["count_include_pad"])
    with e.loops(g.kernel) as taps:
        spots = [e.variable("const idx", s) for s in _spots(g, taps, index)]
        low = g.begin if padded else (0,) * len(spots)
        high = [n + (end if padded else 0) for n, end in zip(x[2:], g.end, strict=True)]
        e.lines.append(f"{seen} += {_inside(spots, low, high)};")
        with e.branch(_inside(spots, (0,) * len(spots), x[2:])):
            e.lines.append(f"{total} += {e.at(node.inputs[0], (*index[:2], *spots))};")
    return e.variable(kind, f"{total} / ({kind}){seen}")


def _lp_pool(e: Elements, node: Node, name: str, index: Index) -> str:
    """(Σ|x|ᵖ)^(1/p) of a window, scaled by its largest element so that no power overflows."""
    g, x = _window(e, node)
    kind, p = working(e.body.types[name].dtype), node.attributes["p"]
    most, total = e.variable(kind, "0"), e.variable(kind, "0")
    for step in ("most", "total"):
        with e.loops(g.kernel) as taps:
            spots = [e.variable("const idx", s) for s in _spots(g, taps, index)]
            with e.branch(_inside(spots, (0,) * len(spots), x[2:])):
                value = e.at(node.inputs[0], (*index[:2], *spots))
                size = e.variable(kind, f"{value} < 0 ? -{value} : {value}")
                if step == "most":
                    e.lines.append(f"{most} = max_nan({most}, {size});")
                else:
                    e.lines.append(f"{total} += {powered(f'({size} / {most})', p, kind)};")
        if step == "most":
            e.lines.append(f"if (!({most} > 0 && {most} - {most} == 0)) {most} = 1;")
    return e.variable(kind, f"{rooted(total, p, kind)} * {most}")


def _response(e: Elements, node: Node, name: str, index: Index) -> str:
    """LRN: the neighbouring channels' squares."""
    a, kind = node.attributes, working(e.body.types[name].dtype)
    channels, size = e.body.types[name].shape[1], node.attributes["size"]
    total = e.variable(kind, "0")
    with e.loops([size]) as (k,):
        c = e.variable("const idx", f"({index[1]}) + {k} - {(size - 1) // 2}")
        with e.branch(f"{c} >= 0 && {c} < {channels}"):
            value = e.at(node.inputs[0], (index[0], c, *index[2:]))
            e.lines.append(f"{total} += {value} * {value};")
    base = f"({kind}){float(a['bias'])!r} + ({kind}){a['alpha'] / size!r} * {total}"
    x = e.at(node.inputs[0], index)
    return e.variable(kind, f"{x} * pow_({base}, ({kind}){-float(a['beta'])!r})")


# -- spectra ------------------------------------------------------------------------------
def twiddle(e: Elements, length: int, turn: str) -> tuple[str, str]:
    """Cosine and sine of 2π·turn/length, turn from 0 to length - 1."""
    if length <= 4096:
        angles = [2 * math.pi * k / length for k in range(length)]
        tables = (e.table([f(v) for v in angles], DataType.DOUBLE) for f in (math.cos, math.sin))
        cosine, sine = (f"{t}[{turn}]" for t in tables)
        return cosine, sine
    angle = f"2.0 * (double)({turn}) / {length}"
    return f"cospi({angle})", f"sinpi({angle})"


def dft_lengths(e: Elements, node: Node, axis: int) -> tuple[int, int]:
    """Numbers of a DFT's signal, and how many of them its input gives."""
    size = e.body.types[node.inputs[0]].shape[axis]
    mirrored = node.attributes["inverse"] and node.attributes["onesided"]
    length = int(known(e, node, 1)[0]) if operand(node, 1) else 0
    length = length or (2 * (size - 1) if mirrored else size)
    return length, min(size, length // 2 + 1 if mirrored else length)


def _dft(e: Elements, node: Node, name: str, index: Index) -> str:
    """The sum itself, in double: N products for each element. Source: ONNX DFT-20."""
    x = e.body.types[node.inputs[0]].shape
    y = e.body.types[name].shape
    a, rank = node.attributes, len(x)
    axis = int(known(e, node, 2, (-2,))[0]) % rank
    mirrored = a["inverse"] and a["onesided"]
    length, count = dft_lengths(e, node, axis)
    total = e.variable("double", "0")
    with e.loops([count]) as (n,):
        where = tuple(n if k == axis else i for k, i in enumerate(index[:-1]))
        real = e.at(node.inputs[0], (*where, "0"))
        imaginary = e.at(node.inputs[0], (*where, "1")) if x[-1] == 2 else "0"
        turn = e.variable("const int", f"(int)(((i64)({index[axis]}) * {n}) % {length})")
        cosine, sine = twiddle(e, length, turn)
        sign = "-" if a["inverse"] else ""
        c, s = e.variable("double", cosine), e.variable("double", f"{sign}{sine}")
        parts = (f"{real} * {c} + {imaginary} * {s}", f"{imaginary} * {c} - {real} * {s}")
        if mirrored:
            # The ends of half a spectrum are real, and stand for themselves alone.
            ends = f"{n} == 0" + (f" || {n} == {length // 2}" if length % 2 == 0 else "")
            parts = (f"({ends} ? {real} * {c} : 2 * ({parts[0]}))", "0")
        term = parts[0] if y[-1] == 1 else f"(({index[-1]}) == 0 ? {parts[0]} : {parts[1]})"
        e.lines.append(f"{total} += {term};")
    kind = working(e.body.types[name].dtype)
    return e.variable(kind, f"({kind})({total}{f' / {length}' if a['inverse'] else ''})")


def _stft(e: Elements, node: Node, name: str, index: Index) -> str:
    x = e.body.types[node.inputs[0]].shape
    step, window = int(known(e, node, 1)[0]), operand(node, 2)
    length = int(known(e, node, 3)[0]) if operand(node, 3) else 0
    length = length or e.body.types[window].shape[0]
    total = e.variable("double", "0")
    with e.loops([length]) as (n,):
        place = (index[0], f"({index[1]}) * {step} + {n}")
        pair = len(x) == 3 and x[2] == 2
        real = e.at(node.inputs[0], (*place, "0")[: len(x)])
        imaginary = e.at(node.inputs[0], (*place, "1")) if pair else "0"
        weight = e.at(window, (n,)) if window else "1"
        turn = e.variable("const int", f"(int)(((i64)({index[2]}) * {n}) % {length})")
        c, s = (e.variable("double", t) for t in twiddle(e, length, turn))
        one, two = f"{real} * {c} + {imaginary} * {s}", f"{imaginary} * {c} - {real} * {s}"
        e.lines.append(f"{total} += (double){weight} * (({index[3]}) == 0 ? {one} : {two});")
    kind = working(e.body.types[name].dtype)
    return e.variable(kind, f"({kind})({total})")


SUMS: dict[str, Movement] = {
    **dict.fromkeys(("ArgMax", "ArgMin"), _extreme),
    **dict.fromkeys(_STEPS, _reduction),
    "MatMul": _matmul,
    "Einsum": _einsum,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "LpPool": _lp_pool,
    "LRN": _response,
    "DFT": _dft,
    "STFT": _stft,
}
"""By operator."""
