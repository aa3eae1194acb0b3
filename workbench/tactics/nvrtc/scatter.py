"""Scatter and MaxUnpool: which update an element of the result takes, in a fixed order.

Without a reduction the last update of a place wins: every update claims its place by its number,
and each element reads the claim. With one, a thread walks along the updates that may meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from workbench.body import Body, Node
from workbench.formats import LINEAR
from workbench.tactics.nvrtc.element_rules import elements_of
from workbench.tactics.nvrtc.elements import Elements, Index, offset, operand, split
from workbench.tactics.nvrtc.frame import KernelText, program_text
from workbench.tactics.nvrtc.movements import place_within
from workbench.tactics.nvrtc.scalars import number, working, wrapped
from workbench.tactics.nvrtc.stages import stage, written
from workbench.tactics.scalar_text import Untranslatable

SCATTERS = ("ScatterElements", "ScatterND", "MaxUnpool")
_JOINS = {
    "add": "{a} + {b}",
    "mul": "{a} * {b}",
    "max": "max_nan({a}, {b})",
    "min": "min_nan({a}, {b})",
}


def scattered(body: Body, node: Node) -> KernelText:
    """The kernels of one of ``SCATTERS``."""
    sizes = (prod(body.types[v].shape) for v in (node.outputs[0], _updates(node)))
    if max(sizes) >= 2**31:
        raise Untranslatable("an output or updates of 2^31 elements and more")
    if node.attributes.get("reduction", "none") != "none":
        return _joined(body, node)
    return _claimed(body, node)


def _updates(node: Node) -> str:
    return node.inputs[0] if node.op == "MaxUnpool" else node.inputs[2]


def _target(e: Elements, node: Node, place: Index) -> str:
    """The flat place in the result that the update at ``place`` names; negative: none."""
    out = e.body.types[node.outputs[0]].shape
    if node.op == "MaxUnpool":
        return _unpooled(e, node, place)
    indices = e.body.types[node.inputs[1]].shape
    if node.op == "ScatterElements":
        axis = node.attributes["axis"] % len(out)
        found = place_within(e, e.at(node.inputs[1], place), out[axis])
        return offset(out, LINEAR, (*place[:axis], found, *place[axis + 1 :]))
    spots = place[: len(indices) - 1]
    named = [
        place_within(e, e.at(node.inputs[1], (*spots, str(k))), out[k]) for k in range(indices[-1])
    ]
    return offset(out, LINEAR, (*named, *place[len(indices) - 1 :]))


def _unpooled(e: Elements, node: Node, place: Index) -> str:
    """Indices count in the tensor without output_shape, which only adds room or cuts it."""
    out = e.body.types[node.outputs[0]].shape
    x = e.body.types[node.inputs[0]].shape
    a, rank = node.attributes, len(x) - 2
    strides, pads = a["strides"] or (1,) * rank, a["pads"] or (0,) * (2 * rank)
    sizes = [
        (n - 1) * strides[k] + a["kernel_shape"][k] - pads[k] - pads[k + rank]
        for k, n in enumerate(x[2:])
    ]
    whole = (*x[:2], *sizes)
    flat = place_within(e, e.at(node.inputs[1], place), prod(whole))
    if not operand(node, 2):
        return flat
    spots = split(e, flat, whole)
    inside = " && ".join(f"{p} < {n}" for p, n in zip(spots, out, strict=True))
    return f"(({inside}) ? (int)({offset(out, LINEAR, spots)}) : -1)"


def _claimed(body: Body, node: Node) -> KernelText:
    out, updates = body.types[node.outputs[0]], body.types[_updates(node)]
    e = elements_of(body, {})
    place = split(e, "i", updates.shape)
    target = e.variable("const int", f"(int)({_target(e, node, place)})")
    e.lines.append(f"if ({target} >= 0) atomicMax((int*)workspace + {target}, (int)i);")
    claim = e.lines
    e.begin()
    full = split(e, "i", out.shape)
    kind = working(out.dtype)
    owner = e.variable("const int", "((const int*)workspace)[i]")
    value = e.variable(kind, number(0, out.dtype))
    with e.branch(f"{owner} >= 0"):
        e.lines.append(f"{value} = {e.at(_updates(node), split(e, owner, updates.shape))};")
    if node.op != "MaxUnpool":
        with e.branch(f"{owner} < 0"):
            e.lines.append(f"{value} = {e.at(node.inputs[0], full)};")
    e.lines += written(e, body, node, value, full)
    count = prod(out.shape)
    stages = (
        stage(count, ["((int*)workspace)[i] = -1;"]),
        stage(prod(updates.shape), claim),
        stage(count, e.lines),
    )
    return program_text(body, stages, e.tables, workspace=4 * max(count, 1))


def _joined(body: Body, node: Node) -> KernelText:
    """Sums and the like in the type that is computed in: halves are rounded once, at the end."""
    out, updates = body.types[node.outputs[0]], body.types[_updates(node)]
    kind, count = working(out.dtype), prod(out.shape)
    e = elements_of(body, {})
    held = f"(({kind}*)workspace)"
    full = split(e, "i", out.shape)
    e.lines.append(f"{held}[i] = {e.at(node.inputs[0], full)};")
    copy = e.lines
    e.begin()
    met, own = _met(body, node, updates.shape)
    places = iter(split(e, "i", [updates.shape[a] for a in own]))
    outer = {a: next(places) for a in own}
    with e.loops([updates.shape[a] for a in met]) as inner:
        along = dict(zip(met, inner, strict=True))
        place = tuple((outer | along)[a] for a in range(len(updates.shape)))
        target = e.variable("const idx", _target(e, node, place))
        join = _JOINS[node.attributes["reduction"]].format(
            a=f"{held}[{target}]", b=e.at(_updates(node), place)
        )
        e.lines.append(f"{held}[{target}] = {wrapped(out.dtype, join)};")
    walk = e.lines
    e.begin()
    full = split(e, "i", out.shape)
    value = e.variable(kind, f"{held}[i]")
    e.lines += written(e, body, node, value, full)
    stages = (
        stage(count, copy),
        stage(prod(updates.shape[a] for a in own), walk),
        stage(count, e.lines),
    )
    return program_text(body, stages, e.tables, workspace=8 * max(count, 1))


def _met(body: Body, node: Node, updates: Sequence[int]) -> tuple[list[int], list[int]]:
    """Axes of the updates along which two may meet in one place, and the others."""
    if node.op == "ScatterElements":
        met = [node.attributes["axis"] % len(updates)]
    else:
        met = list(range(len(body.types[node.inputs[1]].shape) - 1))
    return met, [a for a in range(len(updates)) if a not in met]
