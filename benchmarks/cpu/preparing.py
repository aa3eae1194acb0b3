"""What the candidates need, made in a process of its own: Q/DQ models and plans.

    python preparing.py exact MODEL FOLDER OUT.npz
    python preparing.py qdq MODEL FOLDER OUT.onnx
    python preparing.py plan MODEL.onnx BATCH-MODEL TYPE THREADS CACHE OUT.plan

``exact`` runs every draw in float64, layer by layer, on the reference. ``qdq`` calibrates, and
exports the network with its QuantizeLinear and DequantizeLinear before fusing: one file for every
engine. ``plan`` builds with full tuning; timings are kept in CACHE.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from models import Arrays, Model, model_named, numbered

from workbench.body.interpreter import bind_sizes
from workbench.builder import build
from workbench.builder.stages import run_stages, start
from workbench.builder.state import BuildState
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.network import NetworkDefinition
from workbench.onnx_export import export_onnx
from workbench.onnx_parser import parse_model
from workbench.records import Stage
from workbench.timing import TimingCache

OPSET = 20
"""The newest that every engine here reads."""
NORMALIZATION = "LayerNormalization"
SUMMED = "Add"
"""What leads to a layer normalization: a transformer's trunk, from the sum of its embeddings on."""


def config_of(model: Model) -> BuilderConfig:
    """One profile: the sizes that are timed."""
    config = BuilderConfig()
    profile = OptimizationProfile()
    for name, array in model.inputs().items():
        profile.set_shape(name, array.shape, array.shape, array.shape)
    config.add_optimization_profile(profile)
    return config


def write_exact(model: Model, folder: Path, target: Path) -> None:
    """What the model gives for every draw where no product or sum is rounded to float32."""
    network = parse_model(model.path(folder))
    outputs: Arrays = {}
    for draw in range(model.draws):
        outputs |= numbered(_exact(network, model.inputs(draw)), draw)
    np.savez(target, allow_pickle=False, **outputs)


def _exact(network: NetworkDefinition, inputs: Arrays) -> Arrays:
    values = dict(inputs)
    sizes: dict[str, int] = {}
    for t in network.inputs:
        bind_sizes(t.type, values[t.name], sizes)
    for layer in network.layers:
        operands = [t.value if t.value is not None else values[t.name] for t in layer.operands]
        names = [i.name for i in layer.body.inputs]
        exact = layer.body.substitute(sizes).exact(dict(zip(names, operands, strict=True)))
        for name, t in zip(layer.body.outputs, layer.outputs, strict=True):
            values[t.name] = exact[name][0]
    return {t.name: values[t.name] for t in network.outputs}


def write_qdq(model: Model, folder: Path, target: Path) -> None:
    """The INT8 model with explicit Q/DQ, calibrated on samples that are not timed."""
    config = config_of(model)
    config.default_precision = DataType.INT8
    state = start(model.path(folder), config, calibration_data=model.calibration(), name=model.name)
    state = run_stages(state, until=Stage.CALIBRATE)
    export_onnx(state.network, target, opset=OPSET)


def trunk(graph: onnx.GraphProto) -> list[str]:
    """Names of the layer normalizations, and of the sums that they read.

    They stay in FP32: it halves BERT's error, whose trunk OpenVINO keeps so, too.
    """
    producers = {o: n for n in graph.node for o in n.output}
    found = {n.name: n for n in graph.node if n.op_type == NORMALIZATION}
    waiting = [n.input[0] for n in found.values()]
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.op_type == SUMMED and node.name not in found:
            found[node.name] = node
            waiting += node.input
    return list(found)


def write_plan(
    path: Path, model: Model, kind: str, threads: int, cache: Path, target: Path
) -> dict[str, object]:
    """Build and save; gives the seconds, how many tactics were timed, and who runs the layers."""
    config = config_of(model)
    config.num_threads = threads
    if kind == "bf16":
        config.default_precision = DataType.BF16
        for node in trunk(onnx.load(path, load_external_data=False).graph):
            config.set_precision(node, DataType.FLOAT)
    config.timing_cache = TimingCache.load(cache, open_device("cpu").fingerprint)
    known = len(config.timing_cache.entries)
    began = time.perf_counter()
    state: BuildState = build(path, config, name=model.name)
    seconds = time.perf_counter() - began
    assert state.plan is not None
    state.cache.save(cache)
    state.plan.save(target)
    return {
        "build_s": round(seconds, 2),
        "stages_s": {r.stage.value: round(r.seconds, 2) for r in state.log.records},
        "timed": len(state.cache.entries) - known,
        "steps": dict(Counter(s.tactic.source for s in state.plan.steps)),
    }


def main() -> None:
    """One of the three, by the first argument."""
    job, *given = sys.argv[1:]
    if job in ("exact", "qdq"):
        name, folder, target = given
        write = {"exact": write_exact, "qdq": write_qdq}[job]
        write(model_named(name), Path(folder), Path(target))
        return
    path, name, kind, threads, cache, target = given
    facts = write_plan(Path(path), model_named(name), kind, int(threads), Path(cache), Path(target))
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
