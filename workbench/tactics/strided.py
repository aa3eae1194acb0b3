"""Strided views of a buffer whose axes may be merged ones: what shuffles leave of a tensor.

NumPy has no view for an expanded axis that is merged with its neighbour, as the shared keys of
grouped-query attention are; here an axis is a list of (size, step) runs, so that it stays a view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import CONSTANT, SAME_ORDER, Array, Body, Node
from workbench.records import Refusal

Run = tuple[int, int]
"""Size and step in elements."""


@dataclass(frozen=True)
class Strided:
    """A view. offset: of its first element. axes: each axis as its runs, outermost first."""

    offset: int
    axes: tuple[tuple[Run, ...], ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Strided:
        """A row-major tensor."""
        step, axes = 1, list[tuple[Run, ...]]()
        for size in reversed(shape):
            axes.append(((size, step),) if size != 1 else ())
            step *= size
        return cls(0, tuple(reversed(axes)))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(dimensions.volume(n for n, _ in axis)) for axis in self.axes)

    def step(self, axis: int) -> int | None:
        """The step from one index to the next; None where it is not the same everywhere."""
        runs = self.axes[axis]
        if not runs:
            return 0
        size, step = runs[-1]
        for n, s in reversed(runs[:-1]):
            if s != step * size:
                return None
            size *= n
        return step

    def offsets(self, axes: Sequence[int]) -> Array:
        """Where each index of some axes begins, the last axis fastest: int64."""
        runs = [run for a in axes for run in self.axes[a]]
        found = np.array([self.offset], np.int64)
        for n, s in runs:
            found = (found[:, None] + np.arange(n, dtype=np.int64) * s).reshape(-1)
        return found

    def transposed(self, permutation: Sequence[int]) -> Strided:
        return replace(self, axes=tuple(self.axes[a] for a in permutation))

    def broadcast(self, shape: Sequence[int]) -> Strided | None:
        """The view expanded to a shape; None where that is not the view's own, widened."""
        axes = [*((),) * (len(shape) - len(self.axes)), *self.axes]
        grown: list[tuple[Run, ...]] = []
        for runs, size in zip(axes, shape, strict=True):
            own = int(dimensions.volume(n for n, _ in runs))
            if own not in (1, size):
                return None
            grown.append(runs if own == size else ((size, 0),))
        return replace(self, axes=tuple(grown))

    def part(self, axis: int, start: int, size: int) -> Strided | None:
        """``size`` indices of an axis from ``start`` on; None where its steps are uneven."""
        return self.sliced({axis: (start, size, 1)})

    def sliced(self, bounds: Mapping[int, tuple[int, int, int]]) -> Strided | None:
        """The view of a Slice: (first index, size, step) by axis."""
        offset, axes = self.offset, list(self.axes)
        for axis, (start, size, by) in bounds.items():
            step = self.step(axis)
            if step is None:
                return None
            offset += start * step
            axes[axis] = ((size, step * by),) if size != 1 else ()
        return Strided(offset, tuple(axes))

    def reshaped(self, shape: Sequence[int]) -> Strided | None:
        """The same elements in order, as other axes; None where that takes a copy."""
        runs = [run for axis in self.axes for run in axis if run[0] != 1]
        axes: list[tuple[Run, ...]] = []
        for size in shape:
            axis: list[Run] = []
            left = size
            while left > 1:
                if not runs or (left % runs[0][0] and runs[0][0] % left):
                    return None
                n, s = runs.pop(0)
                if n > left:
                    runs.insert(0, (left, s))
                    runs[0:1] = [(left, s * (n // left)), (n // left, s)]
                    n, s = runs.pop(0)
                axis.append((n, s))
                left //= n
            axes.append(tuple(axis))
        return None if runs else Strided(self.offset, tuple(axes))


def whole_axes(before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Whether a reshape only splits axes and merges neighbouring ones. Sizes: any Dims."""
    left, right = [d for d in before if d != 1], [d for d in after if d != 1]
    while left and right:
        a, b = left.pop(0), right.pop(0)
        if a == b:
            continue
        more, less = dimensions.floordiv(b, a), dimensions.floordiv(a, b)
        if more * a == b:
            right.insert(0, more)
        elif less * b == a:
            left.insert(0, less)
        else:
            return False
    return not left and not right


# -- through a Body -----------------------------------------------------------------------
def follow(node: Node, view: Strided, body: Body) -> tuple[Strided, ...] | Refusal:
    """What a shuffle of a Body (sizes bound) makes of a view of its first input."""
    shapes = [body.types[o].shape for o in node.outputs]
    found: list[Strided | None]
    match node.op:
        case "Transpose":
            found = [view.transposed(permutation(node.attributes, len(view.axes)))]
        case "Expand":
            found = [view.broadcast(shapes[0])]
        case "Split":
            axis = node.attributes["axis"] % len(view.axes)
            starts = np.cumsum([0, *(s[axis] for s in shapes)])
            found = [view.part(axis, int(a), s[axis]) for a, s in zip(starts, shapes, strict=False)]
        case "Slice":
            bounds = _bounds(node, body)
            if bounds is None:
                return Refusal("a Slice takes its bounds from data", code="dynamic_sizes")
            found = [view.sliced(bounds)]
        case op if op in SAME_ORDER:
            found = [view.reshaped(shapes[0])]
        case _:
            return Refusal(f"{node.op} is no view of its input", code="not_views")
    views = tuple(v for v in found if v is not None)
    if len(views) != len(found):
        return Refusal(f"{node.op} '{node.outputs[0]}' takes a copy", code="not_views")
    return views


def _bounds(node: Node, body: Body) -> dict[int, tuple[int, int, int]] | None:
    """A Slice's (first index, size, step) by axis, from its literals."""
    literals = {n.outputs[0]: n.attributes["value"] for n in body.nodes if n.operator is CONSTANT}
    given = [literals.get(v) if v else None for v in node.inputs[1:]]
    if any(v and g is None for v, g in zip(node.inputs[1:], given, strict=True)):
        return None
    starts, ends, axes, steps = [list(g.values) if g else None for g in [*given, None, None][:4]]
    shape = body.types[node.inputs[0]].shape
    assert starts is not None and ends is not None
    found: dict[int, tuple[int, int, int]] = {}
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = int(axes[k] if axes else k) % len(shape)
        first, last, by = slice(start, end, steps[k] if steps else 1).indices(shape[axis])
        found[axis] = first, len(range(first, last, by)), by
    return found


def unfollow(node: Node, view: Strided, body: Body) -> Strided | Refusal:
    """The view of a shuffle's input, given that of its output: where its result is to be stored."""
    if node.op == "Transpose":
        order = permutation(node.attributes, len(view.axes))
        return view.transposed([order.index(a) for a in range(len(order))])
    before = view.reshaped(body.types[node.inputs[0]].shape) if node.op in SAME_ORDER else None
    return before or Refusal(f"{node.op} '{node.outputs[0]}' takes a copy", code="not_views")


def permutation(attributes: Mapping[str, Any], rank: int) -> tuple[int, ...]:
    """The axes of a Transpose; by default reversed."""
    perm = attributes["perm"]
    return tuple(range(rank))[::-1] if perm is None else tuple(perm)
