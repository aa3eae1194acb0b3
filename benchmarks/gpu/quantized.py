"""What the comparison asks of a build in each precision, and the reference of its Q/DQ graph."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper

from workbench.body import Array
from workbench.builder import run_stages, start
from workbench.calibration import CalibrationResult
from workbench.config import BuilderConfig, BuilderFlag, Calibrator
from workbench.datatypes import DataType
from workbench.records import Stage

PRODUCTS = ("Conv", "Gemm", "MatMul")
MEANS = ("ReduceMean", "GlobalAveragePool", "AveragePool")


@dataclass(frozen=True)
class Precision:
    """A column of the comparison. kind: what is requested; tf32: whether the flag is set."""

    kind: DataType
    tf32: bool = False

    @property
    def quantized(self) -> bool:
        return self.kind in (DataType.INT8, DataType.FP8)


PRECISIONS = {
    "fp16": Precision(DataType.HALF),
    "bf16": Precision(DataType.BF16),
    "fp32": Precision(DataType.FLOAT),
    "tf32": Precision(DataType.FLOAT, tf32=True),
    "int8": Precision(DataType.INT8),
    "fp8": Precision(DataType.FP8),
}


def config_for(
    path: Path, precision: Precision, *, level: int, convolutional: bool
) -> BuilderConfig:
    """The request. Quantized are products with weights; products of two activations are attention.

    What surrounds quantized products joins convolutions' kernels in float32, but for means, which
    are FP16; in a transformer all of it is FP16, as norms, attention and the residual stream are
    kernels of their own.
    """
    config = BuilderConfig()
    config.builder_optimization_level = level
    config.calibrator = Calibrator.MINMAX
    if not precision.tf32:
        config.clear_flag(BuilderFlag.TF32)
    if not precision.quantized:
        config.default_precision = precision.kind
        return config
    config.default_precision = DataType.FLOAT if convolutional else DataType.HALF
    folded = run_stages(start(path), until=Stage.FOLD).network
    for layer in folded.layers:
        if layer.op in PRODUCTS and any(t is not None and t.is_constant for t in layer.inputs):
            config.set_precision((layer.origin or (layer.name,))[0], precision.kind)
        elif layer.op in MEANS:
            config.set_precision((layer.origin or (layer.name,))[0], DataType.HALF)
    return config


NUDGE = 1e-6
"""Relative change of float inputs, or of the rows that others look up, by which a graph's own
sensitivity is told."""


@dataclass(frozen=True, eq=False)
class Quantized:
    """A Q/DQ graph run by NumPy: its ranges, its first output, and how sensitive that is.

    sensitivity: distance between its outputs on the inputs and on inputs changed by NUDGE: where
    roundings cascade through the layers, other kernels come hardly nearer.
    """

    ranges: CalibrationResult
    output: Array
    sensitivity: float


def calibrated(path: Path, config: BuilderConfig, inputs: Mapping[str, Array]) -> Quantized:
    """The graph with ranges of these inputs (a model at their batch).

    The ranges serve the same model at any batch.
    """
    begun = start(path, config, calibration_data=[dict(inputs)])
    state = run_stages(begun, until=Stage.CALIBRATE)
    assert state.calibration is not None
    output = _first(state.network.run(dict(inputs)))
    if all(x.dtype.kind == "f" for x in inputs.values()):
        nudged = _first(state.network.run({n: _nudged(x) for n, x in inputs.items()}))
    else:
        with tempfile.TemporaryDirectory() as folder:
            other = start(_with_nudged_rows(path, Path(folder) / "nudged.onnx"), config)
            other = run_stages(replace(other, calibration=state.calibration), until=Stage.CALIBRATE)
            nudged = _first(other.network.run(dict(inputs)))
    return Quantized(state.calibration, output, distance(nudged, output))


def _first(outputs: Mapping[str, Array]) -> Array:
    return next(iter(outputs.values()))


def _nudged(x: Array) -> Array:
    noise = np.random.default_rng(0).standard_normal(x.shape)
    return (x * (1 + NUDGE * noise)).astype(x.dtype)


def _with_nudged_rows(path: Path, to: Path) -> Path:
    """The model with other tables of embeddings."""
    model = onnx.load(path)
    tables = {n.input[0] for n in model.graph.node if n.op_type == "Gather"}
    for t in model.graph.initializer:
        if t.name in tables and t.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(t)
            t.CopyFrom(onnx.numpy_helper.from_array(_nudged(array), t.name))
    onnx.save(model, to)
    return to


def distance(found: Array, exact: Array) -> float:
    """Relative L2 distance."""
    a, b = found.astype(np.float64), exact.astype(np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
