"""Triton compilers, as processes: started when first needed, as many as there are processors."""

from __future__ import annotations

import atexit
import base64
import importlib.metadata
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from workbench.devices import usable_cpus
from workbench.tactics.triton.kernel import ALIGNED, Kernel

MOST_PROCESSES = 32
PATIENCE_S = 10.0
"""What a process that closed its answers may take to end."""
WORKER = Path(__file__).with_name("worker.py")


class CompileError(Exception):
    """What the compiler said of a kernel."""


def triton_version() -> str:
    """The installed version of Triton, ``none`` where there is none."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def parts(kernel: Kernel, capability: int, version: str) -> tuple[str, ...]:
    """All that decides a kernel's machine code; see ``machine_code``. version: of Triton."""
    return (
        "triton",
        version,
        f"sm_{capability}",
        kernel.text,
        " ".join(kernel.signature),
        f"warps {kernel.warps} stages {kernel.stages}",
    )


def pack_code(meta: dict[str, int], cubin: bytes) -> bytes:
    """Machine code with what launching it needs in front."""
    head = json.dumps(meta, sort_keys=True).encode()
    return len(head).to_bytes(4, "little") + head + cubin


def unpack_code(code: bytes) -> tuple[dict[str, int], bytes]:
    """What ``pack_code`` put together."""
    size = int.from_bytes(code[:4], "little")
    return json.loads(code[4 : 4 + size]), code[4 + size :]


class Compilers:
    """A pool of compiler processes. Threads feed them; each kernel's answer is a Future.

    processes: at most; None for one a processor, MOST_PROCESSES at most. Nothing starts, and
    nothing is asked of the machine, before the first kernel.
    """

    def __init__(self, processes: int | None = None) -> None:
        self._processes = processes
        self._jobs: queue.SimpleQueue[tuple[Kernel, int, Future[bytes]]] = queue.SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._running: set[subprocess.Popen[str]] = set()
        self._futures: dict[tuple[str, ...], Future[bytes]] = {}
        self._lock = threading.Lock()

    def submit(self, kernel: Kernel, capability: int) -> Future[bytes]:
        """Packed code of a kernel, when it is ready; asked again, the same Future.

        The Future may raise CompileError. One whose process died is forgotten: asked again, the
        kernel is compiled again.
        """
        key = parts(kernel, capability, triton_version())
        with self._lock:
            known = self._futures.get(key)
            if known is not None:
                return known
            future = self._futures[key] = Future[bytes]()
            self._jobs.put((kernel, capability, future))
            waiting = sum(not f.done() for f in self._futures.values())
            most = self._processes or min(MOST_PROCESSES, usable_cpus())
            if len(self._workers) < min(most, waiting):
                if not self._workers:
                    atexit.register(self.close)
                thread = threading.Thread(target=self._feed, daemon=True)
                self._workers.append(thread)
                thread.start()
        return future

    def close(self) -> None:
        """End the processes. What they were compiling is lost."""
        for process in tuple(self._running):
            process.kill()

    def _feed(self) -> None:
        process: subprocess.Popen[str] | None = None
        while True:
            kernel, capability, future = self._jobs.get()
            try:
                if process is None:
                    process = self._started()
                answer = _ask(process, kernel, capability)
            except Exception as e:  # whoever waits for the Future hears of it; the thread goes on
                answer = CompileError(f"the compiler's process fails: {type(e).__name__}: {e}")
                self._forget(kernel, capability)
                if process is not None:
                    self._ended(process)
                process = None
            if isinstance(answer, CompileError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _started(self) -> subprocess.Popen[str]:
        process = _start()
        self._running.add(process)
        return process

    def _ended(self, process: subprocess.Popen[str]) -> None:
        self._running.discard(process)
        process.kill()
        process.communicate()  # closes the pipes

    def _forget(self, kernel: Kernel, capability: int) -> None:
        with self._lock:
            self._futures.pop(parts(kernel, capability, triton_version()), None)


def _start() -> subprocess.Popen[str]:
    # The parent's sys.path, whatever made it: a checkout, a notebook's folder, an installation.
    program = (
        f"import runpy, sys; sys.path[:] = {sys.path!r}; "
        f"runpy.run_path({str(WORKER)!r}, run_name='__main__')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _ask(process: subprocess.Popen[str], kernel: Kernel, capability: int) -> bytes | CompileError:
    """Packed code, or what the compiler says of the kernel. Raises where the process fails."""
    assert process.stdin is not None and process.stdout is not None
    request = {
        "text": kernel.text,
        "signature": list(kernel.signature),
        "aligned": ALIGNED,
        "warps": kernel.warps,
        "stages": kernel.stages,
        "capability": capability,
    }
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise EOFError(f"it ended with {process.wait(PATIENCE_S)}")
    answer = json.loads(line)
    if "error" in answer:
        return CompileError(answer["error"])
    return pack_code(answer["meta"], base64.b64decode(answer["code"]))


COMPILERS = Compilers()


def compile_all(kernels: Sequence[Kernel], capability: int) -> tuple[bytes | CompileError, ...]:
    """Packed code of each kernel, or what the compiler said of it; compiled side by side."""
    futures = [COMPILERS.submit(k, capability) for k in kernels]
    found: list[bytes | CompileError] = []
    for f in futures:
        reason = f.exception()
        if reason is None:
            found.append(f.result())
        elif isinstance(reason, CompileError):
            found.append(reason)
        else:
            raise reason
    return tuple(found)
