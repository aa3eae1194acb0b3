"""``workbench run``: run a plan file, print its outputs' shapes and its profile."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from workbench.cli.text import say, table
from workbench.datatypes import DataType
from workbench.files import read_npz
from workbench.reports import profile_rows
from workbench.runtime import Engine, ExecutionContext, Pipeline, Runtime

NAME = "run"
WARM_UP = 6
"""Batches before any is timed: a GPU's graphs are recorded when addresses come again."""
HELP = "run a plan file and print a per-layer profile"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``workbench run``."""
    parser.add_argument("plan", help="a plan file")
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:<index>")
    parser.add_argument("--inputs", metavar="NPZ", help="arrays by input name; default: random")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument(
        "--batches", type=int, default=0, help="also run so many batches one by one and pipelined"
    )


def main(options: argparse.Namespace) -> int:
    """Outputs' shapes and the profile of one plan."""
    engine = Runtime(options.device).deserialize(options.plan)
    say(f"Device: {engine.device}")
    for note in engine.notes:
        say(f"Note: {note}")
    if options.inputs:
        inputs = read_npz(Path(options.inputs))
    else:
        inputs = random_inputs(engine)
        say("Inputs: random (seed 0), at the profile's opt shapes")
    context = engine.create_execution_context()
    for name, array in context.run(inputs).items():
        say(f"output {name}: {array.dtype}{list(array.shape)}")
    profile = context.profile(inputs, iterations=options.iterations)
    columns = ["Layer", "Executed", "Kernel", "Median (µs)", "σ (µs)", "Share (%)"]
    say(table(profile_rows(profile), columns))
    remark = f"; {profile.remark}" if profile.remark else ""
    say(
        f"end to end: median {profile.end_to_end_us:.1f} µs, "
        f"min {profile.end_to_end_min_us:.1f} µs{remark}"
    )
    if options.batches > 0:
        one_by_one, pipelined = batch_times(context, inputs, options.batches)
        say(
            f"{options.batches} batches of host arrays: {1e3 * one_by_one:.3f} ms each one by one, "
            f"{1e3 * pipelined:.3f} ms each pipelined"
        )
    return 0


def batch_times(
    context: ExecutionContext, inputs: dict[str, np.ndarray], batches: int
) -> tuple[float, float]:
    """Seconds a batch, copies included: run by run, and through a Pipeline."""
    pipeline = Pipeline(context)
    for _ in pipeline.run([inputs] * WARM_UP):
        context.run(inputs)
    start = time.perf_counter()
    for _ in range(batches):
        context.run(inputs)
    middle = time.perf_counter()
    for _ in pipeline.run([inputs] * batches):
        pass
    return (middle - start) / batches, (time.perf_counter() - middle) / batches


def random_inputs(engine: Engine) -> dict[str, np.ndarray]:
    """Inputs at the first profile's opt shapes: normal floats, zeros for other types."""
    rng = np.random.default_rng(0)
    inputs: dict[str, np.ndarray] = {}
    for t in engine.io_tensors:
        if t.kind == "input":
            shape = engine.get_tensor_profile_shape(t.name, 0)[1]
            drawn = rng.standard_normal(shape) if t.type.dtype.is_float else np.zeros(shape)
            inputs[t.name] = drawn.astype(DataType.of(t.type.dtype).numpy)
    return inputs
