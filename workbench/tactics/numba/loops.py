"""Loop nests over broadcast operands: strides, layouts, and axes merged where they can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.formats import LINEAR, Format

Strides = tuple[int, ...]


@dataclass(frozen=True)
class Nest:
    """Loops, outermost first, and each operand's step in elements at every loop."""

    sizes: tuple[int, ...]
    strides: tuple[Strides, ...]

    @property
    def depth(self) -> int:
        return len(self.sizes)

    @property
    def count(self) -> int:
        """Iterations of all loops."""
        return math.prod(self.sizes)


def contiguous(shape: Sequence[int]) -> Strides:
    """Row-major strides in elements."""
    strides: list[int] = []
    step = 1
    for d in reversed(shape):
        strides.append(step)
        step *= d
    return tuple(reversed(strides))


def broadcast_strides(shape: Sequence[int], rank: int) -> Strides:
    """Strides of a row-major operand in a space of ``rank`` axes: 0 where it is broadcast."""
    own = contiguous(shape)
    strides = (0 if d == 1 else s for d, s in zip(shape, own, strict=True))
    return (*(0,) * (rank - len(shape)), *strides)


def collapse(sizes: Sequence[int], strides: Sequence[Strides]) -> Nest:
    """The same loops with axes of size 1 dropped, and merged where every operand runs on."""
    axes: list[tuple[int, list[int]]] = []
    for k, n in enumerate(sizes):
        if n == 1:
            continue
        steps = [s[k] for s in strides]
        if axes and all(a == b * n for a, b in zip(axes[-1][1], steps, strict=True)):
            axes[-1] = (axes[-1][0] * n, steps)
        else:
            axes.append((n, steps))
    if not axes:
        axes = [(1, [0] * len(strides))]
    return Nest(
        tuple(n for n, _ in axes),
        tuple(tuple(a[1][k] for a in axes) for k in range(len(strides))),
    )


def layout_strides(shape: Sequence[int], rank: int, stored: Format, space: Format) -> Strides:
    """Strides of an operand in the physical loop space of layout ``space``.

    shape: logical; it is broadcast to ``rank`` axes from the right. stored: how it lies in memory:
    ``space``, or LINEAR. A LINEAR operand in a blocked space must have one channel (its lanes
    would reach over the end).
    """
    full = (*(1,) * (rank - len(shape)), *shape)
    if stored == LINEAR:
        logical = broadcast_strides(full, rank)
        if space == LINEAR:
            return logical
        if space.channels_last:
            return (logical[0], *logical[2:], logical[1])
        return (logical[0], 0, *logical[2:], 0)
    physical = stored.physical_shape(full)
    steps = contiguous(physical)
    strides = [0 if d == 1 else s for d, s in zip(physical, steps, strict=True)]
    if stored.block and full[1] == 1:
        strides[1] = strides[-1] = 0
    return tuple(strides)
