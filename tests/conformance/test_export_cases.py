"""Cases of every operator through export: valid, the same when read back, and in ONNX Runtime."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from node_cases import FUNCTION_BODIES, RANDOM, node_cases
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase

from workbench import passes
from workbench.errors import ExportError, ParserError
from workbench.network import NetworkDefinition
from workbench.onnx_export import export_onnx
from workbench.onnx_parser import parse_model

RUNTIME_OPSET, RUNTIME_IR = 26, 13
"""The newest that ONNX Runtime 1.31 loads."""

NOT_WRITTEN = {"test_scan_sum": "it scans per sample"}
"""Cases that have no form in the newest opset."""


def chosen() -> list[TestCase]:
    """Of each operator the first case, the last, and one between."""
    found: dict[str, TestCase] = {}
    for operator, cases in node_cases().items():
        if operator != FUNCTION_BODIES:
            for i in {0, len(cases) // 2, len(cases) - 1}:
                found[cases[i].name] = cases[i]
    return list(found.values())


def array(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return value if isinstance(value, list) or value is None else np.asarray(value)


def is_same(ours: Any, other: Any) -> bool:
    if isinstance(ours, list):
        return len(ours) == len(other) and all(map(is_same, ours, other))
    if ours is None or other is None:
        return ours is other
    if ours.dtype != other.dtype or ours.shape != other.shape:
        return False
    return ours.tobytes() == other.tobytes() or bool(np.all(ours == other))


def is_close(ours: Any, other: Any) -> bool:
    """Up to the rounding of another order of the same operations."""
    if isinstance(ours, list):
        return len(ours) == len(other) and all(map(is_close, ours, other))
    if ours is None or other is None:
        return ours is other
    if other.dtype.kind not in "fiu" or ours.dtype.kind not in "f":
        return bool(np.all(np.asarray(ours) == np.asarray(other)))
    a, b = ours.astype(np.float64), other.astype(np.float64)
    coarse = ours.dtype.itemsize < 4
    return np.allclose(a, b, rtol=2e-2 if coarse else 1e-4, atol=1e-5, equal_nan=True)


def in_onnx_runtime(model: ModelProto, feeds: Mapping[str, Any]) -> list[Any] | None:
    """The outputs; None where ONNX Runtime does not have the operators or types."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        return session.run(None, dict(feeds))
    except Exception:  # it raises dozens of kinds, all of them its own
        return None


def fed(case: TestCase, network: NetworkDefinition) -> dict[str, Any]:
    assert case.model is not None and case.data_sets is not None
    names = [v.name for v in case.model.graph.input]
    given = dict(zip(names, map(array, case.data_sets[0][0]), strict=True))
    return {t.name: given[t.name] for t in network.inputs}


def judged(case: TestCase, *, folded: bool) -> str:
    """What became of a case: declined, not written, random, read back, or ONNX Runtime, too."""
    assert case.model is not None
    try:
        network = parse_model(case.model.SerializeToString())
    except ParserError:
        return "declined"
    if folded:
        passes.fold(network)
    feeds = fed(case, network)
    expected = list(network.run(feeds).values())
    try:
        model = export_onnx(network)
    except ExportError as e:
        if NOT_WRITTEN.get(case.name, "?") not in e.problem:
            raise
        return "not written"
    onnx.checker.check_model(model, full_check=True)
    again = list(parse_model(model.SerializeToString()).run(feeds).values())
    if any(x.op.startswith(RANDOM) for x in network.layers):
        assert [np.shape(a) for a in again] == [np.shape(e) for e in expected]
        return "random"
    assert all(map(is_same, expected, again)), "it reads back as something else"
    original = copy.deepcopy(case.model)
    original.ir_version = min(original.ir_version, RUNTIME_IR)
    theirs = in_onnx_runtime(original, feeds)
    if theirs is None:
        return "read back"
    try:
        model = export_onnx(network, opset=RUNTIME_OPSET)
    except ExportError:
        return "read back"
    onnx.checker.check_model(model, full_check=True)
    exported = in_onnx_runtime(model, feeds)
    if exported is None:
        return "read back"
    assert all(map(is_close, theirs, exported)), "ONNX Runtime gives another result"
    return "ONNX Runtime, too"


@pytest.mark.slow
@pytest.mark.parametrize("folded", [False, True], ids=["parsed", "folded"])
def test_cases_of_every_operator_mean_the_same_after_export(folded: bool) -> None:
    outcomes: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    for case in chosen():
        try:
            outcomes[judged(case, folded=folded)] += 1
        except Exception as e:
            wrong[case.name] = f"{type(e).__name__}: {e}"[:300]
    print(dict(outcomes))
    assert not wrong
    assert outcomes["ONNX Runtime, too"] > 0.6 * outcomes.total()
