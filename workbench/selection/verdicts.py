"""Which fusions Tune could not use: attempts for the ledger."""

from __future__ import annotations

from collections.abc import Iterator

from workbench.records import Attempt, Refusal, Stage
from workbench.selection.candidate import Candidate
from workbench.selection.choice import LayerChoice, Tuned

RULE = "one_kernel"
"""The ledger's name for a fused layer's wish to run as one kernel instead of part by part."""
COMPOSED = "COMPOSED"


def lost_fusions(tuned: Tuned) -> tuple[Attempt, ...]:
    """A refused attempt for each fused layer that runs part by part: too slow, or no kernel."""
    return tuple(a for choice in tuned.layers if (a := _lost(choice)) is not None)


def _lost(choice: LayerChoice) -> Attempt | None:
    if choice.winner.source != COMPOSED:
        return None
    others = [c for c in choice.candidates if c.source != COMPOSED]
    refusal = _slower(choice, [c for c in others if c.eligible]) or Refusal(
        f"no tactic source runs it as one kernel: {'; '.join(_refusals(others))}",
        remedy="mark a tensor inside it, or write a tactic for it",
        code="no_tactic",
    )
    return Attempt(RULE, (choice.layer,), applied=False, refusal=refusal, stage=Stage.TUNE)


def _slower(choice: LayerChoice, eligible: list[Candidate]) -> Refusal | None:
    timed = [c for c in eligible if c.timing is not None]
    best = min(timed, key=lambda c: c.timing.median_us if c.timing else 0.0, default=None)
    if best is None or best.timing is None or choice.median_us is None:
        code, text = "not_chosen", "its parts suit the layouts around it better"
        return Refusal(text, code=code) if eligible else None
    return Refusal(
        f"its parts take {choice.median_us:.1f} µs one by one, {best.title} takes "
        f"{best.timing.median_us:.1f} µs, layouts aside",
        code="slower",
    )


def _refusals(candidates: list[Candidate]) -> Iterator[str]:
    """The first reason of each source."""
    seen: set[str] = set()
    for c in candidates:
        if c.refusal is not None and c.source not in seen:
            seen.add(c.source)
            yield f"{c.source}: {c.refusal.reason}"
