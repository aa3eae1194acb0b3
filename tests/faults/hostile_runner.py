"""Runs hostile cases, each in a fork of one process that has imported everything already.

A line of standard input names a case and a tactic source (``-``: only parse); the answer is one
line of JSON. Each fork may take ``ROOM`` more address space than it started with.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numba  # noqa: F401  # once, not in each fork
from hostile_files import EXTERNAL
from hostile_graphs import LIES, STRUCTURE
from hostile_parts import Case
from hostile_runs import RUNS
from hostile_sizes import BOMBS, HARMLESS

from workbench.builder import run_stages, start
from workbench.config import BuilderConfig
from workbench.errors import WorkbenchError
from workbench.onnx_parser import parse_model

ROOM = 2 << 30
SECONDS = 20
CASES = {
    case.name: case
    for table in (EXTERNAL, STRUCTURE, LIES, BOMBS, RUNS, HARMLESS)
    for case in table
}


def status(field: str) -> int:
    """Bytes, from what the system says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) << 10 for x in lines if x.startswith(f"{field}:"))


def attempt(case: Case, made: Any, source: str) -> tuple[str, str]:
    """The class of the error and its text; empty where there is none."""
    try:
        parse_model(made).verify()
        if case.feeds is not None:
            config = BuilderConfig()
            config.builder_optimization_level = 0
            config.num_threads = 1
            names = ("ONEDNN", "NUMBA", "NUMPY")
            config.set_tactic_sources(sorted(names, key=lambda n: n != source))
            engine = run_stages(start(made, config)).engine()
            engine.create_execution_context().run(case.feeds)
    except WorkbenchError as e:
        return "/".join(t.__name__ for t in type(e).__mro__[:-3]), str(e)
    except Exception as e:
        return f"raw {type(e).__name__}", str(e)
    return "", ""


def inside(case: Case, made: Any, folder: Path, source: str) -> dict[str, Any]:
    """Everything a test may ask, seen from inside the fork."""
    opened: list[str] = []

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in ("open", "os.open", "mmap.__new__") and args and isinstance(args[0], str):
            opened.append(args[0])

    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + ROOM,) * 2)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    sys.addaudithook(hook)
    begin = time.perf_counter()
    error, text = attempt(case, made, source)
    seconds = time.perf_counter() - begin
    outside = [
        p for p in opened if p.startswith(str(folder)) or p.startswith(("/etc", "/dev/zero"))
    ]
    outside = [p for p in outside if not p.startswith(str(folder / "model"))]
    grown = status("VmHWM") - before
    return {
        "error": error,
        "text": text,
        "seconds": seconds,
        "grown": grown,
        "outside": outside,
    }


def answer(name: str, source: str) -> str:
    case = CASES[name]
    with tempfile.TemporaryDirectory() as made_in:
        folder = Path(made_in)
        made = case.make(folder)
        if not isinstance(made, bytes | Path):
            made = made.SerializeToString()
        reads, writes = os.pipe()
        child = os.fork()
        if not child:
            os.close(reads)
            signal.alarm(SECONDS)
            found = inside(case, made, folder, source)
            os.write(writes, json.dumps(found).encode()[:60_000])
            os._exit(0)
        os.close(writes)
        with os.fdopen(reads, "rb") as pipe:
            data = pipe.read()
        _, code = os.waitpid(child, 0)
    if data:
        return data.decode()
    how = f"killed by signal {code & 127}"
    return json.dumps({"error": how, "text": "", "seconds": SECONDS, "grown": 0, "outside": []})


def main() -> None:
    for line in sys.stdin:
        name, source = line.rstrip("\n").split("\t")
        print(answer(name, source), flush=True)


if __name__ == "__main__":
    main()
