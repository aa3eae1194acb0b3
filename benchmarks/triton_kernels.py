"""Every TRITON tactic of large models' layers, timed: which tile is best, and how near the floor.

    python benchmarks/triton_kernels.py benchmarks/results/triton_kernels_h200.json

Needs a GPU, CuPy and Triton. Times are medians of one launch in a CUDA graph with a cold L2 cache.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from concurrent.futures import wait
from math import prod
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "tactics")]

from product_bodies import Attention, Convolution, Linear, mobilenet_depthwise, resnet50  # noqa: E402

from workbench.body import Body  # noqa: E402
from workbench.config import BuilderConfig  # noqa: E402
from workbench.datatypes import DataType  # noqa: E402
from workbench.devices import open_device  # noqa: E402
from workbench.gpu_device import gpu_of  # noqa: E402
from workbench.lab.ceilings import Ceilings, measure_ceilings  # noqa: E402
from workbench.records import Refusal  # noqa: E402
from workbench.sampling import sample_inputs  # noqa: E402
from workbench.selection.candidates import Workshop  # noqa: E402
from workbench.tactics.launch import bind  # noqa: E402
from workbench.tactics.protocol import Problem, Tactic  # noqa: E402
from workbench.tactics.triton import TRITON  # noqa: E402
from workbench.timing import TimingCache, measure  # noqa: E402

HALF, INT8, FP8 = DataType.HALF, DataType.INT8, DataType.FP8
Layer = Convolution | Linear | Attention


def layers() -> list[Layer]:
    """What is timed."""
    found: list[Layer] = [*resnet50(32, HALF), *resnet50(32, INT8)]
    for kind in (HALF, INT8, FP8):
        found += [
            Linear(4096, 768, 768, kind, True),
            Linear(4096, 768, 3072, kind, activation="Gelu"),
            Linear(4096, 3072, 768, kind, True),
        ]
    found += [Linear(4096, 768, 2304), *mobilenet_depthwise(32, HALF)]
    return [*found, Attention(32, 12, 128, 64), Attention(1, 12, 128, 64)]


def moved_bytes(body: Body) -> int:
    """What must cross the memory's border: each input and output once."""
    types = [i.type for i in body.inputs] + list(body.output_types)
    return sum(prod(t.shape) * t.dtype.itemsize for t in types)


def timed(
    layer: Layer,
    problem: Problem,
    tactics: list[Tactic],
    values: dict[str, Any],
    stream: Any,
    ceilings: Ceilings,
) -> dict[str, Any]:
    """One row of the table. floor_us: the time that the memory does not allow to undercut."""
    body, device = problem.body, problem.device
    best, found = float("inf"), list[tuple[float, float, str]]()
    refused: list[str] = []
    for tactic in tactics:
        call = TRITON.prepare(tactic, problem)
        if isinstance(call, Refusal):
            refused.append(f"{tactic.name}: {call}")
            continue
        bound = bind(call, tactic, problem, stream)
        bound.write({i.name: values[i.name] for i in body.dynamic_inputs}, stream)
        timing = measure(bound.launch, device, iterations=10, best_us=best, stream=stream)
        best = min(best, timing.median_us)
        found.append((timing.median_us, timing.spread_us, tactic.name))
    order = [name for _, _, name in found]
    found.sort()
    us, spread, name = found[0]
    return {
        "layer": layer.title,
        "type": layer.kind.info.label,
        "us": round(us, 2),
        "spread_us": round(spread, 2),
        "floor_us": round(moved_bytes(body) / ceilings.bytes_per_s * 1e6, 2),
        "tflops": round(layer.flops / us / 1e6, 1),
        "gb_per_s": round(moved_bytes(body) / us / 1e3, 1),
        "tactic": name,
        "place_in_offer": order.index(name),
        "refused": refused,
        "all": {n: round(t, 2) for t, _, n in found},
    }


def main() -> None:
    """Time everything, print a table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    output: Path = parser.parse_args().output
    device = gpu_of(open_device("gpu"))
    ceilings = measure_ceilings(device, ())
    shop = Workshop(device, BuilderConfig(), TimingCache(device.fingerprint))
    stream = device.stream()
    started: list[Any] = []
    work: list[tuple[Layer, Problem, list[Tactic], dict[str, Any]]] = []
    begin = time.perf_counter()
    for layer in layers():
        body = layer.body()
        values = sample_inputs(body, seed=0)
        problem = shop.problem(body, {i.name: values[i.name] for i in body.inputs if i.constant})
        tactics = [t for t in TRITON.candidates(problem) if not isinstance(t, Refusal)]
        started += TRITON.precompile(problem, tactics)
        work.append((layer, problem, tactics, values))
    wait(started)
    seconds = time.perf_counter() - begin
    print(f"{len(started)} kernels compiled in {seconds:.0f} s")
    rows: list[dict[str, Any]] = []
    for layer, problem, tactics, values in work:
        row = timed(layer, problem, tactics, values, stream, ceilings)
        rows.append(row)
        print(
            f"{row['layer']:45} {row['type']:5} {row['us']:8.1f} us, floor {row['floor_us']:7.1f}"
            f" {row['tflops']:6.0f} TFLOP/s {row['gb_per_s']:6.0f} GB/s  #{row['place_in_offer']}"
            f" {row['tactic']}",
            flush=True,
        )
    table = {
        "device": str(device),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "triton": TRITON.version,
        "cupy": device.cupy.__version__,
        "kernels_compiled": len(started),
        "compile_seconds": round(seconds, 1),
        "method": "median of 10 launches, each a CUDA graph, with a cold L2 cache",
        "bytes_per_s": round(ceilings.bytes_per_s),
        "rows": rows,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
