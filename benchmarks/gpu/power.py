"""What power costs a model: run times beside the clock and the draw that nvidia-smi samples.

    python benchmarks/gpu/power.py OUT.json vit:32:fp16 resnet50:128:fp16 [--level 2]

Writes OUT.json, and OUT.md, a page to read. A job is ``model:batch:type`` of compare.py: fp16,
bf16, fp32 or tf32. Its engine runs in bursts (BURST runs after REST_S seconds of none) and then for
``--seconds`` without a rest. Each phase has a row: the runs' times in µs, and minimum, median and
maximum of the streaming multiprocessors' clock (MHz) and of the board's draw (W) in the samples
taken while it ran. A burst is shorter than the time between two samples, so that its phase's lowest
draw is that of the rest. ``limits`` are the reasons that the driver gave for holding the clock
back, with the share of samples that had each.
Needs: torch, onnxscript, cupy, nvidia-smi, and the extra ``gpu``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from compare import Job, Ours
from places import Gpu, query, told_by_driver
from table import measured_on

from workbench.files import write_atomically

BURST, BURSTS, REST_S = 6, 12, 0.5
EVERY_MS = 100
"""Between two samples: the driver's own counters are about as old."""
LIMITS = {
    0x04: "power",
    0x08: "hardware slowdown",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}
"""nvidia-smi's clocks_event_reasons that slow a busy GPU (NVML's nvmlClocksEventReason...)."""
FIELDS = ("clocks.sm", "power.draw.instant", "clocks_event_reasons.active")
Row = dict[str, Any]


class Sampler:
    """nvidia-smi beside a phase: ``with Sampler() as s: ...; s.facts()``."""

    def __enter__(self) -> Sampler:
        command = [*query(*FIELDS), f"-lms={EVERY_MS}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._first = self._process.stdout.readline()  # it samples from now on
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._text, _ = self._process.communicate()

    def facts(self) -> Row:
        """Clock, draw and limits of what was sampled."""
        whole, _, _ = self._text.rpartition("\n")  # it may have been stopped within a line
        samples = [_sample(line) for line in whole.splitlines()]
        if not samples:
            raise RuntimeError(f"nvidia-smi gave no sample within {EVERY_MS} ms: raise --seconds")
        held = Counter(n for _, _, r in samples for bit, n in LIMITS.items() if r & bit)
        return {
            "samples": len(samples),
            "clock_mhz": _spread([c for c, _, _ in samples]),
            "draw_w": _spread([w for _, w, _ in samples]),
            "limits": {n: round(k / len(samples), 2) for n, k in sorted(held.items())},
        }


def _sample(line: str) -> tuple[float, float, int]:
    """MHz, W, and the reasons' bits."""
    try:
        clock, draw, reasons = line.split(",")
        return float(clock), float(draw), int(reasons, 16)
    except ValueError:
        raise RuntimeError(
            f"nvidia-smi says {line!r} for {', '.join(FIELDS)}: this GPU or driver has no such "
            "counters, and its power can't be measured so"
        ) from None


def _spread(values: Sequence[float]) -> Row:
    return {
        "min": round(min(values), 1),
        "median": round(statistics.median(values), 1),
        "max": round(max(values), 1),
    }


def timed(run: Any, count: int) -> list[float]:
    """Microseconds of so many runs in a row, by CUDA's events."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize()
    return [1e3 * a.elapsed_time(b) for a, b in pairwise(events)]


def bursts(run: Any) -> list[float]:
    """Runs after a rest."""
    samples: list[float] = []
    for _ in range(BURSTS):
        time.sleep(REST_S)
        samples += timed(run, BURST)
    return samples


def lasting(run: Any, seconds: float) -> list[float]:
    """Runs without a rest."""
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        samples += timed(run, 100)
    return samples


def measured(job: Job, options: Any) -> list[Row]:
    """The two rows of a job."""
    ours = Ours(job, options.level)
    for _ in range(BURST):
        ours()
    rows: list[Row] = []
    for phase in ("after a rest", "without a rest"):
        with Sampler() as sampler:
            times = bursts(ours) if phase == "after a rest" else lasting(ours, options.seconds)
        row = job.row("workbench", phase=phase, runs=len(times), us=_spread(times))
        rows.append(row | sampler.facts())
        print(json.dumps(rows[-1]), flush=True)
    return rows


def markdown(table: Row) -> str:
    """The page: the device, and a row a phase."""
    lines = [
        "# What power costs",
        "",
        "Written by `benchmarks/gpu/power.py`, whose first lines say how; "
        f"{measured_on(table)}. The board may draw {table['power_limit_w']:.0f} W and clock its "
        f"multiprocessors at {table['highest_clock_mhz']:,.0f} MHz. Median, and in brackets the "
        "range. After a rest the clock and the draw are mostly those of the rest.",
        "",
        "| Model | Batch | Type | Runs | µs a run | Clock, MHz | Draw, W | Held back by |",
        "|---|--:|---|---|--:|--:|--:|---|",
    ]
    for r in table["rows"]:
        limits = ", ".join(f"{n} ({share:.0%} of samples)" for n, share in r["limits"].items())
        cells = (
            *(r["model"], str(r["batch"]), r["type"].upper(), r["phase"]),
            *(_range(r[k]) for k in ("us", "clock_mhz", "draw_w")),
            limits or "nothing",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _range(values: Row) -> str:
    return f"{values['median']:,.0f} ({values['min']:,.0f} to {values['max']:,.0f})"


def main() -> int:
    """Measure every job; what is measured is written after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("jobs", nargs="+", help="model:batch:type")
    parser.add_argument("--level", type=int, default=2, help="builder_optimization_level")
    parser.add_argument("--seconds", type=float, default=10, help="of runs without a rest")
    options = parser.parse_args()
    limit, clock = map(float, told_by_driver("power.limit", "clocks.max.sm"))
    rows: list[Row] = []
    table = {
        **Gpu().facts(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "power_limit_w": limit,
        "highest_clock_mhz": clock,
        "protocol": {
            "builder_optimization_level": options.level,
            "burst": BURST,
            "rest_s": REST_S,
            "sampled_every_ms": EVERY_MS,
        },
        "rows": rows,
    }
    with tempfile.TemporaryDirectory() as folder:
        for text in options.jobs:
            rows += measured(Job(text, Path(folder), Gpu()), options)
            write_atomically(options.out, (json.dumps(table, indent=1) + "\n").encode())
            write_atomically(options.out.with_suffix(".md"), markdown(table).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
