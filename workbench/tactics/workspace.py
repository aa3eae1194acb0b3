"""Scratch memory of one Call: values laid out at offsets of one buffer, and its limit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from workbench.devices import ALIGNMENT
from workbench.records import Refusal


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


def over_limit(space: int, limit: int) -> Refusal | None:
    """Why a tactic that needs ``space`` bytes of workspace may not run; None where it may."""
    if space <= limit:
        return None
    return Refusal(
        f"needs {size_text(space)} of workspace > limit {size_text(limit)}",
        remedy="raise MemoryPoolType.WORKSPACE",
        code="workspace",
    )


def size_text(nbytes: int) -> str:
    """``1.0 GiB``, ``40.0 MiB``, ``12.0 KiB`` or ``64 B``."""
    if nbytes >= 1 << 30:
        return f"{nbytes / 2**30:.1f} GiB"
    if nbytes >= 1 << 20:
        return f"{nbytes / 2**20:.1f} MiB"
    return f"{nbytes / 1024:,.1f} KiB" if nbytes >= 1024 else f"{nbytes} B"


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
