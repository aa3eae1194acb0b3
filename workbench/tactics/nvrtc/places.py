"""Operators that compute an element, or where it lies, from its place and from indices."""

from __future__ import annotations

from math import prod

from workbench.body import Literal, Node
from workbench.formats import LINEAR
from workbench.operators.windows import window_of
from workbench.tactics.nvrtc.elements import Elements, Index, Movement, offset, operand
from workbench.tactics.nvrtc.movements import known, place_within
from workbench.tactics.nvrtc.scalars import STORAGE, loaded, number, stored, working, wrapped

BITS = r"""
template <typename T, typename F> INLINE T same_bits(F v) {
  union { F from; T to; } u; u.from = v; return u.to; }
"""


# -- made of sizes ------------------------------------------------------------------------
def _numbers(e: Elements, values: tuple[int, ...], name: str, index: Index) -> str:
    kind = e.body.types[name].dtype
    if len(values) == 1:
        return number(values[0], kind)
    return f"{e.table(values, kind)}[{offset((len(values),), LINEAR, index)}]"


def _shape(e: Elements, node: Node, name: str, index: Index) -> str:
    a = node.attributes
    return _numbers(e, e.body.types[node.inputs[0]].shape[a["start"] : a["end"]], name, index)


def _size(e: Elements, node: Node, name: str, index: Index) -> str:
    return number(prod(e.body.types[node.inputs[0]].shape), e.body.types[name].dtype)


def _constant_of_shape(e: Elements, node: Node, name: str, index: Index) -> str:
    value: Literal = node.attributes["value"]
    return number(value.values[0], e.body.types[name].dtype)


def scalar(e: Elements, name: str) -> str:
    """The element of an operand that has one."""
    return e.at(name, ("0",) * len(e.body.types[name].shape))


def _range(e: Elements, node: Node, name: str, index: Index) -> str:
    dtype = e.body.types[name].dtype
    kind = working(dtype)
    start, step = scalar(e, node.inputs[0]), scalar(e, node.inputs[2])
    return e.variable(kind, wrapped(dtype, f"{start} + ({kind})({index[0]}) * {step}"))


def _eye(e: Elements, node: Node, name: str, index: Index) -> str:
    dtype = e.body.types[name].dtype
    here = f"(i64)({index[1]}) - (i64)({index[0]}) == {node.attributes['k']}"
    return e.variable(working(dtype), f"{here} ? {number(1, dtype)} : {number(0, dtype)}")


# -- at indices ---------------------------------------------------------------------------
def _gather_nd(e: Elements, node: Node, name: str, index: Index) -> str:
    """An index beyond its axis reads the last element: a kernel cannot stop a run."""
    x, places = (e.body.types[v].shape for v in node.inputs[:2])
    batch, spots = node.attributes["batch_dims"], index[: len(places) - 1]
    found = [
        place_within(e, e.at(node.inputs[1], (*spots, str(k))), x[batch + k])
        for k in range(places[-1])
    ]
    return e.at(node.inputs[0], (*index[:batch], *found, *index[len(places) - 1 :]))


def _one_hot(e: Elements, node: Node, name: str, index: Index) -> str:
    (depth,) = known(e, node, 1)
    axis = node.attributes["axis"] % len(index)
    place = e.at(node.inputs[0], (*index[:axis], *index[axis + 1 :]))
    off, on = (e.at(node.inputs[2], (str(k),)) for k in range(2))
    here = f"{place} == ({index[axis]}) || {place} + {int(depth)} == ({index[axis]})"
    return e.variable(working(e.body.types[name].dtype), f"{here} ? {on} : {off}")


def _reverse_sequence(e: Elements, node: Node, name: str, index: Index) -> str:
    rank = len(index)
    time, batch = (node.attributes[a] % rank for a in ("time_axis", "batch_axis"))
    length = e.at(node.inputs[1], (index[batch],))
    t = f"(i64)({index[time]})"
    place = place_within(
        e, f"({t} < {length} ? {length} - 1 - {t} : {t})", e.body.types[name].shape[time]
    )
    return e.at(node.inputs[0], tuple(place if a == time else i for a, i in enumerate(index)))


def _tensor_scatter(e: Elements, node: Node, name: str, index: Index) -> str:
    """Of updates that wrap around onto one place the last one counts."""
    cache, update = (e.body.types[v].shape for v in node.inputs[:2])
    axis = node.attributes["axis"] % len(cache)
    size, new = cache[axis], update[axis]
    starts = operand(node, 2)
    first = e.at(starts, (index[0],)) if starts else "(i64)0"
    place = e.variable("i64", f"(i64)({index[axis]}) - {first}")
    if node.attributes["mode"] == "circular":
        place = e.variable("i64", f"(({place}) % {size} + {size}) % {size}")
        place = e.variable("i64", f"{place} + ({new - 1} - {place}) / {size} * {size}")
    result = e.variable(working(e.body.types[name].dtype), "0")
    own = tuple(f"(idx){place}" if a == axis else i for a, i in enumerate(index))
    with e.branch(f"{place} >= 0 && {place} < {new}"):
        e.lines.append(f"{result} = {e.at(node.inputs[1], own)};")
    with e.branch(f"!({place} >= 0 && {place} < {new})"):
        e.lines.append(f"{result} = {e.at(node.inputs[0], index)};")
    return result


def _col2im(e: Elements, node: Node, name: str, index: Index) -> str:
    """The sum of the columns' elements that fall on a pixel."""
    image, block = ([int(n) for n in known(e, node, k)] for k in (1, 2))
    g = window_of(node.attributes, image, block)
    dtype = e.body.types[name].dtype
    total = e.variable(working(dtype), "0")
    with e.loops(block) as taps:
        places = [
            e.variable("const idx", f"({index[2 + k]}) + {g.begin[k]} - {taps[k]} * {d}")
            for k, d in enumerate(g.dilations)
        ]
        inside = " && ".join(
            f"{p} >= 0 && {p} % {s} == 0 && {p} / {s} < {o}"
            for p, s, o in zip(places, g.strides, g.output, strict=True)
        )
        with e.branch(inside):
            spots = [f"{p} / {s}" for p, s in zip(places, g.strides, strict=True)]
            column = offset(tuple(g.output), LINEAR, tuple(spots))
            channels = e.body.types[name].shape[1]
            tap = offset((channels, *block), LINEAR, (index[1], *taps))
            e.lines.append(f"{total} += {e.at(node.inputs[0], (index[0], tap, column))};")
    return e.variable(working(dtype), wrapped(dtype, total))


# -- the rest -----------------------------------------------------------------------------
def _bit_cast(e: Elements, node: Node, name: str, index: Index) -> str:
    source, target = e.body.types[node.inputs[0]].dtype, e.body.types[name].dtype
    e.helper(BITS)
    held = e.raw(node.inputs[0], index) or stored(source, e.at(node.inputs[0], index))
    bits = f"same_bits<{STORAGE[target]}, {STORAGE[source]}>({held})"
    return e.variable(working(target), loaded(target, bits))


def _batch_norm(e: Elements, node: Node, name: str, index: Index) -> str:
    kind = working(e.body.types[name].dtype)
    x = e.at(node.inputs[0], index)
    scale, bias, mean, variance = (e.at(v, (index[1],)) for v in node.inputs[1:5])
    epsilon = float(node.attributes["epsilon"])
    inverse = e.variable(kind, f"1 / sqrt_(({kind})({variance}) + ({kind}){epsilon:.17g})")
    return e.variable(kind, f"({x} - {mean}) * ({scale} * {inverse}) + {bias}")


PLACES: dict[str, Movement] = {
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "EyeLike": _eye,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
    "TensorScatter": _tensor_scatter,
    "Col2Im": _col2im,
    "BitCast": _bit_cast,
    "BatchNormalization": _batch_norm,
}
"""By operator."""
