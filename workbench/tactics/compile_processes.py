"""Compilers as processes of their own: one that crashes takes nothing with it, many run at once.

A worker is a Python program: one JSON line in, one JSON line out, ``{"code": base64, ...}`` or
``{"error": text}``; it ends when its input does. It is started when first needed.
"""

from __future__ import annotations

import atexit
import base64
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.devices import usable_cpus

MOST_PROCESSES = 32
PATIENCE_S = 10.0
"""What a process that closed its answers may take to end."""
IDLE_S = 20.0
"""After so long without work a process ends, and gives back its memory."""

Answer = Mapping[str, Any]


class CompileError(Exception):
    """What the compiler said of a kernel."""


@dataclass(frozen=True, eq=False)
class _Job:
    key: tuple[str, ...]
    request: str
    decode: Callable[[Answer], bytes]
    future: Future[bytes] = field(default_factory=lambda: Future[bytes]())


def code_of(answer: Answer) -> bytes:
    """The code of an answer that holds nothing else."""
    return base64.b64decode(answer["code"])


class CompileProcesses:
    """A pool of one worker's processes. Threads feed them; each kernel's answer is a Future.

    worker: the program's path. most: gives how many processes at most, asked once, at the first
    kernel; by default one a processor. Nothing starts before that.
    """

    def __init__(self, worker: Path, most: Callable[[], int] = usable_cpus) -> None:
        self.worker = worker
        self._most = most
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._feeders = 0
        self._limit = 0
        self._running: set[subprocess.Popen[str]] = set()
        self._futures: dict[tuple[str, ...], Future[bytes]] = {}
        self._lock = threading.Lock()

    def submit(
        self,
        key: tuple[str, ...],
        request: Mapping[str, Any],
        decode: Callable[[Answer], bytes] = code_of,
    ) -> Future[bytes]:
        """The code of a kernel, when it is ready; asked again, the same Future.

        key: all that decides the code. decode: the code from the worker's answer. The Future may
        raise CompileError. One whose process died is forgotten: asked again, the kernel is
        compiled again.
        """
        with self._lock:
            known = self._futures.get(key)
            if known is not None:
                return known
            job = _Job(key, json.dumps(request), decode)
            self._futures[key] = job.future
            self._jobs.put(job)
            if not self._limit:
                atexit.register(self.close)
                self._limit = max(1, min(self._most(), MOST_PROCESSES))
            waiting = sum(not f.done() for f in self._futures.values())
            if self._feeders < min(self._limit, waiting):
                self._feeders += 1
                threading.Thread(target=self._feed, daemon=True).start()
        return job.future

    def close(self) -> None:
        """End the processes. What they were compiling is lost."""
        for process in tuple(self._running):
            process.kill()

    def _next(self) -> _Job | None:
        """The next job; None when this feeder has waited long enough, and ends."""
        while True:
            try:
                return self._jobs.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:  # jobs are put under the lock: none is lost
                    if self._jobs.empty():
                        self._feeders -= 1
                        return None

    def _feed(self) -> None:
        process: subprocess.Popen[str] | None = None
        while (job := self._next()) is not None:
            try:
                if process is None:
                    process = self._started()
                answer = _ask(process, job)
            except Exception as e:  # whoever waits for the Future hears of it; the thread goes on
                answer = CompileError(f"the compiler's process fails: {type(e).__name__}: {e}")
                with self._lock:
                    self._futures.pop(job.key, None)
                if process is not None:
                    self._ended(process)
                process = None
            if isinstance(answer, CompileError):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)
        if process is not None:
            self._ended(process)

    def _started(self) -> subprocess.Popen[str]:
        process = _start(self.worker)
        self._running.add(process)
        return process

    def _ended(self, process: subprocess.Popen[str]) -> None:
        self._running.discard(process)
        process.kill()
        process.communicate()  # closes the pipes


def _start(worker: Path) -> subprocess.Popen[str]:
    # The parent's sys.path, whatever made it: a checkout, a notebook's folder, an installation.
    program = (
        f"import runpy, sys; sys.path[:] = {sys.path!r}; "
        f"runpy.run_path({str(worker)!r}, run_name='__main__')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _ask(process: subprocess.Popen[str], job: _Job) -> bytes | CompileError:
    """The code, or what the compiler says of the kernel. Raises where the process fails."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(job.request + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise EOFError(f"it ended with {process.wait(PATIENCE_S)}")
    answer = json.loads(line)
    if "error" in answer:
        return CompileError(answer["error"])
    return job.decode(answer)
