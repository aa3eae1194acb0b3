"""benchmarks/gpu: how far a graph's reference moves when it rounds otherwise."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from workbench.datatypes import DataType
from workbench.network import MatrixOperation, NetworkDefinition

PATH = Path(__file__).parents[2] / "benchmarks" / "gpu" / "quantized.py"


@pytest.fixture(scope="module")
def quantized():
    spec = importlib.util.spec_from_file_location("gpu_comparison_quantized", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def network(kind: DataType, op: str) -> NetworkDefinition:
    made = NetworkDefinition("one")
    x = made.add_input("x", kind, (64, 64))
    if op == "MatMul":
        layer = made.add_matrix_multiply(x, MatrixOperation.NONE, x, MatrixOperation.NONE)
    else:
        layer = made.add_shuffle(x, reshape_dims=(32, 128))
    made.mark_output(layer.outputs[0])
    return made


@pytest.mark.parametrize("kind", [DataType.FLOAT, DataType.HALF])
def test_arithmetic_moves_by_no_more_than_its_types_roundoff(quantized, kind):
    x = np.random.default_rng(0).uniform(0.5, 1, (64, 64)).astype(kind.numpy)
    made = network(kind, "MatMul")
    (exact,) = made.run({"x": x}).values()
    (found,) = quantized.rounded_otherwise(made, {"x": x}).values()
    moved = np.abs(found.astype(np.float64) - exact) / exact
    unit = np.finfo(kind.numpy).eps / 2
    assert found.dtype == exact.dtype and 0 < moved.max() <= 2.01 * unit


def test_sums_of_fewer_bits_move_products_by_as_much(quantized):
    x = np.random.default_rng(0).uniform(0.5, 1, (64, 64)).astype(np.float32)
    made = network(DataType.FLOAT, "MatMul")
    (exact,) = made.run({"x": x}).values()
    sums = quantized.HOPPER_FP8_SUMS
    (found,) = quantized.rounded_otherwise(made, {"x": x}, sums=sums).values()
    moved = np.abs(found.astype(np.float64) - exact) / exact
    assert 0.9 * sums < moved.max() <= 1.01 * sums


def test_what_only_moves_elements_stays_as_it_is(quantized):
    x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    made = network(DataType.FLOAT, "Reshape")
    (found,) = quantized.rounded_otherwise(made, {"x": x}).values()
    np.testing.assert_array_equal(found, x.reshape(32, 128))
