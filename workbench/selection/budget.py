"""How many tactics of each source are tried for one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.records import Refusal
from workbench.selection.candidate import Candidate
from workbench.tactics.protocol import Tactic

TACTICS_BY_LEVEL = (4, 4, 8, 24, 64, 1 << 30)
"""Tactics timed a layer and source at builder_optimization_level 0 to 5.

Of a piece of a fused layer, timed for comparison, so many as one level lower, below level 4."""

FIRST_TRIED, OUTCLASSED = 2, 3.0
"""Tactics of a source that are timed in any case, and times as long as another source's in the same
layouts that they must take for the rest to be left alone. A source gives its best guesses first."""
FAR_OUTCLASSED = 10.0
"""The same beside another source's in any layouts, after one tactic: a kernel reads and writes each
tensor at least once, so that to rewrite them all takes no more than a few times its time."""
TRIES_ALL_LEVEL = 4
"""builder_optimization_level from which on nothing is left alone for that."""


def outclassed(offer: Tactic, found: Sequence[Candidate]) -> Refusal | None:
    """Why a tactic is not tried: others of its source are far slower than another source's.

    Of its source only those count that read and write the same layouts: each combination may be
    the one needed.
    """
    own: list[float] = []
    others: list[tuple[float, str, bool]] = []
    for c in found:
        t = c.tactic
        if not c.eligible or c.timing is None or t is None or t.precision is not offer.precision:
            continue
        alike = (t.inputs, t.outputs) == (offer.inputs, offer.outputs)
        if c.source == offer.source:
            own += [c.timing.likely_us] * alike
        elif not t.emulated:
            others.append((c.timing.likely_us, c.source, alike))
    for tried, times, rivals in (
        (1, FAR_OUTCLASSED, others),
        (FIRST_TRIED, OUTCLASSED, [r for r in others if r[-1]]),
    ):
        best_us, best, alike = min(rivals, default=(float("inf"), "", True))
        if len(own) >= tried and min(own) >= times * best_us:
            elsewhere = "" if alike else " in other layouts"
            return Refusal(
                f"not tried: {len(own)} of this source's take {min(own):.1f} µs and more, {best} "
                f"{best_us:.1f} µs{elsewhere}",
                remedy=f"set builder_optimization_level to {TRIES_ALL_LEVEL} to time it anyway",
                code="outclassed",
            )
    return None


def in_turns(offered: Mapping[str, int], most: int) -> dict[str, int]:
    """A layer's ``most`` tactics dealt out to its sources, one each in turn, in their order.

    offered: how many tactics each source has. So the best guess of each is tried first.
    """
    given = dict.fromkeys(offered, 0)
    while most > 0 and any(given[n] < offered[n] for n in offered):
        for name in (n for n in offered if given[n] < offered[n]):
            if most > 0:
                given[name] += 1
                most -= 1
    return given
