"""The worker thread: progress, cancel, errors, and a loop that stays free."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from digits import quick_session

from widgets.runner import Progress, Runner
from workbench.datatypes import DataType
from workbench.errors import ConfigError
from workbench.records import Stage
from workbench.session import SetDefaultPrecision, SetProfile


class Listener:
    """Remembers what it was told, when, and in which thread."""

    def __init__(self) -> None:
        self.progress: list[tuple[float, Progress]] = []
        self.threads: set[threading.Thread] = set()
        self.ended = 0

    def started(self) -> None:
        self.threads.add(threading.current_thread())

    def progressed(self, progress: Progress) -> None:
        self.threads.add(threading.current_thread())
        self.progress.append((time.monotonic(), progress))

    def finished(self) -> None:
        self.threads.add(threading.current_thread())
        self.ended += 1


async def until(condition, patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        await asyncio.sleep(0.01)


def test_without_an_event_loop_the_work_is_done_on_return():
    runner = Runner(quick_session())
    runner.build(Stage.FOLD)
    assert not runner.busy
    assert runner.session.state().done[-1] is Stage.FOLD


def test_the_loop_stays_free_and_listeners_are_called_on_it():
    async def scene() -> tuple[Listener, int]:
        runner, heard, ticks = Runner(quick_session(cached=False)), Listener(), 0
        runner.listen(heard)
        runner.build()
        assert runner.busy
        while runner.busy:
            await asyncio.sleep(0.01)
            ticks += 1
        return heard, ticks

    heard, ticks = asyncio.run(scene())
    assert ticks > 5
    assert heard.ended == 1
    assert heard.threads == {threading.main_thread()}
    shares = [p.share for _, p in heard.progress]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_progress_comes_at_most_ten_times_a_second_beside_the_stages():
    heard = Listener()
    runner = Runner(quick_session(cached=False))
    runner.listen(heard)
    start = time.monotonic()
    runner.build()
    seconds = time.monotonic() - start
    assert len(heard.progress) <= 10 * seconds + len(Stage) + 2


def test_cancel_stops_a_build_and_keeps_what_was_built():
    async def scene() -> Runner:
        runner = Runner(quick_session(cached=False))
        heard = Listener()
        runner.listen(heard)
        runner.build()
        await until(lambda: any(p.stage is Stage.TUNE for _, p in heard.progress))
        runner.cancel()
        await until(lambda: not runner.busy)
        return runner

    runner = asyncio.run(scene())
    assert runner.failure is not None
    assert runner.failure.cancelled
    assert Stage.FUSE in runner.session.state().done
    assert runner.session.state().plan_bytes is None
    runner.build()
    assert runner.failure is None
    assert runner.session.state().plan_bytes is not None


def test_an_error_ends_the_run_and_not_the_kernel():
    session = quick_session()
    session.actions = tuple(a for a in session.actions if not isinstance(a, SetProfile))
    runner = Runner(session)
    runner.build()
    assert runner.failure is not None
    assert isinstance(runner.failure.error, ConfigError)
    assert not runner.busy


def test_an_unexpected_error_keeps_its_traceback():
    def broken() -> None:
        raise ZeroDivisionError("1/0")

    runner = Runner(quick_session())
    runner.run(broken, "dividing")
    assert runner.failure is not None
    assert "broken" in runner.failure.trace


def test_a_second_click_while_something_runs_does_nothing():
    async def scene() -> int:
        runner, heard = Runner(quick_session()), Listener()
        runner.listen(heard)
        runner.build(Stage.FOLD)
        runner.build()
        await until(lambda: not runner.busy)
        assert runner.session.state().done[-1] is Stage.FOLD
        return heard.ended

    assert asyncio.run(scene()) == 1


def test_what_is_asked_for_while_something_runs_is_built_when_that_has_ended():
    async def scene() -> tuple[Runner, int]:
        runner, heard = Runner(quick_session()), Listener()
        runner.listen(heard)
        runner.build(Stage.FOLD)
        runner.session.do(SetDefaultPrecision(DataType.BF16))
        runner.rebuild(Stage.PRECISION)
        await until(lambda: not runner.busy)
        return runner, heard.ended

    runner, ended = asyncio.run(scene())
    assert ended == 1, "nothing is drawn of a build that is outdated"
    assert runner.failure is None
    state = runner.session.state()
    assert state.done[-1] is Stage.PRECISION
    assert {d.requested for d in state.decisions} == {DataType.BF16}


def test_cancel_forgets_what_was_asked_for_meanwhile():
    async def scene() -> Runner:
        runner = Runner(quick_session())
        runner.build(Stage.FOLD)
        runner.rebuild(Stage.PRECISION)
        runner.cancel()
        await until(lambda: not runner.busy)
        return runner

    assert Stage.PRECISION not in asyncio.run(scene()).session.state().done


@pytest.mark.parametrize("stage", list(Stage))
def test_each_stage_can_be_run_up_to(stage: Stage):
    runner = Runner(quick_session())
    runner.build(stage)
    assert runner.failure is None
    assert runner.session.state().done == tuple(Stage)[: list(Stage).index(stage) + 1]
