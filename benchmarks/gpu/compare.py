"""Ours and its peers on the same model, weights and inputs, interleaved, each in one CUDA graph.

    python benchmarks/gpu/compare.py OUT.json resnet50:32:fp16 [--models FOLDER] [--peers eager]

A job is ``model:batch:type``; types: fp16, bf16, fp32, tf32, int8, fp8. One job a process, so that
no candidate finds what another left behind; ``table.py`` joins their files and writes the page.
One row a candidate: median, minimum and spread of the GPU's time for a whole run (inputs and
outputs on the device), and the relative L2 error against PyTorch in float32. What fails has a row
that says why, and the exit status is 1.
Candidates: ``workbench``, which reads and writes float32 and computes in the type; ``eager``,
PyTorch's eager mode; ``compile``, ``torch.compile`` in its mode max-autotune, frozen where that
works; ``onnxruntime``, ONNX Runtime where it is installed for CUDA. The peers run the module in
TYPES, never quantized: ask for none in INT8 and FP8, where FP16's serve.
INT8 (percentile) and FP8 (min-max) are calibrated on the first FEW items, and written as Q/DQ;
``error_of_same_graph`` is the distance of these items to that graph's NumPy reference, and
``sensitivity_of_graph`` that reference's own change when it rounds otherwise.
--models keeps each exported model in a folder, for the jobs that follow. --device cpu rehearses a
job without a GPU: every step but CUDA graphs, times that mean nothing.
Needs: torch, onnxscript, cupy, and the extra ``gpu``.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from models import MODELS, export, make
from peers import PEERS, peer, runnable
from places import PLACES, Place, Replay
from quantized import PRECISIONS, calibrated, config_for, distance
from torch import Tensor, nn

import workbench as wb
from workbench.builder import BuildState, run_stages, start
from workbench.config import BuilderConfig
from workbench.files import write_atomically
from workbench.records import StageRecord

TYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "int8": torch.float16,
    "fp8": torch.float16,
}
"""In what PyTorch runs beside a precision of ours."""
FEW = 4
Row = dict[str, Any]


class Job:
    """One model, batch and type: its module, inputs, the float32 output, and exported files."""

    def __init__(self, text: str, folder: Path, place: Place) -> None:
        self.model, batch, self.kind = text.split(":")
        self.batch, self.folder, self.place = int(batch), folder, place
        module, given = make(self.model, self.batch)
        self.module = module.to(place.name)
        self.inputs = {n: t.to(place.name) for n, t in given.items()}
        # The float32 reference rounds nothing to TF32.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        with torch.no_grad():
            self.exact: Tensor = self.module(*self.inputs.values())

    @property
    def convolutional(self) -> bool:
        return MODELS[self.model].convolutional

    def first(self, count: int) -> dict[str, Tensor]:
        """The first items of the input."""
        return {n: t[:count].contiguous() for n, t in self.inputs.items()}

    def exported(self, count: int) -> Path:
        """The ONNX file of a batch size, written if it is not there."""
        path = self.folder / f"{self.model}_{count}.onnx"
        if not path.exists():
            own = self.folder / f"{self.model}_{count}_{self.kind}.onnx"
            module = self.module
            if count != self.batch:
                module = make(self.model, self.batch)[0].to(self.place.name)
            export(module, self.first(count), MODELS[self.model].output, own)
            own.replace(path)  # jobs side by side may share the folder
        return path

    def row(self, who: str, **facts: Any) -> Row:
        return {"model": self.model, "batch": self.batch, "type": self.kind, "who": who, **facts}


class Ours:
    """The workbench's engine of a job, on PyTorch's tensors."""

    def __init__(self, job: Job, level: int) -> None:
        self.job = job
        path, precision = job.exported(job.batch), PRECISIONS[job.kind]
        config = config_for(path, precision, level=level, convolutional=job.convolutional)
        self.facts: Row = {}
        self.quantized, self.few = None, min(FEW, job.batch)
        if precision.quantized:
            begun = time.perf_counter()
            given = {n: t.cpu().numpy() for n, t in job.first(self.few).items()}
            self.quantized = calibrated(job.exported(self.few), config, precision, given)
            self.facts["calibrator"] = config.calibrator.value
            self.facts["calibration_s"] = round(time.perf_counter() - begun, 1)
        self.state = self._built(path, config, "build_s")
        again = config.clone()
        again.timing_cache = self.state.cache
        self._built(path, again, "warm_build_s")
        assert self.state.plan_bytes is not None
        begun = time.perf_counter()
        device = "gpu" if job.place.name == "cuda" else "cpu"
        self.engine = wb.Runtime(device).deserialize(self.state.plan_bytes)
        self.facts["load_ms"] = round(1e3 * (time.perf_counter() - begun))
        self.facts["steps"] = dict(Counter(s.tactic.source for s in self.engine.plan.steps))
        self.context = self.engine.create_execution_context()
        self.output = torch.empty_like(job.exact)
        self._bind()

    def _built(self, path: Path, config: BuilderConfig, key: str) -> BuildState:
        begun = time.perf_counter()
        state = start(path, config, device="gpu" if self.job.place.name == "cuda" else "cpu")
        ranges = self.quantized.ranges if self.quantized else None
        state = run_stages(replace(state, calibration=ranges), tell=_told)
        self.facts[key] = round(time.perf_counter() - begun, 2)
        return state

    def _bind(self) -> None:
        names = [t.name for t in self.engine.io_tensors]
        if self.job.place.name == "cuda":
            given = [*self.job.inputs.values(), self.output]
            for name, tensor in zip(names, given, strict=True):
                self.context.set_tensor_address(name, tensor)

    def __call__(self) -> None:
        if self.job.place.name == "cuda":
            self.context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        else:
            (found,) = self.context.run({n: t.numpy() for n, t in self.job.inputs.items()}).values()
            self.output.copy_(torch.from_numpy(found))

    def distances(self) -> Row:
        """Once it has run: how far the quantized graph's reference is."""
        if self.quantized is None:
            return {}
        found = self.output[: self.few].cpu().numpy()
        return {
            "error_of_same_graph": distance(found, self.quantized.output),
            "sensitivity_of_graph": self.quantized.sensitivity,
            "reference_batch": self.few,
        }


def _told(record: StageRecord) -> None:
    print(f"    {record.stage.value:<10} {record.seconds:6.2f} s  {record.summary}", flush=True)


def error(found: Tensor, exact: Tensor) -> float:
    """Relative L2 distance."""
    a, b = found.double(), exact.double()
    return float((a - b).norm() / b.norm())


def compare(job: Job, options: Any) -> list[Row]:
    """The rows of a job."""
    runs: dict[str, Replay] = {}
    outputs: dict[str, Tensor] = {}
    facts: dict[str, Row] = {}
    rows: list[Row] = []
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = job.kind == "tf32"
    try:
        ours = Ours(job, options.level)
        ours()
        if job.place.name == "cuda":
            torch.cuda.synchronize()
        runs["workbench"], outputs["workbench"] = ours, ours.output
        facts["workbench"] = ours.facts | ours.distances()
        if options.layers:
            print_slowest(ours.state, options.layers)
    except Exception as e:
        traceback.print_exc()
        rows.append(job.row("workbench", failed=f"{type(e).__name__}: {e}"))
    module, given = _for_peers(job)
    for who in options.peers:
        try:
            runs[who], outputs[who], facts[who] = peer(who, module, given, job.place)
        except Exception as e:
            traceback.print_exc()
            rows.append(job.row(who, failed=f"{type(e).__name__}: {str(e)[:400]}"))
    for who, samples in job.place.timed(runs).items():
        row = job.row(
            who,
            median_us=round(statistics.median(samples), 1),
            min_us=round(min(samples), 1),
            spread_us=round(statistics.pstdev(samples), 1),
            error=error(outputs[who], job.exact),
            **facts[who],
        )
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def _for_peers(job: Job) -> tuple[nn.Module, list[Tensor]]:
    """The module and its inputs in PyTorch's type and layout."""
    kind = TYPES[job.kind]
    layout = torch.channels_last if job.convolutional else torch.contiguous_format
    module = copy.deepcopy(job.module).to(kind).to(memory_format=layout)
    given = [t.to(kind) if t.is_floating_point() else t for t in job.inputs.values()]
    torch.backends.cudnn.benchmark = True
    return module, [t.to(memory_format=layout) if t.dim() == 4 else t for t in given]


def print_slowest(state: BuildState, count: int) -> None:
    """The layers that took longest when they were tuned, each kind once with how many there are."""
    assert state.tuned is not None
    kinds: dict[tuple[str, str], list[float]] = {}
    for c in state.tuned.layers:
        if c.winner.timing is not None:
            fused = state.network.layer(c.layer)
            work = f"{'+'.join(fused.operator_names)} -> {fused.outputs[0].type}"
            kinds.setdefault((work, c.winner.title), []).append(c.winner.timing.median_us)
    print(f"    {sum(map(sum, kinds.values())):8.1f} us, the sum of {len(state.tuned.layers)}")
    ranked = sorted(kinds.items(), key=lambda item: -sum(item[1]))
    for (work, title), times in ranked[:count]:
        print(f"    {sum(times):8.1f} us  {len(times):2d}x {work[-90:]:<90} {title[:80]}")
    for r in state.tuned.reformats:
        print(f"    reformat {r}"[:160])


def save(options: Any, place: Place, rows: list[Row]) -> None:
    """Write the rows: after each job, so that a run that is stopped leaves what it measured."""
    facts = place.facts()
    versions = {**facts.pop("versions"), "inference-workbench": wb.__version__}  # pyright: ignore
    table = {
        **facts,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions,
        "protocol": {
            "builder_optimization_level": options.level,
            "rounds": place.rounds,
            "runs_a_round": place.runs,
        },
        "rows": rows,
    }
    write_atomically(options.out, (json.dumps(table, indent=1) + "\n").encode())


def main() -> int:
    """Run every job and write the rows. Exit status: 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("jobs", nargs="+", help="model:batch:type")
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="by default all that run here")
    parser.add_argument("--level", type=int, default=3, help="builder_optimization_level")
    parser.add_argument("--layers", type=int, default=0, help="print so many slowest layers")
    parser.add_argument("--models", type=Path, help="a folder that keeps exported models")
    parser.add_argument("--device", default="cuda", choices=tuple(PLACES))
    options = parser.parse_args()
    place, rows = PLACES[options.device](), list[Row]()
    if options.peers is None:
        options.peers = runnable(place)
    with tempfile.TemporaryDirectory() as own:
        folder = options.models or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        for text in options.jobs:
            print(text, flush=True)
            try:
                rows += compare(Job(text, folder, place), options)
            except Exception as e:
                traceback.print_exc()
                name, batch, kind = text.split(":")
                about = {"model": name, "batch": int(batch), "type": kind}
                rows.append({**about, "who": "all", "failed": f"{type(e).__name__}: {e}"})
            save(options, place, rows)
    return int(any("failed" in r for r in rows))


if __name__ == "__main__":
    sys.exit(main())
