"""Which candidates are worth choosing from, and which of several is the fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.formats import Format
from workbench.selection.candidate import Candidate

CLOSE = 1.05

Layouts = tuple[tuple[Format, ...], tuple[Format, ...]]


def formats_of(candidate: Candidate) -> Layouts:
    """Layouts of a candidate's dynamic inputs and outputs."""
    assert candidate.tactic is not None
    return candidate.tactic.inputs, candidate.tactic.outputs


def menu(candidates: Sequence[Candidate], order: Mapping[str, int]) -> list[Candidate]:
    """The fastest eligible candidate for each combination of layouts."""
    groups: dict[Layouts, list[Candidate]] = {}
    for c in candidates:
        if c.eligible:
            groups.setdefault(formats_of(c), []).append(c)
    return [fastest(g, order) for g in groups.values()]


def fastest(candidates: Sequence[Candidate], order: Mapping[str, int]) -> Candidate:
    """The fastest; among those that time cannot tell from it, the first by source, then as offered.

    A source offers its best guess first. However wide the spreads: who is likely to take CLOSE
    times as long is no equal.
    """
    timed = [(c.timing, c) for c in candidates if c.timing is not None]
    if not timed:
        return candidates[0]
    best = min((t for t, _ in timed), key=lambda t: t.likely_us)
    close = [
        c for t, c in timed if not t.distinguishable(best) and t.likely_us <= CLOSE * best.likely_us
    ]
    return min(close, key=lambda c: (order.get(c.source, len(order)), not _in_place(c)))


def _in_place(candidate: Candidate) -> bool:
    """Whether it writes over an input: less memory is touched, which the next layers feel."""
    return candidate.tactic is not None and candidate.tactic.overwrites is not None
