"""The node cases of ONNX's own backend suite, run by the parser and the reference interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from workbench.errors import ParserError
from workbench.onnx_parser import parse_model

FUNCTION_BODIES = "(function bodies)"
"""Under this name stand the cases whose model is an operator written out."""

RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform")
"""Operators whose values no two implementations share: only types and shapes are compared."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case: passed, declined (the parser refused it), wrong or error.

    shape_inputs: inputs that were written into the model as constants, because they decide shapes.
    needs: inputs that the parser asked to know.
    """

    kind: str
    reason: str = ""
    shape_inputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@cache
def node_cases() -> dict[str, tuple[TestCase, ...]]:
    """Operator -> the cases whose first node is it, as the installed onnx package makes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own data: overflowing casts, log(0)
        cases = load_model_tests(kind="node")
    found: dict[str, list[TestCase]] = {}
    for case in cases:
        if case.name.endswith("_expanded") or "_expanded_ver" in case.name:
            operator = FUNCTION_BODIES
        else:
            assert case.model is not None
            operator = case.model.graph.node[0].op_type
        found.setdefault(operator, []).append(case)
    return {k: tuple(v) for k, v in found.items()}


@cache
def outcome(operator: str, index: int) -> Outcome:
    """One case's outcome."""
    case = node_cases()[operator][index]
    assert case.model is not None
    found = _run(case, ())
    while found.kind == "declined" and set(found.needs) - set(found.shape_inputs):
        # The inputs that the parser must know, until it asks for no more.
        found = _run(case, tuple(sorted({*found.shape_inputs, *found.needs})))
    return found


def _with_constants(
    original: ModelProto, inputs: Sequence[Any], names: tuple[str, ...]
) -> ModelProto:
    model = ModelProto()
    model.CopyFrom(original)
    graph = model.graph
    given = {v.name: x for v, x in zip(original.graph.input, inputs, strict=False)}
    kept = [v for v in graph.input if v.name not in names]
    del graph.input[:]
    graph.input.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(_array(given[n]), n) for n in names)
    return model


def _run(case: TestCase, shape_inputs: tuple[str, ...]) -> Outcome:
    assert case.model is not None
    for inputs, wanted in case.data_sets or ():
        expected = [_array(e) for e in wanted]
        names = [v.name for v in case.model.graph.input]
        feeds = dict(zip(names, map(_array, inputs), strict=True))
        try:
            model = (
                _with_constants(case.model, inputs, shape_inputs) if shape_inputs else case.model
            )
            network = parse_model(model.SerializeToString())
        except ParserError as e:
            needs = {n for reason in e.errors for n in getattr(reason, "needs", ())}
            return Outcome("declined", str(e), shape_inputs, tuple(sorted(needs)))
        results = network.run({k: v for k, v in feeds.items() if k not in shape_inputs})
        outputs = [results[v.name] for v in case.model.graph.output]
        operators = {n.op_type for n in case.model.graph.node}
        if any(o.startswith(RANDOM) for o in operators):
            assert [(o.shape, o.dtype) for o in outputs] == [(e.shape, e.dtype) for e in expected]
            continue
        try:
            Runner.assert_similar_outputs(_flat(expected), _flat(outputs), case.rtol, case.atol)
        except AssertionError as e:
            return Outcome("wrong", str(e), shape_inputs)
    return Outcome("passed", "", shape_inputs)


def _array(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return value if isinstance(value, list) or value is None else np.asarray(value)


def _flat(values: Sequence[Any]) -> list[Any]:
    """Sequences as their entries, between their lengths: onnx's runner stumbles over scalars."""
    found: list[Any] = []
    for v in values:
        found += [np.array(len(v)), *_flat(v)] if isinstance(v, list) else [v]
    return found
