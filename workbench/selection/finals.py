"""What may win is timed again, in turns: on a CPU a disturbance outlasts the samples of one tactic.

While others use the machine, a tactic seems slow for as long as that takes; the next one, just as
fast, is left alone. Of timings taken at different moments the quietest counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from workbench.selection.candidate import Candidate
from workbench.selection.trial import TIMED_AGAIN, Trial
from workbench.timing import measure_again

ROUNDS = ((5.0, 2), (1.3, 4))
"""How many times as long as the fastest a tactic may seem to take to be looked at once more, and by
how many samples. The first is wide: two timings of one tactic differed by 4, a second apart."""
LEAST_SECONDS = 0.03
"""Rounds go on for so long, the last one again: those of small layers would all lie within one
disturbance."""
MOST_ROUNDS = 8


def finals(
    trial: Trial, candidates: Iterable[Candidate], *, beside: Sequence[Candidate] = ()
) -> tuple[Candidate, ...]:
    """The candidates, those timed just now again unless they are far behind; kept in the cache.

    beside: rivals that are not timed again.
    """
    found = list(candidates)
    if trial.shop.device.kind not in TIMED_AGAIN:
        return tuple(found)
    for factor, samples in _rounds():
        rivals = (*beside, *found)
        times = [c.timing.median_us for c in rivals if c.eligible and c.timing]
        limit = factor * min(times, default=0.0)
        for k, c in enumerate(found):
            again = c.eligible and c.tactic in trial.launches and len(times) > 1
            if again and c.timing is not None and c.timing.median_us <= limit:
                found[k] = _again(trial, c, samples)
    return tuple(found)


def _rounds() -> Iterator[tuple[float, int]]:
    end = time.perf_counter() + LEAST_SECONDS
    yield from ROUNDS
    for _ in range(len(ROUNDS), MOST_ROUNDS):
        if time.perf_counter() < end:
            yield ROUNDS[-1]


def _again(trial: Trial, candidate: Candidate, glance: int) -> Candidate:
    shop, tactic, before = trial.shop, candidate.tactic, candidate.timing
    assert tactic is not None and before is not None
    with shop.in_places():
        timing = measure_again(
            trial.launches[tactic],
            shop.device,
            before,
            glance=glance,
            iterations=shop.config.avg_timing_iterations,
            threads=shop.threads,
        )
    if timing is before:
        return candidate
    timing = replace(timing, noisy=timing.noisy or shop.steadiness.busy)
    trial.retimed(tactic, timing)
    return replace(candidate, timing=timing)
