"""What stages leave behind: Refusal, Remedy, Attempt, StageRecord, BuildLog; and progress.

Records are frozen. Timings and dates live here, never in a plan.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

from workbench.errors import BuildCancelled


def counted(number: int, noun: str) -> str:
    """``1 reformat``, ``2 reformats``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Stage(enum.Enum):
    """The stages of a build, in order."""

    PARSE = "Parse"
    FOLD = "Fold"
    PROFILES = "Profiles"
    PRECISION = "Precision"
    CALIBRATE = "Calibrate"
    FUSE = "Fuse"
    TUNE = "Tune"
    MEMORY = "Memory"
    SERIALIZE = "Serialize"


class GraphEdit(Protocol):
    """One change of a network, as data; ``workbench.network.remedies`` has them."""

    def apply(self, network: Any) -> None:
        """Change the NetworkDefinition in place. Raises NetworkError where it does not fit."""
        ...


@dataclass(frozen=True)
class Remedy:
    """The edit that would let a refused rewrite happen.

    title: one line for people. edits: in order. keeps_meaning: whether the network then still
    computes the same outputs as before.
    """

    title: str
    edits: tuple[GraphEdit, ...]
    keeps_meaning: bool = True

    def apply(self, network: Any) -> None:
        """Edit a NetworkDefinition in place: the one that the stage was given, or left.

        Raises NetworkError where it does not fit.
        """
        for edit in self.edits:
            edit.apply(network)

    @property
    def code(self) -> str:
        """The Python that does the same to a network named ``network``."""
        names = ", ".join(sorted({type(e).__name__ for e in self.edits}))
        lines = [f"from workbench.network.remedies import {names}", ""]
        return "\n".join([*lines, *(f"{e!r}.apply(network)" for e in self.edits)])


@dataclass(frozen=True)
class Refusal:
    """Why something was not done, where, and what would change it.

    code: a stable short name of the failed precondition, such as ``second_consumer``.
    remedy: what would change it, in words; mend: as an edit of the network, where one exists.
    tensors, layers: the names of those that the failed precondition is about.
    """

    reason: str
    place: str = ""
    remedy: str = ""
    code: str = ""
    tensors: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    mend: Remedy | None = None

    def __str__(self) -> str:
        text = f"{self.place}: {self.reason}" if self.place else self.reason
        return f"{text}; {self.remedy}" if self.remedy else text


QUARANTINED = ("check_failed", "rule_failed")
"""Codes of rewrites whose result was off, or that raised an error."""


@dataclass(frozen=True)
class Attempt:
    """One candidate of one rewrite rule: applied, or refused with its reason.

    place: names of the layers matched, anchor first. created: layers that replaced them.
    missing: parts of the pattern that did not fit; 0 for a full match that a precondition refused.
    """

    rule: str
    place: tuple[str, ...]
    applied: bool
    refusal: Refusal | None = None
    created: tuple[str, ...] = ()
    stage: Stage = Stage.FUSE
    detail: str = ""
    missing: int = 0

    @property
    def reason(self) -> str:
        return self.refusal.reason if self.refusal else ""

    @property
    def code(self) -> str:
        """The failed precondition's short name; empty where it was applied."""
        return self.refusal.code if self.refusal else ""

    @property
    def outcome(self) -> str:
        """``applied``, ``quarantined`` (its check failed), ``near miss`` or ``refused``."""
        if self.applied:
            return "applied"
        if self.code in QUARANTINED:
            return "quarantined"
        return "near miss" if self.missing else "refused"

    @property
    def remedy(self) -> Remedy | None:
        """The edit that would let it happen, where one exists."""
        return self.refusal.mend if self.refusal else None


@dataclass(frozen=True)
class StageRecord:
    """What one stage did.

    seconds: wall time. summary: one line for people. facts: the stage's own rows (JSON values
    or frozen records), keyed by a name that reports know.
    """

    stage: Stage
    seconds: float
    summary: str
    attempts: tuple[Attempt, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class BuildLog:
    """Every stage's record, in order, with what identifies the build."""

    device: str
    model: str
    records: tuple[StageRecord, ...] = ()

    def __getitem__(self, stage: Stage) -> StageRecord:
        for r in self.records:
            if r.stage is stage:
                return r
        raise KeyError(stage.value)

    def with_record(self, record: StageRecord) -> BuildLog:
        """This log with one more record."""
        return replace(self, records=(*self.records, record))

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The ledger: every attempt of every stage, in order."""
        return tuple(a for r in self.records for a in r.attempts)


class ProgressMonitor:
    """TensorRT's IProgressMonitor: told of phases and steps; may cancel by returning False.

    The default says nothing and never cancels. Subclass and override.
    """

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase of ``num_steps`` steps begins."""

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Step ``step`` is done; return False to cancel the build."""
        return True

    def phase_finish(self, phase_name: str) -> None:
        """The phase has ended, also after a cancel or an error."""


class Progress:
    """One phase as a context manager: ``with Progress(monitor, "Tune", 12) as p: p.step(i)``."""

    def __init__(
        self, monitor: ProgressMonitor, phase: str, steps: int, *, parent: str | None = None
    ) -> None:
        self.monitor, self.phase, self.steps, self.parent = monitor, phase, steps, parent
        self._done = 0

    def __enter__(self) -> Progress:
        self.monitor.phase_start(self.phase, self.parent, self.steps)
        return self

    def step(self) -> None:
        """One step is done. Raises BuildCancelled when the monitor says stop."""
        keep_going = self.monitor.step_complete(self.phase, self._done)
        self._done += 1
        if not keep_going:
            raise BuildCancelled(
                f"cancelled after step {self._done} of {self.steps}",
                place=self.phase,
                remedy="build again: timings taken so far are kept in the timing cache",
            )

    def __exit__(self, *exc: object) -> None:
        self.monitor.phase_finish(self.phase)


class CallbackMonitor(ProgressMonitor):
    """Reports (phase, done, total) to a function; cancels when ``cancelled()`` is true."""

    def __init__(
        self,
        report: Callable[[str, int, int], None],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.report, self.cancelled = report, cancelled
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self._steps[phase_name] = num_steps
        self.report(phase_name, 0, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        self.report(phase_name, step + 1, self._steps[phase_name])
        return not self.cancelled()
