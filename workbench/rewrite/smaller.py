"""Smaller sizes at which a rewrite is checked first.

Two ways lead there. ``at_small_sizes`` cuts the batch and what lies behind the channels, of rules
that hold at any size. ``stand_ins`` looks at sizes as at names: a size that passes through a
Body whole, in every shape and every shape written into it, may be any other number.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from workbench.body import CONSTANT, Body, BodyInput, HostType, Literal, Node, TensorType
from workbench.dimensions import Shape
from workbench.errors import NetworkError

SMALL_SIZES = (6, 8, 12, 16, 32, 64)
"""Sizes behind the channels at which a rewrite is tried, until its layers accept them."""
SMALL_BATCH = 2
"""Leading size at which it is tried first."""
STAND_INS = ((SMALL_BATCH, 7, 9, 11, 13), (3, 8, 10, 12, 14))
"""What other sizes are replaced with, twice: each by one that no shape of the Bodies has, the
leading one by the first. A number written into a rewrite may happen to fit one, not both."""
LARGEST = 14
ENOUGH = 2**14
"""Elements of the largest value up to which no size is replaced: a check wants many numbers.
Weights that are given do not count: all of them are read."""
SHAPES = frozenset({("Reshape", 1), ("Expand", 1), ("ConstantOfShape", 0)})
"""Operands that spell out a shape."""

Sizes = Mapping[int, int]
"""Old size -> the one that stands for it."""


# -- stand-ins --------------------------------------------------------------------------------
def stand_ins(bodies: Sequence[Body], *, fixed: Collection[str] = ()) -> tuple[Sizes, ...]:
    """Two choices of smaller numbers for sizes of these Bodies, whose sizes are numbers; or none.

    A size is replaced where each value's shape then differs in nothing but this size. fixed:
    inputs whose values are given, and with them their sizes.
    """
    taken = {d for b in bodies for t in b.types.values() for d in _shape(t)}
    pools = [[d for d in numbers if d not in taken] for numbers in STAND_INS]
    chosen: tuple[dict[int, int], ...] = ({}, {})
    small = list(bodies)
    for old in _candidates(bodies, fixed):
        place = len(chosen[0])
        full = any(place == len(pool) for pool in pools)
        if full or all(_elements(b, fixed) <= ENOUGH for b in small):
            break
        trial = tuple({**c, old: p[place]} for c, p in zip(chosen, pools, strict=True))
        if all(_differ_only_by(b, sizes) for b in bodies for sizes in trial):
            chosen = trial
            small = [with_sizes(b, chosen[0]) for b in bodies]
    return chosen if chosen[0] else ()


def with_sizes(body: Body, sizes: Sizes) -> Body:
    """The Body with these sizes replaced in its inputs' shapes and in shapes written into it."""
    if not sizes:
        return body
    inputs = tuple(
        replace(i, type=replace(i.type, shape=tuple(sizes.get(d, d) for d in i.type.shape)))
        for i in body.inputs
    )
    read: dict[str, set[tuple[str, int]]] = {}
    for n in body.nodes:
        for index, v in enumerate(n.inputs):
            read.setdefault(v, set()).add((n.op, index))
    nodes = (
        _resized(n, sizes)
        if n.operator is CONSTANT and read.get(n.outputs[0], set()) <= SHAPES
        else n
        for n in body.nodes
    )
    return Body(inputs, tuple(nodes), body.outputs, body.anchor)


def _resized(node: Node, sizes: Sizes) -> Node:
    literal: Literal = node.attributes["value"]
    values = tuple(sizes.get(v, v) for v in literal.values)
    return replace(node, attributes={**node.attributes, "value": replace(literal, values=values)})


def _candidates(bodies: Sequence[Body], fixed: Collection[str]) -> list[int]:
    """Sizes that may be replaced: the first input's leading one, then the largest first."""
    inputs = [i for b in bodies for i in b.inputs]
    if any(isinstance(i.type, HostType) for i in inputs):
        return []
    held = {d for i in inputs if i.name in fixed for d in i.type.shape}
    moving = [i.type.shape for i in inputs if i.name not in fixed and not i.constant]
    leading = [shape[0] for shape in moving[:1] if shape]
    every = {d for i in inputs if i.name not in fixed for d in i.type.shape}
    order = dict.fromkeys((*leading, *sorted(every, reverse=True)))
    return [d for d in order if d not in held and d > LARGEST]


def _shape(type_: TensorType) -> Shape:
    return () if isinstance(type_, HostType) else type_.shape


def _elements(body: Body, fixed: Collection[str]) -> int:
    """Of the largest value that is not given."""
    types = (t for name, t in body.types.items() if name not in fixed)
    return max((math.prod(_shape(t)) for t in types), default=0)


def _differ_only_by(body: Body, sizes: Sizes) -> bool:
    """Whether each shape is the old one with these sizes replaced."""
    try:
        small = with_sizes(body, sizes).types
    except NetworkError:
        return False
    spelled = {o for n in body.nodes if n.operator is CONSTANT for o in n.outputs}
    return all(
        not isinstance(t, HostType)
        and small[name].shape == tuple(d if name in spelled else sizes.get(d, d) for d in t.shape)
        for name, t in body.types.items()
    )


# -- cuts -------------------------------------------------------------------------------------
def at_small_sizes(before: Body, after: Body) -> tuple[Body, Body]:
    """Both Bodies with the data's batch and sizes behind the channels cut to the first that fit."""
    for small, changed in zip(_cuts(before), _cuts(after), strict=True):
        if _fits(small) and _fits(changed) and small.output_types == changed.output_types:
            return small, changed
    return before, after


def smallest(body: Body) -> Body:
    """One Body, cut likewise."""
    return next((small for small in _cuts(body) if _fits(small)), body)


def _cuts(body: Body) -> Iterator[Body]:
    """The Body at smaller sizes, smallest first; sizes written into it may not take them."""
    for rows in (SMALL_BATCH, None):
        for largest in (*SMALL_SIZES, None):
            yield _cut(body, rows, largest)


def _cut(body: Body, rows: int | None, largest: int | None) -> Body:
    def cut(i: BodyInput) -> BodyInput:
        limits = (rows, None, *(largest for _ in i.type.shape[2:]))
        small = tuple(
            min(d, most) if isinstance(d, int) and most else d
            for d, most in zip(i.type.shape, limits, strict=False)
        )
        return i if i.constant else replace(i, type=replace(i.type, shape=small))

    return Body(tuple(map(cut, body.inputs)), body.nodes, body.outputs, body.anchor)


def _fits(body: Body) -> bool:
    try:
        return all(d != 0 for t in body.output_types for d in t.shape)
    except NetworkError:
        return False
