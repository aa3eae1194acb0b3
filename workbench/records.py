"""What stages leave behind: Refusal, Attempt, StageRecord, BuildLog; and progress.

Records are frozen. Timings and dates live here, never in a plan.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from workbench.errors import BuildCancelled


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


@dataclass(frozen=True)
class Refusal:
    """Why something was not done, where, and what would change it.

    code: a stable short name of the failed precondition, such as ``second_consumer``.
    """

    reason: str
    place: str = ""
    remedy: str = ""
    code: str = ""

    def __str__(self) -> str:
        text = f"{self.place}: {self.reason}" if self.place else self.reason
        return f"{text}; {self.remedy}" if self.remedy else text


@dataclass(frozen=True)
class Attempt:
    """One candidate of one rewrite rule: applied, or refused with its reason.

    place: names of the layers matched, anchor first. created: layers that replaced them.
    absorbed: model nodes whose work now happens elsewhere (in ``created``, or in a weight).
    """

    rule: str
    place: tuple[str, ...]
    applied: bool
    refusal: Refusal | None = None
    created: tuple[str, ...] = ()
    stage: Stage = Stage.FUSE
    detail: str = ""

    @property
    def reason(self) -> str:
        return self.refusal.reason if self.refusal else ""


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
