"""Builds in a worker thread: progress, cancel, and errors handed to whoever listens.

Listeners are called on the kernel's event loop, where widgets may be touched, and at most
ten times a second. Where no event loop runs (a script, a test), the work runs in the caller's
thread and its listeners are called there.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.builder import STAGES
from workbench.errors import BuildCancelled, SessionError
from workbench.records import CallbackMonitor, Stage, StageRecord
from workbench.session import Session

UPDATES_S = 0.1
"""Shortest time between two updates of the widgets."""
ORDER = tuple(stage for stage, _ in STAGES)


@dataclass(frozen=True)
class Progress:
    """How far a build is. stage: the one at work. share: of the stages asked for, 0 to 1."""

    stage: Stage
    share: float
    message: str


@dataclass(frozen=True)
class Failure:
    """Why a run ended early. ``trace`` is the traceback of an error that nobody expected."""

    error: BaseException
    trace: str = ""

    @property
    def cancelled(self) -> bool:
        return isinstance(self.error, BuildCancelled)


class Runner:
    """Runs one thing at a time for a session, which may be None until a model is open.

    busy: whether something runs. failure: why the last run ended early, or None. outcome: what the
    last run says of itself; empty where the last stage's summary says it.
    """

    def __init__(self, session: Session | None) -> None:
        self._session = session
        self.busy = False
        self.failure: Failure | None = None
        self.outcome = ""
        self._stop = threading.Event()
        self._listeners: list[Any] = []
        self._sent = 0.0
        self._stage = Stage.PARSE
        self._share = 0.0
        self._target = Stage.SERIALIZE
        self._builds = False
        self._next: Stage | None = None

    @property
    def session(self) -> Session:
        """Whose stages it runs. Raises SessionError where no model is open."""
        if self._session is None:
            raise SessionError(
                "no model is open", place="Runner", remedy="drop an ONNX file, or pick one"
            )
        return self._session

    def use(self, session: Session) -> None:
        """Run another session's stages from now on."""
        self._session, self._next = session, None

    def summary(self) -> str:
        """What the last run left: its own words, or the last stage's."""
        state = self._session.state() if self._session is not None else None
        if self.outcome or state is None or not state.done:
            return self.outcome
        last = state.log.records[-1]
        return f"{last.stage.value} is done: {last.summary}"

    def listen(self, listener: Any) -> None:
        """Tell ``listener`` of ``started()``, ``progressed(Progress)`` and ``finished()``."""
        self._listeners.append(listener)

    def build(self, until: Stage = Stage.SERIALIZE) -> None:
        """Run the stages up to ``until``; returns at once where an event loop runs."""

        def work() -> None:
            self._target = until
            monitor = CallbackMonitor(self._phase, self._stop.is_set)
            self.session.run(until, monitor=monitor, tell=self._stage_done)

        self._run(work, f"building up to {until.value}", builds=True)

    def rebuild(self, until: Stage) -> None:
        """Build for actions that were appended: now, or once what runs has ended by itself.

        Nobody hears of the end of a build that they outdated.
        """
        if self.busy:
            self._next = until
        else:
            self.build(until)

    def run(self, work: Callable[[], None], message: str) -> None:
        """Run anything; ignored, as a second click would be, while something runs."""
        self._run(work, message, builds=False)

    def _run(self, work: Callable[[], None], message: str, *, builds: bool) -> None:
        if self.busy:
            return
        self._builds = builds
        self.busy, self.failure, self.outcome = True, None, ""
        self._stop.clear()
        self._stage, self._share, self._sent = Stage.PARSE, 0.0, 0.0
        self._tell("started")
        self._tell("progressed", Progress(self._stage, 0.0, message))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._post = _now
            self._work(work)
            return
        self._post = loop.call_soon_threadsafe
        threading.Thread(
            target=self._work, args=(work,), name="workbench-build", daemon=True
        ).start()

    def monitor(self) -> CallbackMonitor:
        """For work of its own kind: its steps move the bar, and Cancel stops it."""
        return CallbackMonitor(self._step, self._stop.is_set)

    def inner_monitor(self) -> CallbackMonitor:
        """For the builds and runs within such work: Cancel stops them, the bar stays."""
        return CallbackMonitor(lambda phase, done, total: None, self._stop.is_set)

    def cancel(self) -> None:
        """Ask the run to stop at its next step."""
        self._next = None
        self._stop.set()

    # -- in the worker's thread -----------------------------------------------------------
    def _work(self, work: Callable[[], None]) -> None:
        failure = None
        try:
            work()
        except Exception as error:  # shown in full: a panel's error must not end the kernel
            failure = Failure(error, traceback.format_exc())
        self._post(self._finish, failure)

    def _stage_done(self, record: StageRecord) -> None:
        index = ORDER.index(record.stage) + 1
        if index < len(ORDER):
            self._stage = ORDER[index]
        self._share = index / (ORDER.index(self._target) + 1)
        self._report(f"{record.stage.value}: {record.summary}", at_once=True)
        if self._stop.is_set() and record.stage is not self._target:
            raise BuildCancelled(
                f"cancelled after {record.stage.value}",
                place=self.session.name,
                remedy="continue with any stage: what was built is kept",
            )

    def _phase(self, phase: str, done: int, total: int) -> None:
        name = self._stage.value
        where = name if phase == name else f"{name} ({phase.lower()})"
        message = f"{where}: {done} of {total}"
        if phase == name and total:
            steps = ORDER.index(self._target) + 1
            self._share = (ORDER.index(self._stage) + done / total) / steps
        self._report(message)

    def _step(self, phase: str, done: int, total: int) -> None:
        self._share = done / total if total else 0.0
        self._report(f"{phase}: {done} of {total}")

    def _report(self, message: str, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if now - self._sent < UPDATES_S and not at_once:
            return
        self._sent = now
        self._post(self._tell, "progressed", Progress(self._stage, self._share, message))

    # -- where widgets may be touched -----------------------------------------------------
    def _finish(self, failure: Failure | None) -> None:
        self.busy, self.failure = False, failure
        if self._next is None or not self._builds:
            self._tell("finished")
        until, self._next = self._next, None
        if until is not None and not self.busy:
            self.build(until)

    def _tell(self, event: str, *values: Any) -> None:
        for listener in self._listeners:
            getattr(listener, event)(*values)

    _post: Callable[..., Any]


def _now(function: Callable[..., None], *values: Any) -> None:
    function(*values)
