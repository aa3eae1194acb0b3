"""Ours, ONNX Runtime and OpenVINO on one CPU: each in a process of its own, taking turns.

    python benchmarks/cpu/compare.py OUT.json --large FOLDER [--models resnet50 digits_cnn:1 ...]
        [--types f32 int8] [--threads 1 2] [--seconds 6] [--engines workbench onnxruntime]

FOLDER has what ``datasets/export_large.py`` and ``benchmarks/make_models.py --models vit_sdpa``
make. Writes OUT.json and OUT.md: median and minimum of a run, ratios to ours, the peak of resident
memory while running, and the error: the root mean square, over the timed input and seven others (63
of single digits), of the relative L2 distance to the float32 model run in float64 by the reference.
INT8 is one Q/DQ model for all, calibrated and exported by the workbench. BF16 is measured where the
CPU has it; in our plans of it, layer normalization and the sums it reads stay in FP32. Plans are
built with full tuning; ``--work`` keeps timings, Q/DQ models and plans, so that a second run only
measures. ``--before`` keeps the other rows of an earlier result, of the same CPU and versions. A
candidate that fails has a row that says why; exit status 1.
Needs: onnxruntime, openvino (the extra ``bench``); Linux. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from models import MODELS, Model, model_named, numbered
from pooling import pooled_error
from table import joined, markdown

import workbench
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.files import write_atomically

HERE = Path(__file__).parent
ENGINES = ("workbench", "onnxruntime", "openvino")
PACKAGES = ("onnxruntime", "openvino", "onednn-cpu-gomp", "numba", "numpy")
TURNS = 10
LEAST_TURNS = 3
PAUSE_S = 0.02
"""Between two engines' turns: a peer's threads spin for a while after their last run."""


class CandidateError(Exception):
    """A process ended without an answer; its last words."""


@dataclass(eq=False)
class Candidate:
    """A running process of ``candidates.py``."""

    engine: str
    process: subprocess.Popen[str]
    log: Path
    facts: dict[str, Any] = field(default_factory=dict)
    samples: list[int] = field(default_factory=list)

    def answer(self) -> Any:
        """The next line of JSON. Raises CandidateError where there is none."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(("{", "[")):
                return json.loads(line)
        self.process.wait()
        raise CandidateError(self.log.read_text()[-600:].strip().splitlines()[-1:])

    def take_turn(self, budget_ns: int) -> None:
        """Time one burst."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{budget_ns}\n")
        self.process.stdin.flush()
        self.samples += self.answer()


def environment(threads: int) -> dict[str, str]:
    """What every candidate gets: no more threads than asked for, anywhere."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def started(
    engine: str, path: Path, threads: int, kind: str, given: Path, target: Path
) -> Generator[Candidate]:
    """A candidate, ended by the end of the block."""
    log = target.with_suffix(".log")
    command = [sys.executable, str(HERE / "candidates.py"), engine, str(path)]
    command += [str(threads), kind, str(given), str(target)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(threads),
        )
    try:
        yield Candidate(engine, process, log)
    finally:
        with contextlib.suppress(OSError):  # it has ended by itself
            process.communicate("quit\n", timeout=30)


def prepared(*arguments: object) -> str:
    """What ``preparing.py`` prints. Raises CandidateError with its last words."""
    command = [sys.executable, str(HERE / "preparing.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CandidateError(done.stderr.strip().splitlines()[-1:])
    return done.stdout


@dataclass(frozen=True)
class Job:
    """One model, type and number of threads. work: where files are kept."""

    model: Model
    kind: str
    threads: int
    large: Path
    work: Path

    @property
    def stem(self) -> str:
        return f"{self.model.name.replace(':', '_')}"

    @property
    def source(self) -> Path:
        """The ONNX file that every engine reads."""
        if self.kind != "int8":
            return self.model.path(self.large)
        return self.work / f"{self.stem}.int8.onnx"

    def prepare(self, engines: Sequence[str]) -> dict[str, Any]:
        """Make the inputs, the exact outputs, the Q/DQ model and the plan; facts of the build."""
        given, exact = self.given, self.exact
        if not given.exists():
            draws = (numbered(self.model.inputs(k), k) for k in range(self.model.draws))
            np.savez(given, allow_pickle=False, **dict(kv for d in draws for kv in d.items()))
        if not exact.exists():
            prepared("exact", self.model.name, self.large, exact)
        if self.kind == "int8" and not self.source.exists():
            prepared("qdq", self.model.name, self.large, self.source)
        if "workbench" not in engines:
            return {}
        name, cache = self.model.name, self.work / "timings.json"
        return json.loads(
            prepared("plan", self.source, name, self.kind, self.threads, cache, self.plan)
        )

    @property
    def given(self) -> Path:
        return self.work / f"{self.stem}.{self.model.draws}.inputs.npz"

    @property
    def exact(self) -> Path:
        return self.work / f"{self.stem}.{self.model.draws}.exact.npz"

    @property
    def plan(self) -> Path:
        return self.work / f"{self.stem}.{self.kind}.{self.threads}.plan"

    def row(self, engine: str) -> dict[str, Any]:
        """The first columns."""
        return {
            "model": self.model.name,
            "large": self.model.large,
            "type": self.kind,
            "threads": self.threads,
            "engine": engine,
        }

    def measure(self, engines: Sequence[str], seconds: float) -> list[dict[str, Any]]:
        """Start every engine, let them take turns for so long, and give their rows."""
        rows: list[dict[str, Any]] = []
        built = self.prepare(engines)
        with contextlib.ExitStack() as stack:
            running: list[Candidate] = []
            for engine in engines:
                path = self.plan if engine == "workbench" else self.source
                target = self.work / f"{self.stem}.{engine}.outputs.npz"
                running.append(
                    stack.enter_context(
                        started(engine, path, self.threads, self.kind, self.given, target)
                    )
                )
            for c in list(running):
                try:
                    c.facts = c.answer()
                except CandidateError as e:
                    rows.append({**self.row(c.engine), "failed": str(e)})
                    running.remove(c)
            take_turns(running, seconds)
        for c in running:
            rows.append(
                {
                    **self.row(c.engine),
                    "median_us": round(statistics.median(c.samples) / 1e3, 1),
                    "min_us": round(min(c.samples) / 1e3, 1),
                    "samples": len(c.samples),
                    "error": self.error(c.engine),
                    "inputs": self.model.draws,
                    **c.facts,
                    **(built if c.engine == "workbench" else {}),
                    "load_average": round(os.getloadavg()[0], 2),
                }
            )
        return rows

    def error(self, engine: str) -> float:
        """Of the outputs against the model run in float64."""
        found = np.load(self.work / f"{self.stem}.{engine}.outputs.npz")
        return pooled_error(found, np.load(self.exact))


def take_turns(running: Sequence[Candidate], seconds: float) -> None:
    """A B C A B C, until the time is over."""
    if not running:
        return
    budget_ns = int(seconds / len(running) / TURNS * 1e9)
    end, turns = time.perf_counter() + seconds, 0
    while turns < LEAST_TURNS or time.perf_counter() < end:
        for c in running:
            c.take_turn(budget_ns)
            time.sleep(PAUSE_S)
        turns += 1


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    device = open_device("cpu").fingerprint
    return {
        "cpu": device.name,
        "features": list(device.features),
        "cpus": len(os.sched_getaffinity(0)),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "load_average_at_start": [round(x, 2) for x in os.getloadavg()],
        "python": sys.version.split()[0],
        "versions": {
            "inference-workbench": workbench.__version__,
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }


def save(target: Path, table: dict[str, Any]) -> None:
    """Both files: after each job, so that a run that is stopped leaves what it measured."""
    write_atomically(target, (json.dumps(table, indent=1) + "\n").encode())
    write_atomically(target.with_suffix(".md"), markdown(table).encode())


def main() -> int:
    """Run every job and write the rows. Exit status: 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--large", type=Path, required=True, help="folder of the large models")
    parser.add_argument("--models", nargs="+", default=[m.name for m in MODELS])
    parser.add_argument(
        "--types", nargs="+", default=["f32", "bf16", "int8"], choices=("f32", "bf16", "int8")
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    parser.add_argument("--seconds", type=float, default=6.0, help="for a model, type and count")
    parser.add_argument("--work", type=Path, help="folder for timings, Q/DQ models and plans")
    parser.add_argument("--before", type=Path, help="a result whose other rows stay")
    options = parser.parse_args()
    native = open_device("cpu").native(DataType.BF16)
    rows: list[dict[str, Any]] = []
    table = {**machine(), "seconds": options.seconds, "bf16_native": native}
    before: dict[str, Any] = (
        json.loads(options.before.read_text()) if options.before else {**table, "rows": []}
    )
    for key in ("cpu", "versions"):
        if before[key] != table[key]:
            parser.error(f"{options.before}: {key} {before[key]}, now {table[key]}")
    earlier = [{"date": before["date"], **r} for r in before["rows"]]
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        for name in options.models:
            for kind in options.types:
                if kind == "bf16" and not native:
                    continue
                engines = [e for e in options.engines if (e, kind) != ("onnxruntime", "bf16")]
                for threads in options.threads:
                    began = time.perf_counter()
                    job = Job(model_named(name), kind, threads, options.large, work)
                    try:
                        found = job.measure(engines, options.seconds)
                    except CandidateError as e:
                        found = [{**job.row("workbench"), "failed": str(e)}]
                    rows += [{"date": table["date"], **r} for r in found]
                    for r in found:
                        print(_line(r), flush=True)
                    print(f"    {time.perf_counter() - began:.1f} s", flush=True)
                    save(options.out, {**table, "rows": joined(earlier, rows)})
    return int(any("failed" in r for r in rows))


def _line(row: dict[str, Any]) -> str:
    head = f"{row['model']:<18} {row['type']:<5} {row['threads']} {row['engine']:<12}"
    if "failed" in row:
        return f"{head} {row['failed']}"
    return (
        f"{head} median {row['median_us']:10.1f} min {row['min_us']:10.1f} us  "
        f"error {row['error']:.2e}  peak {row['peak'] >> 20} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
