"""Operators that move elements: a result's element lies at other coordinates of an operand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.body import Node
from workbench.formats import LINEAR
from workbench.tactics.nvrtc.elements import Elements, Index, Movement, offset, operand, split
from workbench.tactics.nvrtc.scalars import number, working
from workbench.tactics.scalar_text import Untranslatable


def _reshape(e: Elements, node: Node, name: str, index: Index) -> str:
    source, target = e.body.types[node.inputs[0]].shape, e.body.types[name].shape
    dropped = [i for d, i in zip(target, index, strict=True) if d != 1]
    if [d for d in source if d != 1] == [d for d in target if d != 1]:
        rest = iter(dropped)
        return e.at(node.inputs[0], tuple("0" if d == 1 else next(rest) for d in source))
    # Equal leading and trailing sizes keep their coordinates.
    head = _common(source, target)
    tail = _common(source[head:][::-1], target[head:][::-1])
    inner = slice(head, len(target) - tail)
    flat = e.variable("const idx", offset(target[inner], LINEAR, index[inner]))
    middle = split(e, flat, source[head : len(source) - tail])
    return e.at(node.inputs[0], (*index[:head], *middle, *index[len(index) - tail :]))


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


def _transpose(e: Elements, node: Node, name: str, index: Index) -> str:
    perm = node.attributes["perm"] or tuple(reversed(range(len(index))))
    return e.at(node.inputs[0], tuple(index[perm.index(a)] for a in range(len(index))))


def _expand(e: Elements, node: Node, name: str, index: Index) -> str:
    return e.broadcast(node.inputs[0], index)


def _tile(e: Elements, node: Node, name: str, index: Index) -> str:
    shape = e.body.types[node.inputs[0]].shape
    return e.at(node.inputs[0], tuple(f"({i}) % {d}" for i, d in zip(index, shape, strict=True)))


def known(e: Elements, node: Node, k: int, default: Any = None) -> tuple[Any, ...]:
    """The values of a literal operand. Raises Untranslatable for what only a run knows."""
    name = operand(node, k)
    if not name:
        return tuple(default)
    values = e.literal(name)
    if values is None:
        raise Untranslatable(f"{node.op} reads '{name}' when it runs")
    return values


def _slice(e: Elements, node: Node, name: str, index: Index) -> str:
    shape = e.body.types[node.inputs[0]].shape
    starts = known(e, node, 1)
    axes = [int(a) % len(shape) for a in known(e, node, 3, range(len(starts)))]
    steps = known(e, node, 4, (1,) * len(starts))
    own = list(index)
    for start, axis, step in zip(starts, axes, steps, strict=True):
        size, step = shape[axis], int(step)
        first = int(start) + size if int(start) < 0 else int(start)
        first = min(max(first, 0), size if step > 0 else size - 1)
        own[axis] = f"{first} + ({index[axis]}) * {step}"
        if first == 0 and step == 1:
            own[axis] = index[axis]
    return e.at(node.inputs[0], tuple(own))


def _split(e: Elements, node: Node, name: str, index: Index) -> str:
    axis = node.attributes["axis"] % len(index)
    sizes = [e.body.types[o].shape[axis] for o in node.outputs]
    before = sum(sizes[: node.outputs.index(name)])
    own = tuple(f"{before} + ({i})" if a == axis and before else i for a, i in enumerate(index))
    return e.at(node.inputs[0], own)


def _concat(e: Elements, node: Node, name: str, index: Index) -> str:
    axis = node.attributes["axis"] % len(index)
    result = e.variable(working(e.body.types[name].dtype), "0")
    before = 0
    for part in node.inputs:
        size = e.body.types[part].shape[axis]
        if not size:
            continue
        own = tuple(f"({i}) - {before}" if a == axis and before else i for a, i in enumerate(index))
        with e.branch(f"({index[axis]}) >= {before} && ({index[axis]}) < {before + size}"):
            e.lines.append(f"{result} = {e.at(part, own)};")
        before += size
    return result


def _gather(e: Elements, node: Node, name: str, index: Index) -> str:
    """An index beyond the axis reads its last element: a kernel cannot stop a run."""
    shape, places = (e.body.types[v].shape for v in node.inputs[:2])
    axis = node.attributes["axis"] % len(shape)
    rank = len(places)
    found = e.at(node.inputs[1], index[axis : axis + rank])
    return e.at(
        node.inputs[0], (*index[:axis], place_within(e, found, shape[axis]), *index[axis + rank :])
    )


def _gather_elements(e: Elements, node: Node, name: str, index: Index) -> str:
    shape = e.body.types[node.inputs[0]].shape
    axis = node.attributes["axis"] % len(shape)
    found = place_within(e, e.at(node.inputs[1], index), shape[axis])
    return e.at(node.inputs[0], (*index[:axis], found, *index[axis + 1 :]))


def place_within(e: Elements, place: str, size: int) -> str:
    """An index, counted from the front and kept inside its axis."""
    wrapped_place = f"{place} < 0 ? {place} + {size} : {place}"
    return e.variable(
        "const idx", f"(idx)min_nan(max_nan((i64)({wrapped_place}), (i64)0), (i64){size - 1})"
    )


def _pad(e: Elements, node: Node, name: str, index: Index) -> str:
    shape, mode = e.body.types[node.inputs[0]].shape, node.attributes["mode"]
    pads = [int(p) for p in known(e, node, 1)]
    axes = [int(a) % len(shape) for a in known(e, node, 3, range(len(shape)))]
    own = list(index)
    conditions: list[str] = []
    for k, axis in enumerate(axes):
        before, after, size = pads[k], pads[k + len(axes)], shape[axis]
        if not (before or after):
            continue
        i = e.variable("const idx", f"({index[axis]}) - ({before})")
        # What a negative pad cuts off is gone before anything is repeated.
        low, high = max(-before, 0), size - max(-after, 0)
        if mode == "constant":
            conditions.append(f"{i} >= {low} && {i} < {high}")
        elif mode == "edge":
            i = f"({i} < {low} ? {low} : ({i} >= {high} ? {high - 1} : {i}))"
        elif mode == "wrap":
            count = high - low
            i = f"((({i} - {low}) % {count} + {count}) % {count} + {low})"
        else:
            i = f"({i} < {low} ? {2 * low} - {i} : ({i} >= {high} ? {2 * high - 2} - {i} : {i}))"
        own[axis] = i
    if not conditions:
        return e.at(node.inputs[0], tuple(own))
    kind = e.body.types[name].dtype
    filling = operand(node, 2)
    value = e.at(filling, ()) if filling else number(0, kind)
    result = e.variable(working(kind), value)
    with e.branch(" && ".join(conditions)):
        e.lines.append(f"{result} = {e.at(node.inputs[0], tuple(own))};")
    return result


def _trilu(e: Elements, node: Node, name: str, index: Index) -> str:
    (k,) = known(e, node, 1, (0,))
    sign = ">=" if node.attributes["upper"] else "<="
    result = e.variable(working(e.body.types[name].dtype), "0")
    with e.branch(f"(i64)({index[-1]}) - (i64)({index[-2]}) {sign} {int(k)}"):
        e.lines.append(f"{result} = {e.at(node.inputs[0], index)};")
    return result


def _depth_to_space(e: Elements, node: Node, name: str, index: Index) -> str:
    b, (n, c, h, w) = node.attributes["blocksize"], index
    depth = e.body.types[name].shape[1]
    inner = f"(({h}) % {b}) * {b} + ({w}) % {b}"
    channel = f"({inner}) * {depth} + ({c})"
    if node.attributes["mode"] != "DCR":
        channel = f"({c}) * {b * b} + {inner}"
    return e.at(node.inputs[0], (n, channel, f"({h}) / {b}", f"({w}) / {b}"))


def _space_to_depth(e: Elements, node: Node, name: str, index: Index) -> str:
    b, (n, c, h, w) = node.attributes["blocksize"], index
    depth = e.body.types[node.inputs[0]].shape[1]
    block, channel = f"({c}) / {depth}", f"({c}) % {depth}"
    if node.attributes["mode"] != "DCR":
        block, channel = f"({c}) % {b * b}", f"({c}) / {b * b}"
    block = e.variable("const idx", block)
    own = (f"({h}) * {b} + {block} / {b}", f"({w}) * {b} + {block} % {b}")
    return e.at(node.inputs[0], (n, channel, *own))


MOVEMENTS: dict[str, Movement] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Expand": _expand,
    "Tile": _tile,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Pad": _pad,
    "Trilu": _trilu,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
"""Operators that change coordinates."""
