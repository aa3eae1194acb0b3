"""The memory plan: tensor lifetimes to arena offsets.

Greedy by size, first fit among the tensors alive at the same time (Pisarchyk and Lee,
"Efficient Memory Management for Deep Neural Net Inference", 2020, section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from workbench.devices import ALIGNMENT


@dataclass(frozen=True)
class Lifetime:
    """A tensor is alive from step ``first`` (written) to step ``last`` (last read), inclusive."""

    name: str
    first: int
    last: int
    nbytes: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets in one arena. ``total_bytes`` is what separate allocations would take."""

    lifetimes: tuple[Lifetime, ...]
    offsets: Mapping[str, int]
    arena_bytes: int
    total_bytes: int


def aligned(nbytes: int) -> int:
    """``nbytes`` rounded up to the device alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def plan_memory(
    lifetimes: Sequence[Lifetime],
    conflict: Callable[[Lifetime, Lifetime], bool] = Lifetime.overlaps,
) -> MemoryPlan:
    """Offsets such that no two tensors alive at the same time overlap.

    conflict: whether two may be; where steps run side by side, order of steps is not enough.
    """
    placed: list[tuple[int, int, Lifetime]] = []
    offsets: dict[str, int] = {}
    for item in sorted(lifetimes, key=lambda t: (-t.nbytes, t.first, t.name)):
        size = aligned(item.nbytes)
        start = 0
        for low, high, other in sorted(placed, key=lambda p: p[0]):
            if conflict(other, item):
                if start + size <= low:
                    break
                start = max(start, high)
        offsets[item.name] = start
        placed.append((start, start + size, item))
    arena = max((high for _, high, _ in placed), default=0)
    return MemoryPlan(
        tuple(lifetimes),
        dict(sorted(offsets.items())),
        arena,
        sum(aligned(t.nbytes) for t in lifetimes),
    )
