"""Where a comparison runs: a GPU, one CUDA graph a candidate, or the host, to rehearse a job."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

ROUNDS, RUNS = 15, 10
Replay = Callable[[], None]


class Place(Protocol):
    """A device of PyTorch's and ours. name: what both call it. rounds, runs: of each timing."""

    name: str
    rounds: int
    runs: int

    def captured(self, module: nn.Module, inputs: list[Tensor]) -> tuple[Replay, Tensor]:
        """A module's run, and its output."""
        ...

    def timed(self, candidates: dict[str, Replay]) -> dict[str, list[float]]:
        """Microseconds of single runs, the candidates taking turns."""
        ...

    def facts(self) -> dict[str, object]:
        """Device, driver and versions, for the table."""
        ...


class Gpu:
    """The current CUDA device."""

    name = "cuda"
    rounds, runs = ROUNDS, RUNS

    def captured(self, module: nn.Module, inputs: list[Tensor]) -> tuple[Replay, Tensor]:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(3):
                module(*inputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            output = module(*inputs)
        return graph.replay, output

    def timed(self, candidates: dict[str, Replay]) -> dict[str, list[float]]:
        samples: dict[str, list[float]] = {n: [] for n in candidates}
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for run in candidates.values():
                for _ in range(5):
                    run()
            for _ in range(self.rounds):
                for name, run in candidates.items():
                    run()
                    pairs = [
                        [torch.cuda.Event(enable_timing=True) for _ in "ab"]
                        for _ in range(self.runs)
                    ]
                    for begin, end in pairs:
                        begin.record()
                        run()
                        end.record()
                    stream.synchronize()
                    samples[name] += [1e3 * a.elapsed_time(b) for a, b in pairs]
        return samples

    def facts(self) -> dict[str, object]:
        import cupy
        import triton

        (driver,) = told_by_driver("driver_version")
        return {
            "device": torch.cuda.get_device_name(),
            "driver": driver,
            "versions": {
                "torch": torch.__version__,
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
                "triton": triton.__version__,
                "cupy": cupy.__version__,
            },
        }


def query(*fields: str) -> list[str]:
    """nvidia-smi's command for fields of PyTorch's current GPU, which it may number otherwise."""
    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    asked = f"--query-gpu={','.join(fields)}"
    return ["nvidia-smi", f"--id=GPU-{uuid}", asked, "--format=csv,noheader,nounits"]


def told_by_driver(*fields: str) -> list[str]:
    """Their values now."""
    told = subprocess.run(query(*fields), capture_output=True, text=True, check=True)
    return [value.strip() for value in told.stdout.split(",")]


class Host:
    """The CPU: every step of a job but for CUDA graphs; its times say nothing about a GPU."""

    name = "cpu"
    rounds, runs = 2, 1

    def captured(self, module: nn.Module, inputs: list[Tensor]) -> tuple[Replay, Tensor]:
        def run() -> None:
            with torch.no_grad():
                output.copy_(module(*inputs))

        with torch.no_grad():
            output = module(*inputs).clone()
        return run, output

    def timed(self, candidates: dict[str, Replay]) -> dict[str, list[float]]:
        samples: dict[str, list[float]] = {n: [] for n in candidates}
        for _ in range(self.rounds * self.runs):
            for name, run in candidates.items():
                start = time.perf_counter()
                run()
                samples[name].append(1e6 * (time.perf_counter() - start))
        return samples

    def facts(self) -> dict[str, object]:
        return {"device": "CPU (a rehearsal)", "versions": {"torch": torch.__version__}}


PLACES: dict[str, type[Gpu] | type[Host]] = {"cuda": Gpu, "cpu": Host}
