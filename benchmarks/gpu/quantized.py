"""What the comparison asks of a build in each precision, and the reference of its Q/DQ graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.body.moving import MOVING
from workbench.builder import run_stages, start
from workbench.calibration import CalibrationResult
from workbench.config import BuilderConfig, BuilderFlag, Calibrator
from workbench.datatypes import DataType
from workbench.network import NetworkDefinition
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

    INT8's ranges leave out the largest 0.01% of the magnitudes: a finer step brings the output
    nearer to float32, and kernels that round differently nearer to each other. FP8's steps are
    relative; its ranges are min-max.
    """
    config = BuilderConfig()
    config.builder_optimization_level = level
    percentile = precision.kind is DataType.INT8
    config.calibrator = Calibrator.PERCENTILE if percentile else Calibrator.MINMAX
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


HOPPER_FP8_SUMS = 2.0**-14
"""Unit roundoff of FP8's sums in Hopper's matrix units, which keep 14 bits."""
EXACT = MOVING | {"Cast", "Clip", "Gather", "MaxPool", "QuantizeLinear", "Relu"}
"""Operators after which kernels differ by no rounding of their own."""


@dataclass(frozen=True, eq=False)
class Quantized:
    """A Q/DQ graph run by NumPy: its ranges, its first output, and how sensitive that is.

    sensitivity: distance between its output and that of the same graph, rounded otherwise: where
    roundings cascade through the layers, no other kernels can be expected much nearer.
    """

    ranges: CalibrationResult
    output: Array
    sensitivity: float


def calibrated(
    path: Path, config: BuilderConfig, precision: Precision, inputs: Mapping[str, Array]
) -> Quantized:
    """The graph with ranges of these inputs (a model at their batch).

    The ranges serve the same model at any batch.
    """
    sums = HOPPER_FP8_SUMS if precision.kind is DataType.FP8 else 0.0
    begun = start(path, config, calibration_data=[dict(inputs)])
    state = run_stages(begun, until=Stage.CALIBRATE)
    assert state.calibration is not None
    output = _first(state.network.run(dict(inputs)))
    otherwise = _first(rounded_otherwise(state.network, inputs, sums=sums))
    return Quantized(state.calibration, output, distance(otherwise, output))


def rounded_otherwise(
    network: NetworkDefinition, inputs: Mapping[str, Array], seed: int = 0, *, sums: float = 0.0
) -> dict[str, Array]:
    """Outputs of the reference, each result of arithmetic moved by up to its type's unit roundoff.

    Relative, uniform, from a seed: as much as kernels that round at other places differ. sums: the
    unit roundoff of products' sums, where that is larger.
    """
    rng = np.random.default_rng(seed)
    bindings = network.bind({name: x.shape for name, x in inputs.items()})
    values: dict[str, Any] = {**inputs}
    values |= {t.name: t.weight.array for t in network.tensors.values() if t.weight}
    for layer in network.layers:
        body = layer.body.substitute(bindings)
        given = zip(body.inputs, layer.operands, strict=True)
        results = body.evaluate({i.name: values[t.name] for i, t in given})
        for name, tensor in zip(body.outputs, layer.outputs, strict=True):
            found = results[name]
            if layer.op not in EXACT and found.dtype in (np.float16, np.float32):
                unit = np.finfo(found.dtype).eps / 2
                unit = max(unit, sums) if layer.op in PRODUCTS else unit
                by = rng.uniform(1 - unit, 1 + unit, found.shape)
                found = (found.astype(np.float64) * by).astype(found.dtype)
            values[tensor.name] = found
    return {t.name: values[t.name] for t in network.outputs}


def _first(outputs: Mapping[str, Array]) -> Array:
    return next(iter(outputs.values()))


def distance(found: Array, exact: Array) -> float:
    """Relative L2 distance."""
    a, b = found.astype(np.float64), exact.astype(np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
