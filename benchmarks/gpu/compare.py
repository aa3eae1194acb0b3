"""Ours and PyTorch on the same model, weights and inputs, interleaved, each in one CUDA graph.

    python benchmarks/gpu/compare.py OUT.json resnet50:32:int8 bert:1 [--types fp16 bf16]

One row a model, batch, precision and candidate: median, minimum and spread of the GPU's time for a
whole run (inputs and outputs on the device), and the relative L2 error against PyTorch in float32.
What fails has a row that says why, and the exit status is 1. A job without a precision runs in each
of ``--types``: fp16, bf16, fp32, tf32, int8, fp8.
Candidates: ``workbench``, which reads and writes float32 and computes in the type; ``eager``,
PyTorch's eager mode; ``compile``, ``torch.compile`` in its mode max-autotune. PyTorch has no INT8
or FP8 of its own for these models: its rows are FP16's there.
INT8 and FP8 are calibrated (min-max) on the input, and written as Q/DQ; ``error_of_same_graph`` is
the distance to that graph's NumPy reference: of the whole batch, or of its first
REFERENCE_BATCH, which are computed from the model exported at that batch with the same ranges.
Needs: torch, onnxscript, cupy, and the extra ``gpu``.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from models import MODELS, export, make
from quantized import PRECISIONS, config_for, distance, reference
from torch import Tensor, nn

import workbench as wb
from workbench.builder import build
from workbench.files import write_atomically

TYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "int8": torch.float16,
    "fp8": torch.float16,
}
"""In what PyTorch runs beside a precision of ours."""
ROUNDS, RUNS = 15, 10
REFERENCE_BATCH = 2
Replay = Callable[[], None]


def captured(module: nn.Module, inputs: list[Tensor]) -> tuple[Replay, Tensor]:
    """A module's run as one CUDA graph, and its output."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            module(*inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        output = module(*inputs)
    return graph.replay, output


def compiled(module: nn.Module) -> nn.Module:
    """``torch.compile`` in its mode max-autotune; the graph is captured here, not by it."""
    torch._dynamo.reset()
    return torch.compile(module, mode="max-autotune-no-cudagraphs")


class Ours:
    """The workbench's engine of an ONNX file, on PyTorch's tensors."""

    def __init__(
        self,
        path: Path,
        inputs: dict[str, Tensor],
        output: Tensor,
        kind: str,
        level: int,
        *,
        convolutional: bool,
    ) -> None:
        precision = PRECISIONS[kind]
        config = config_for(path, precision, level=level, convolutional=convolutional)
        data = [{n: t.cpu().numpy() for n, t in inputs.items()}] if precision.quantized else None
        start = time.perf_counter()
        self.state = build(
            path,
            config,
            device="gpu",
            calibration=data,
            tell=lambda r: print(
                f"    {r.stage.value:<10} {r.seconds:6.2f} s  {r.summary}", flush=True
            ),
        )
        self.seconds = time.perf_counter() - start
        again = config.clone()
        again.timing_cache = self.state.cache
        start = time.perf_counter()
        build(path, again, device="gpu", calibration=data)
        self.warm_seconds = time.perf_counter() - start
        assert self.state.plan_bytes is not None
        start = time.perf_counter()
        self.engine = wb.Runtime("gpu").deserialize(self.state.plan_bytes)
        self.load_seconds = time.perf_counter() - start
        self.context = self.engine.create_execution_context()
        names = [t.name for t in self.engine.io_tensors]
        self.output = output
        for name, tensor in zip(names, [*inputs.values(), output], strict=True):
            self.context.set_tensor_address(name, tensor)

    def __call__(self) -> None:
        self.context.execute_async_v3(torch.cuda.current_stream().cuda_stream)


def timed(candidates: dict[str, Replay]) -> dict[str, list[float]]:
    """Microseconds of single runs, the candidates taking turns."""
    samples: dict[str, list[float]] = {n: [] for n in candidates}
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for run in candidates.values():
            for _ in range(5):
                run()
        for _ in range(ROUNDS):
            for name, run in candidates.items():
                run()
                pairs = [[torch.cuda.Event(enable_timing=True) for _ in "ab"] for _ in range(RUNS)]
                for begin, end in pairs:
                    begin.record()
                    run()
                    end.record()
                stream.synchronize()
                samples[name] += [1e3 * a.elapsed_time(b) for a, b in pairs]
    return samples


def error(found: Tensor, exact: Tensor) -> float:
    """Relative L2 distance."""
    a, b = found.double(), exact.double()
    return float((a - b).norm() / b.norm())


def compare(name: str, batch: int, kind: str, options: Any) -> list[dict[str, Any]]:
    """The rows of one model, batch and type."""
    model = MODELS[name]
    module, given = make(name, batch)
    module = module.cuda()
    inputs = {n: t.cuda() for n, t in given.items()}
    # The float32 reference rounds nothing to TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        exact = module(*inputs.values())
    half = copy.deepcopy(module).to(TYPES[kind])
    cast = {n: t.to(TYPES[kind]) if t.is_floating_point() else t for n, t in inputs.items()}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = kind == "tf32"
    runs: dict[str, Replay] = {}
    outputs: dict[str, Tensor] = {}
    facts: dict[str, dict[str, Any]] = {}
    output = torch.empty_like(exact)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        export(module, inputs, model.output, path)
        try:
            convolutional = model.convolutional
            ours = Ours(path, inputs, output, kind, options.level, convolutional=convolutional)
            ours()
            torch.cuda.synchronize()
            runs["workbench"], outputs["workbench"] = ours, output
            steps = Counter(s.tactic.source for s in ours.engine.plan.steps)
            facts["workbench"] = {
                "build_s": round(ours.seconds, 1),
                "warm_build_s": round(ours.warm_seconds, 2),
                "load_ms": round(1e3 * ours.load_seconds),
                "steps": dict(steps),
            }
            if options.layers:
                alone = statistics.median(timed({"workbench": ours})["workbench"])
                print(f"    {alone:8.1f} us alone")
                print_slowest(ours, options.layers)
            if PRECISIONS[kind].quantized:
                facts["workbench"] |= same_graph(name, batch, ours, inputs, output, Path(folder))
        except Exception as e:
            traceback.print_exc()
            rows.append(_failed(name, batch, kind, "workbench", e))
    layout = torch.channels_last if model.convolutional else torch.contiguous_format
    half = half.to(memory_format=layout)
    peers = [t.to(memory_format=layout) if t.dim() == 4 else t for t in cast.values()]
    torch.backends.cudnn.benchmark = True
    makers = {"eager": lambda: half, "compile": lambda: compiled(half)}
    for peer, maker in makers.items():
        if peer in options.peers:
            start = time.perf_counter()
            runs[peer], outputs[peer] = captured(maker(), peers)
            facts[peer] = {"build_s": round(time.perf_counter() - start, 1)}
    for who, samples in timed(runs).items():
        row = {
            "model": name,
            "batch": batch,
            "type": kind,
            "who": who,
            "median_us": round(statistics.median(samples), 1),
            "min_us": round(min(samples), 1),
            "spread_us": round(statistics.pstdev(samples), 1),
            "error": error(outputs[who], exact),
            **facts.get(who, {}),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def print_slowest(ours: Ours, count: int) -> None:
    """The layers that took longest when they were tuned, each kind once with how many there are."""
    assert ours.state.tuned is not None
    kinds: dict[tuple[str, str], list[float]] = {}
    for c in ours.state.tuned.layers:
        if c.winner.timing is not None:
            fused = ours.state.network.layer(c.layer)
            work = f"{'+'.join(fused.operator_names)} -> {fused.outputs[0].type}"
            kinds.setdefault((work, c.winner.title), []).append(c.winner.timing.median_us)
    print(f"    {sum(map(sum, kinds.values())):8.1f} us, the sum of {len(ours.state.tuned.layers)}")
    ranked = sorted(kinds.items(), key=lambda item: -sum(item[1]))
    for (work, title), times in ranked[:count]:
        print(f"    {sum(times):8.1f} us  {len(times):2d}x {work[-90:]:<90} {title[:80]}")


def same_graph(
    name: str, batch: int, ours: Ours, inputs: dict[str, Tensor], output: Tensor, folder: Path
) -> dict[str, Any]:
    """Distance of our output to the NumPy reference of the same Q/DQ graph, and of how many items.

    The reference's items have no influence on each other: a part of the batch says as much.
    """
    few = min(batch, REFERENCE_BATCH)
    part = {n: t[:few].contiguous() for n, t in inputs.items()}
    path = folder / "few.onnx"
    export(make(name, batch)[0].cuda(), part, MODELS[name].output, path)
    start = time.perf_counter()
    exact = reference(ours.state, path, {n: t.cpu().numpy() for n, t in part.items()})
    seconds = time.perf_counter() - start
    return {
        "error_of_same_graph": distance(output[:few].cpu().numpy(), exact),
        "reference_batch": few,
        "reference_s": round(seconds, 1),
    }


def _failed(name: str, batch: int, kind: str, who: str, error: Exception) -> dict[str, Any]:
    reason = f"{type(error).__name__}: {error}"
    return {"model": name, "batch": batch, "type": kind, "who": who, "failed": reason}


def driver_version() -> str:
    """The NVIDIA driver's own version, as nvidia-smi tells it."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def save(options: Any, rows: list[dict[str, Any]]) -> None:
    """Write the table: after each job, so that a run that is stopped leaves what it measured."""
    import cupy
    import triton

    table = {
        "device": torch.cuda.get_device_name(),
        "driver": driver_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "triton": triton.__version__,
            "cupy": cupy.__version__,
            "inference-workbench": wb.__version__,
        },
        "protocol": {
            "builder_optimization_level": options.level,
            "peers": options.peers,
            "rounds": ROUNDS,
            "runs_a_round": RUNS,
        },
        "rows": rows,
    }
    write_atomically(options.out, (json.dumps(table, indent=1) + "\n").encode())


def main() -> int:
    """Run every job and write the rows. Exit status: 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("jobs", nargs="+", help="model:batch[:precision]")
    parser.add_argument("--types", nargs="+", default=["fp16"], choices=tuple(TYPES))
    parser.add_argument("--peers", nargs="*", default=["eager", "compile"])
    parser.add_argument("--level", type=int, default=3, help="builder_optimization_level")
    parser.add_argument("--layers", type=int, default=0, help="print so many slowest layers")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for job in options.jobs:
        name, batch, *given = job.split(":")
        for kind in given or options.types:
            print(f"{name} b{batch} {kind}", flush=True)
            try:
                rows += compare(name, int(batch), kind, options)
            except Exception as e:
                traceback.print_exc()
                rows.append(_failed(name, int(batch), kind, "peers", e))
            save(options, rows)
    return int(any("failed" in r for r in rows))


if __name__ == "__main__":
    sys.exit(main())
