"""Which candidates are worth choosing from, and which of several is the fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.formats import Format
from workbench.selection.candidate import Candidate

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
    """The fastest; among those that time cannot tell from it, the first by source, then name."""
    timed = [(c.timing.median_us, c.rank(order), c) for c in candidates if c.timing is not None]
    if not timed:
        return candidates[0]
    best = min(timed, key=lambda t: t[:2])[2]
    assert best.timing is not None
    close = [c for c in candidates if c.timing and not c.timing.distinguishable(best.timing)]
    return min(close or [best], key=lambda c: c.rank(order))
