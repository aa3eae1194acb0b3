"""One engine on one model, alone in a process: loads, then times bursts when it is asked.

    python candidates.py ENGINE MODEL-FILE THREADS TYPE INPUTS.npz OUTPUTS.npz

INPUTS.npz has each array under its name, a dot and the number of its draw. All draws run once, for
their outputs; the first is timed. Prints a line of JSON once it is loaded, and one for each line
that it reads: a number of nanoseconds to spend, or ``quit``. Nothing but what the engine itself
needs is imported.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
Run = Callable[[], object]
Outputs = Callable[[], Arrays]
"""A run, and copies of its outputs."""


def workbench(path: Path, inputs: Arrays, threads: int, kind: str) -> tuple[Run, Outputs]:
    """Our engine of a plan file, through ``execute_v2`` on the caller's arrays."""
    from workbench.runtime import Runtime

    engine = Runtime("cpu").deserialize(path, verify="lazy")
    if engine.plan.threads != threads:
        raise ValueError(f"the plan is for {engine.plan.threads} threads, not {threads}")
    context = engine.create_execution_context()
    outputs: Arrays = {}
    for name, array in inputs.items():
        context.set_input_shape(name, array.shape)
    for t in engine.io_tensors:
        if t.kind == "output":
            outputs[t.name] = np.zeros(context.get_tensor_shape(t.name), t.type.dtype.numpy)
    places = [inputs.get(t.name, outputs.get(t.name)) for t in engine.io_tensors]
    addresses = [a.ctypes.data for a in places if a is not None]

    def copies() -> Arrays:
        context.execute_v2(addresses)
        return {n: a.copy() for n, a in outputs.items()}

    return lambda: context.execute_v2(addresses), copies


def onnxruntime(path: Path, inputs: Arrays, threads: int, kind: str) -> tuple[Run, Outputs]:
    """ONNX Runtime's CPU provider, at its highest level of optimization, by ``run``.

    In INT8 without its fusion of MatMul and Add to Gemm: it has no quantized Gemm of such a form,
    would dequantize every weight at each run (seen with 1.31: BERT and ViT 3 to 5 times slower).
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    first = next(iter(inputs.values()))
    options.add_free_dimension_override_by_name("batch", first.shape[0])
    if "input_ids" in inputs:
        options.add_free_dimension_override_by_name("tokens", first.shape[1])
    session = ort.InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["MatMulAddFusion"] if kind == "int8" else [],
    )
    names = [o.name for o in session.get_outputs()]
    used = {i.name for i in session.get_inputs()}
    given = {n: a for n, a in inputs.items() if n in used}
    run = session.run

    def outputs() -> Arrays:
        found = run(None, given)
        return {n: np.asarray(a) for n, a in zip(names, found, strict=True)}

    return lambda: run(None, given), outputs


def openvino(path: Path, inputs: Arrays, threads: int, kind: str) -> tuple[Run, Outputs]:
    """OpenVINO's CPU plugin, for latency, by ``infer`` on tensors shared with the caller."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    model.reshape({n: list(a.shape) for n, a in inputs.items()})
    hint = "bf16" if kind == "bf16" else "f32"
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": hint,
        },
    )
    request = compiled.create_infer_request()
    for name, array in inputs.items():
        request.set_tensor(name, ov.Tensor(array, shared_memory=True))

    def outputs() -> Arrays:
        request.infer()
        return {o.any_name: request.get_output_tensor(k).data.copy() for k, o in numbered}

    numbered = list(enumerate(compiled.outputs))
    return request.infer, outputs


ENGINES = {"workbench": workbench, "onnxruntime": onnxruntime, "openvino": openvino}


def draw_of(stored: Mapping[str, Any], draw: int) -> Arrays:
    """One draw's inputs by name; only these are read."""
    end = f".{draw}"
    return {k.removesuffix(end): np.ascontiguousarray(stored[k]) for k in stored if k.endswith(end)}


def outputs_of_all(stored: Mapping[str, Any], inputs: Arrays, outputs: Outputs) -> Arrays:
    """Every draw's outputs, as ``stored`` names its inputs; each engine reads ``inputs``."""
    found: Arrays = {}
    draws = {int(k.rpartition(".")[2]) for k in stored}
    for draw in sorted(draws, reverse=True):  # the first is timed: it stays
        for name, array in draw_of(stored, draw).items():
            inputs[name][...] = array
        found |= {f"{n}.{draw}": a for n, a in outputs().items()}
    return found


def memory_bytes() -> dict[str, int]:
    """Resident memory of this process now, and its peak since it was last forgotten."""
    status = Path("/proc/self/status").read_text().splitlines()
    values = {x.split(":")[0]: x.split()[1] for x in status if x.startswith("Vm")}
    return {"resident": int(values["VmRSS"]) << 10, "peak": int(values["VmHWM"]) << 10}


def forget_peak() -> None:
    """Let the peak begin anew at what is resident now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def burst(run: Run, budget_ns: int) -> list[int]:
    """Nanoseconds of single runs, after one that is not counted; one at least."""
    clock = time.perf_counter_ns
    run()
    samples: list[int] = []
    end = clock() + budget_ns
    while not samples or clock() < end:
        start = clock()
        run()
        samples.append(clock() - start)
    return samples


def main() -> None:
    """Load, write the outputs, and answer until there is nothing more to read."""
    engine, path, threads, kind, given, target = sys.argv[1:]
    stored = np.load(given)
    inputs = draw_of(stored, 0)
    start = time.perf_counter()
    run, outputs = ENGINES[engine](Path(path), inputs, int(threads), kind)
    loaded = time.perf_counter() - start
    after_load = memory_bytes()
    run()
    forget_peak()
    run()
    facts = {"load_s": round(loaded, 3), "load_peak": after_load["peak"], **memory_bytes()}
    np.savez(target, allow_pickle=False, **outputs_of_all(stored, inputs, outputs))
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        if line.strip() == "quit":
            break
        print(json.dumps(burst(run, int(line))), flush=True)


if __name__ == "__main__":
    main()
