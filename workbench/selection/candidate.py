"""What became of one tactic of one layer."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.records import Refusal
from workbench.tactics.protocol import Tactic
from workbench.timing import Timing


@dataclass(frozen=True)
class Candidate:
    """One tactic of one layer and what became of it.

    timing: None when it was refused, or not timed (level 0). worst: its largest error as a
    fraction of the bound. error: relative L2 distance of its floats to the exact ones.
    eligible: whether the selection may choose it; if not, ``refusal`` says why.
    """

    source: str
    title: str
    tactic: Tactic | None
    timing: Timing | None = None
    worst: float | None = None
    kernel: str = ""
    workspace_bytes: int = 0
    refusal: Refusal | None = None
    cached: bool = False
    error: float | None = None

    @property
    def eligible(self) -> bool:
        return self.tactic is not None and self.refusal is None
