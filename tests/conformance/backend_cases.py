"""ONNX's own backend suite, run by a backend class: one outcome a case."""

from __future__ import annotations

import copy
import unittest
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import onnx
from node_cases import node_cases
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from workbench.onnx_backend import WorkbenchBackend
from workbench.operators import OPERATORS

KINDS = ("simple", "pytorch-converted", "pytorch-operator")
"""Beside the node cases. The kind ``real`` is whole models of up to 570 MB: not run here."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case: passed, declined, late, error, wrong or impure.

    declined: ``prepare`` said no. late: the same, but from ``run``. impure: it changed its inputs,
    or a second run gave other bits. sources: steps that each tactic source ran. host: operators
    that the host's interpreter ran.
    """

    kind: str
    reason: str = ""
    sources: Mapping[str, int] | None = None
    host: frozenset[str] = frozenset()


@cache
def all_cases() -> dict[str, TestCase]:
    """Every case but the real models, by kind and name, in order."""
    found = {f"node/{c.name}": c for cases in node_cases().values() for c in cases}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own data
        for kind in KINDS:
            found |= {f"{kind}/{c.name}": c for c in load_model_tests(kind=kind)}
    return dict(sorted(found.items()))


def every(share: int) -> list[str]:
    """One case in ``share``, always the same ones."""
    return [name for name in all_cases() if crc32(name.encode()) % share == 0]


def run_all(names: Sequence[str], backend: type[WorkbenchBackend]) -> dict[str, Outcome]:
    """Every outcome, by name."""
    cases = all_cases()
    return {name: run_case(cases[name], backend) for name in names}


def unfit(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Those that neither passed nor were declined, with what happened."""
    good = ("passed", "declined")
    return {n: f"{o.kind}: {o.reason[:300]}" for n, o in outcomes.items() if o.kind not in good}


def summary(outcomes: Mapping[str, Outcome]) -> str:
    """Counts of outcomes, and of the cases in which each tactic source ran something."""
    kinds = Counter(o.kind for o in outcomes.values())
    ran = Counter(s for o in outcomes.values() for s in o.sources or ())
    return f"{len(outcomes)} cases {dict(kinds)}; cases run by {dict(ran.most_common())}"


def run_case(case: TestCase, backend: type[WorkbenchBackend]) -> Outcome:
    """Prepare, run twice, and compare as onnx's own runner does."""
    model = model_of(case)
    try:
        rep = backend.prepare(copy.deepcopy(model))
    except unittest.SkipTest as e:
        return Outcome("declined", str(e))
    except Exception as e:  # an outcome like others: the rest of the suite goes on
        return Outcome("error", f"prepare: {type(e).__name__}: {e}")
    for inputs, expected in data_of(case, model):
        fed = copy.deepcopy(inputs)
        try:
            outputs, again = rep.run(fed), rep.run(copy.deepcopy(inputs))
        except unittest.SkipTest as e:
            return Outcome("late", str(e))
        except Exception as e:
            return Outcome("error", f"run: {type(e).__name__}: {e}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # differences of NaN and infinities
                # Its own walk through a sequence stumbles over numbers.
                flat = _flat(expected), _flat(outputs)
                Runner.assert_similar_outputs(*flat, case.rtol, case.atol)
        except AssertionError as e:
            return Outcome("wrong", str(e), rep.executed)
        if not _same(fed, inputs) or not _same(outputs, again):
            return Outcome("impure", "it changed its inputs, or its second run differs")
    return Outcome("passed", sources=rep.executed, host=rep.on_host)


def _flat(values: Sequence[Any]) -> list[Any]:
    """The arrays in order, each sequence behind an array of its length."""
    found: list[Any] = []
    for v in values:
        found += [np.array(len(v)), *_flat(v)] if isinstance(v, list | tuple) else [v]
    return found


def _same(some: Any, others: Any) -> bool:
    """Whether two values are bit-equal; a sequence is a list of values."""
    if isinstance(some, list | tuple):
        return len(some) == len(others) and all(map(_same, some, others))
    a, b = np.asarray(some), np.asarray(others)
    if a.dtype == object:  # strings: their bytes are addresses
        return a.shape == b.shape and a.tolist() == b.tolist()
    return a.tobytes() == b.tobytes()


def known_sizes(case: TestCase) -> TestCase | None:
    """The case with the inputs that decide sizes as constants; None where there are none.

    So they stand in real models; as inputs, only the host could run what reads them.
    """
    model = model_of(case)
    data = data_of(case, model)
    names = [v.name for v in model.graph.input]
    reads = [(n, i, v) for n in model.graph.node for i, v in enumerate(n.input) if v in names]
    decided = {
        v for n, i, v in reads if (o := OPERATORS.get(n.op_type)) is not None and i in o.structural
    }
    if not decided or len(data) != 1:
        return None
    inputs, outputs = data[0]
    known = ModelProto()
    known.CopyFrom(model)
    del known.graph.input[:]
    known.graph.input.extend(v for v in model.graph.input if v.name not in decided)
    given = dict(zip(names, inputs, strict=False))
    known.graph.initializer.extend(
        numpy_helper.from_array(given[n], n) for n in names if n in decided and n in given
    )
    fed = [given[v.name] for v in known.graph.input]
    return replace(case, model=known, model_dir=None, data_sets=[(fed, outputs)])


def model_of(case: TestCase) -> ModelProto:
    """The case's model."""
    if case.model is not None:
        return case.model
    assert case.model_dir is not None
    return onnx.load(str(Path(case.model_dir) / "model.onnx"))


def data_of(case: TestCase, model: ModelProto) -> list[tuple[list[Any], list[Any]]]:
    """Inputs and expected outputs of each of the case's data sets."""
    if case.data_sets is not None:
        return [([_array(v) for v in i], [_array(v) for v in o]) for i, o in case.data_sets]
    assert case.model_dir is not None
    return [
        (_stored(d, "input", model.graph.input), _stored(d, "output", model.graph.output))
        for d in sorted(Path(case.model_dir).glob("test_data_set*"))
    ]


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def _stored(folder: Path, what: str, values: Sequence[Any]) -> list[Any]:
    """The files ``input_0.pb``... as arrays; a sequence or an optional as onnx's runner has it."""
    found: list[Any] = []
    for k, path in enumerate(sorted(folder.glob(f"{what}_*.pb"), key=_number)):
        kind = values[k].type.WhichOneof("value")
        if kind == "sequence_type":
            sequence = onnx.SequenceProto.FromString(path.read_bytes())
            found.append(numpy_helper.to_list(sequence))
        elif kind == "optional_type":
            optional = onnx.OptionalProto.FromString(path.read_bytes())
            found.append(numpy_helper.to_optional(optional))
        else:
            found.append(numpy_helper.to_array(TensorProto.FromString(path.read_bytes())))
    return found


def _number(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])
