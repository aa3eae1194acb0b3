"""Streams: which steps of a plan may run side by side, and what each must wait for.

A GPU runs what is enqueued on one stream in order; branches on several streams overlap. Steps are
given in an order in which each comes after what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

HOP_US = 2.0
"""What it costs to wait for another stream within a CUDA graph, about."""


@dataclass(frozen=True)
class Work:
    """One step: the tensors that it reads and writes, and how long it takes alone."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    time_us: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """Steps on streams. needs: for each step, the earlier steps whose results it reads.

    streams: of each step; 0 is the caller's, the others are auxiliary.
    """

    needs: tuple[tuple[int, ...], ...]
    streams: tuple[int, ...]

    @property
    def num_aux_streams(self) -> int:
        return max(self.streams, default=0)

    @cached_property
    def waits(self) -> tuple[tuple[int, ...], ...]:
        """For each step, the steps of other streams whose end its stream must wait for.

        Of each stream only the last one that is needed, and only if nothing else waited for it.
        """
        found: list[tuple[int, ...]] = []
        last: dict[int, int] = {}
        for step, needed in enumerate(self.needs):
            own = self.streams[step]
            latest = {self.streams[n]: n for n in needed if self.streams[n] != own}
            before = last.get(own)
            known = 0 if before is None else self.ancestors[before] | 1 << before
            found.append(tuple(sorted(n for n in latest.values() if not known >> n & 1)))
            last[own] = step
        return tuple(found)

    @cached_property
    def ancestors(self) -> tuple[int, ...]:
        """For each step, the bits of all steps that have surely ended when it starts."""
        found: list[int] = []
        last: dict[int, int] = {}
        for step, needed in enumerate(self.needs):
            bits = 0
            before = last.get(self.streams[step])
            for n in (*needed, *([] if before is None else [before])):
                bits |= found[n] | 1 << n
            found.append(bits)
            last[self.streams[step]] = step
        return tuple(found)

    def ends_before(self, users: Sequence[int], writers: Sequence[int]) -> bool:
        """Whether all of ``users`` have ended whenever one of ``writers`` starts."""
        wanted = sum(1 << u for u in set(users))
        return all(not wanted & ~self.ancestors[w] for w in writers)


def dependencies(work: Sequence[Work]) -> tuple[tuple[int, ...], ...]:
    """For each step, the earlier steps that write what it reads."""
    writer: dict[str, int] = {}
    needs: list[tuple[int, ...]] = []
    for step, w in enumerate(work):
        needs.append(tuple(sorted({writer[r] for r in w.reads if r in writer})))
        writer.update(dict.fromkeys(w.writes, step))
    return tuple(needs)


def schedule(work: Sequence[Work], max_aux_streams: int) -> Schedule:
    """Each step on the stream where it can start first, the times being what each takes alone.

    Between equal ones, the stream of what it waited for longest, then the lowest number.
    """
    needs = dependencies(work)
    free = [0.0] * (max_aux_streams + 1)
    end: list[float] = []
    streams: list[int] = []
    for w, needed in zip(work, needs, strict=True):
        heir = max(needed, key=lambda n: end[n], default=None)
        best = min(
            range(len(free)),
            key=lambda s: (
                max([free[s], *(end[n] + HOP_US * (streams[n] != s) for n in needed)]),
                heir is not None and streams[heir] != s,
                s,
            ),
        )
        start = max([free[best], *(end[n] + HOP_US * (streams[n] != best) for n in needed)])
        streams.append(best)
        end.append(start + w.time_us)
        free[best] = end[-1]
    return Schedule(needs, _numbered(streams))


def _numbered(streams: Sequence[int]) -> tuple[int, ...]:
    """The same streams, numbered without gaps: 0 stays, the others by first use."""
    names = {0: 0}
    for s in streams:
        names.setdefault(s, len(names))
    return tuple(names[s] for s in streams)
