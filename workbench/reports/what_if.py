"""What if only some tactic sources were allowed: per layer, from the timings that there are."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from workbench.selection import LayerChoice, Tuned

COLUMNS = ["Layer", "Chosen", "Median (µs)", "With these sources", "Their median (µs)", "Loss (µs)"]
ALWAYS = ("VIEW", "HOST")
"""Sources that no config restricts."""


def sources_of(tuned: Tuned) -> tuple[str, ...]:
    """The sources that a config can restrict, in order, COMPOSED not among them."""
    named = (c.source for layer in tuned.layers for c in layer.candidates)
    return tuple(n for n in dict.fromkeys(named) if n not in (*ALWAYS, "COMPOSED"))


def what_if_rows(tuned: Tuned, sources: Collection[str]) -> pd.DataFrame:
    """Each layer's fastest tactic of these sources beside the chosen one, layouts aside.

    Tactics that were refused stay so; layers run part by part (COMPOSED) keep to their own. The
    loss is empty where nothing of these sources was timed: such a build would be refused.
    """
    return pd.DataFrame([_row(c, sources) for c in tuned.layers], columns=COLUMNS)


def _row(choice: LayerChoice, sources: Collection[str]) -> tuple[object, ...]:
    allowed = (*sources, *ALWAYS)
    able = [c for c in choice.candidates if c.eligible and c.timing and c.source in allowed]
    own = choice.median_us
    if choice.winner.source in (*allowed, "COMPOSED"):
        # Chosen for its layouts, it may be the slower one by itself.
        return (choice.layer, choice.winner.title, own, choice.winner.title, own, 0.0)
    best = min(able, key=lambda c: c.timing.median_us if c.timing else 0.0, default=None)
    if best is None or best.timing is None or own is None:
        return (choice.layer, choice.winner.title, own, "nothing runs it", None, None)
    median = best.timing.median_us
    return (choice.layer, choice.winner.title, own, best.title, median, median - own)
