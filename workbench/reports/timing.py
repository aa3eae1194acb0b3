"""The times that decided: per layer the chosen tactic, the runner-up and COMPOSED, as rows."""

from __future__ import annotations

import pandas as pd

from workbench.selection import Candidate, Tuned

COLUMNS = ["Layer", "Role", "Tactic", "Median (µs)", "Spread (µs)", "Executed", "Date"]


def timing_rows(tuned: Tuned) -> pd.DataFrame:
    """One row for each timed candidate that matters: Role is chosen, runner-up or COMPOSED.

    A candidate of two roles has one row, under the first of them. Empty at level 0, which times
    nothing.
    """
    rows: list[tuple[object, ...]] = []
    for c in tuned.layers:
        roles = {"chosen": c.chosen, "runner-up": c.runner_up, "COMPOSED": c.composed}
        taken: set[int] = set()
        for role, index in roles.items():
            if index is None or index in taken:
                continue
            taken.add(index)
            row = _row(c.layer, role, c.candidates[index])
            if row is not None:
                rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(layer: str, role: str, candidate: Candidate) -> tuple[object, ...] | None:
    timing, tactic = candidate.timing, candidate.tactic
    if timing is None or tactic is None:
        return None
    precision = tactic.arithmetic + (" (emulated)" if tactic.emulated else "")
    return (
        layer,
        role,
        candidate.title,
        timing.median_us,
        timing.spread_us,
        precision,
        timing.date,
    )
