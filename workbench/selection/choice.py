"""What the tuner decided: per layer every candidate and the winner; the reformats; the total."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.body import TensorType
from workbench.datatypes import DataType
from workbench.formats import Format
from workbench.selection.candidate import Candidate


@dataclass(frozen=True)
class LayerChoice:
    """One layer's tactics and which one runs.

    chosen, runner_up: indices into ``candidates`` (runner_up None when nothing else could run).
    composed: index of the COMPOSED candidate that the fusion is compared with: the chosen one, else
    the fastest; None for a layer of one operator, and where its parts cannot run one by one.
    distinguishable: whether chosen and runner-up differ by more than the noise.
    """

    layer: str
    type: str
    operators: tuple[str, ...]
    origin: tuple[str, ...]
    requested: DataType
    built: DataType
    candidates: tuple[Candidate, ...]
    chosen: int
    runner_up: int | None
    composed: int | None
    distinguishable: bool

    @property
    def winner(self) -> Candidate:
        return self.candidates[self.chosen]

    @property
    def executed(self) -> DataType:
        """Type in which the chosen kernel multiplies."""
        tactic = self.winner.tactic
        assert tactic is not None
        return tactic.precision

    @property
    def arithmetic(self) -> str:
        """What the chosen kernel multiplies in, for tables: TF32, or ``executed``'s label."""
        tactic = self.winner.tactic
        assert tactic is not None
        return tactic.arithmetic

    @property
    def emulated(self) -> bool:
        tactic = self.winner.tactic
        return tactic is not None and tactic.emulated

    @property
    def median_us(self) -> float | None:
        """The winner's time; None at level 0, which times nothing."""
        timing = self.winner.timing
        return timing.median_us if timing else None

    @property
    def gain_us(self) -> float | None:
        """What fusing gained: COMPOSED's time less the winner's; None without COMPOSED."""
        if self.composed is None:
            return None
        timing = self.candidates[self.composed].timing
        own = self.winner.timing
        return timing.median_us - own.median_us if timing and own else None


@dataclass(frozen=True)
class ReformatChoice:
    """A tensor rewritten to another layout between two layers."""

    tensor: str
    type: TensorType
    source: Format
    target: Format
    winner: Candidate
    readers: tuple[str, ...]

    @property
    def reason(self) -> str:
        return f"{', '.join(self.readers)} reads {self.target}, it was written as {self.source}"


@dataclass(frozen=True)
class Tuned:
    """The whole selection.

    total_us: sum of the chosen kernels' and reformats' medians. single_format_us: what the best
    choice limited to one layout throughout would take, per layout, where there is one.
    exact: False when the selection is heuristic; then no choice beats ``lower_bound_us``.
    timed, cached: tactics measured now, and taken from the timing cache.
    remarks: what a reader of the times should know: a busy device, what portability costs, that
    whole runs decided. alternatives: other selections from the same timings, for whole runs to
    decide of; see ``selecting``.
    """

    layers: tuple[LayerChoice, ...]
    reformats: tuple[ReformatChoice, ...]
    total_us: float
    exact: bool
    lower_bound_us: float
    single_format_us: Mapping[str, float]
    timed: int
    checked: int
    cached: int
    sources: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    alternatives: tuple[Tuned, ...] = ()
