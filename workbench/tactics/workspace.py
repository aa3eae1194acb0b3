"""Scratch memory of one Call: values with lifetimes, laid out at offsets of one buffer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from workbench.devices import ALIGNMENT


@dataclass(frozen=True)
class Lease:
    """A stretch of workspace that a value needs from step ``first`` to step ``last``, inclusive."""

    name: str
    nbytes: int
    first: int
    last: int

    def meets(self, other: Lease) -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


def lay_out(leases: Iterable[Lease]) -> tuple[dict[str, int], int]:
    """Byte offset of each lease, and the bytes of the whole.

    Largest first, each at the lowest aligned offset that is free over its lifetime.
    """
    placed: list[tuple[Lease, int]] = []
    total = 0
    for lease in sorted(leases, key=lambda v: (-v.nbytes, v.first, v.name)):
        offset = 0
        for start, nbytes in sorted((o, p.nbytes) for p, o in placed if p.meets(lease)):
            if offset + lease.nbytes <= start:
                break
            offset = max(offset, _aligned(start + nbytes))
        placed.append((lease, offset))
        total = max(total, offset + lease.nbytes)
    return {p.name: o for p, o in placed}, _aligned(total)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
