"""Cases: one node at one opset, run by the workbench and by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from onnx import ValueInfoProto, helper, numpy_helper

from workbench.onnx_parser import parse_model

RNG = np.random.default_rng(7)


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    """Floats with negative ones among them."""
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray[Any, Any]:
    """Floats between 0.5 and 2.5."""
    return (RNG.random(shape) * 2 + 0.5).astype(np.float32)


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Case:
    """One node at one opset. inputs: run-time arrays; constants: initializers that follow them."""

    operator: str
    opset: int
    inputs: Sequence[Any]
    constants: Sequence[Any] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    outputs: int = 1

    def __str__(self) -> str:
        given = ",".join(f"{k}={v}" for k, v in self.attributes.items() if np.ndim(v) < 2)
        return f"{self.operator}-{self.opset}({given})"


def model_of(case: Case, *, batch: bool) -> bytes:
    """The case as a model; with ``batch``, the first axis of the first input is symbolic."""
    names = [f"x{i}" for i in range(len(case.inputs))]
    inputs = []
    for i, (name, value) in enumerate(zip(names, case.inputs, strict=True)):
        shape: list[Any] = list(value.shape)
        if batch and i == 0:
            shape[0] = "batch"
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        inputs.append(helper.make_tensor_value_info(name, kind, shape))
    stored = [
        numpy_helper.from_array(value, f"c{i}")
        for i, value in enumerate(case.constants)
        if value is not None
    ]
    given = [f"c{i}" if v is not None else "" for i, v in enumerate(case.constants)]
    outputs = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(
        case.operator, [*names, *given], outputs, name="node", **dict(case.attributes)
    )
    declared = [ValueInfoProto(name=o) for o in outputs]
    graph = helper.make_graph([node], "case", inputs, declared, stored)
    opset = helper.make_opsetid("", case.opset)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def feeds_of(case: Case) -> dict[str, Any]:
    """Run-time inputs by name."""
    return {f"x{i}": v for i, v in enumerate(case.inputs)}


def run_ours(case: Case, *, batch: bool = False) -> list[Any]:
    """The outputs of the parsed network's reference."""
    results = parse_model(model_of(case, batch=batch)).run(feeds_of(case))
    return [results[f"y{i}"] for i in range(case.outputs)]


def run_model(data: bytes, feeds: Mapping[str, Any]) -> list[Any]:
    """The outputs of ONNX Runtime, unoptimized."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def run_onnx_runtime(case: Case) -> list[Any]:
    """ONNX Runtime on the case as it is written."""
    return run_model(model_of(case, batch=False), feeds_of(case))


def assert_same(ours: Sequence[Any], theirs: Sequence[Any], *, atol: float = 1e-6) -> None:
    """Types and shapes equal, numbers within 1e-5 relative."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-5, atol=atol)
