"""Frame: which elements of a tensor a tile holds, and where they lie in tensors that broadcast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from workbench.formats import LINEAR, Format

Steps = int | tuple[tuple[int, int], ...]
"""Along an axis of a stored tensor: the step, or those of its parts, (size, step), outermost first;
0 where it broadcasts."""


@dataclass(frozen=True)
class Group:
    """Some axes of a tensor, flattened in order into one index of the tile.

    text: the index, shaped to broadcast in the tile. mask: where it is valid; empty for always.
    """

    axes: tuple[int, ...]
    text: str
    mask: str = ""


@dataclass(frozen=True)
class Frame:
    """A tile of a tensor of this shape, as indices that together name every axis once."""

    shape: tuple[int, ...]
    groups: tuple[Group, ...]

    def offset(self, strides: Sequence[Steps], *, full: bool = False) -> tuple[str, str]:
        """Offset of a tensor with these strides (0 on broadcast axes), and the mask it needs.

        full: the offset has the shape of the whole tile, as a store wants it.
        """
        terms: list[str] = []
        masks: list[str] = []
        for g in self.groups:
            own = [s for a in g.axes if self.shape[a] != 1 for s in self._along(a, strides[a])]
            if not any(s for _, s in own):
                if full:
                    terms.append(f"({g.text}) * 0")
                continue
            terms.append(flat_offset(g.text, own))
            if g.mask:
                masks.append(g.mask)
        return " + ".join(terms) or "0", " & ".join(dict.fromkeys(masks))

    def _along(self, axis: int, steps: Steps) -> tuple[tuple[int, int], ...]:
        return ((self.shape[axis], steps),) if isinstance(steps, int) else steps

    @property
    def mask(self) -> str:
        """Where the tile lies within the tensor; empty for everywhere."""
        return " & ".join(dict.fromkeys(g.mask for g in self.groups if g.mask))


def flat_offset(text: str, axes: Sequence[tuple[int, int]]) -> str:
    """Text of the offset of a flattened index over (size, stride) axes, outermost first."""
    runs: list[tuple[int, int]] = []
    for size, step in axes:
        if runs and runs[-1][1] == step * size:  # it goes on where the axis before it steps
            runs[-1] = (runs[-1][0] * size, step)
        else:
            runs.append((size, step))
    if len(runs) == 1:
        return _times(text, runs[0][1])
    terms: list[str] = []
    for i, (size, step) in enumerate(runs):
        if not step:
            continue
        inner = prod(n for n, _ in runs[i + 1 :])
        index = f"({text}) // {inner}" if inner != 1 else f"({text})"
        terms.append(_times(f"({index} % {size})" if i else f"({index})", step))
    return " + ".join(terms)


def _times(text: str, step: int) -> str:
    return f"({text})" if step == 1 else f"({text}) * {step}"


def strides_of(shape: Sequence[int], rank: int, layout: Format) -> tuple[Steps, ...]:
    """Steps of a stored tensor along the axes of one of ``rank`` that it broadcasts to.

    Of a layout in groups of channels, which the tensor must fill, the channels have two.
    """
    if layout.block:
        stored = (shape[0], shape[1] // layout.block, *shape[2:], layout.block)
        batch, groups, *space, one = strides_of(stored, len(stored), LINEAR)
        assert isinstance(groups, int) and isinstance(one, int)
        channels = ((stored[1], groups), (layout.block, one))
        return (*(0,) * (rank - len(shape)), batch, channels, *space)
    order = list(range(len(shape)))
    if layout.channels_last:
        order = [0, *range(2, len(shape)), 1]
    found = [0] * len(shape)
    step = 1
    for axis in reversed(order):
        found[axis] = 0 if shape[axis] == 1 else step
        step *= shape[axis]
    return (*(0,) * (rank - len(shape)), *found)
