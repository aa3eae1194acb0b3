"""Every tactic of every CPU source: within the bound, repeatable, honest about its precision."""

from __future__ import annotations

import numpy as np
import pytest
from attention_bodies import ATTENTIONS
from join_bodies import JOINS
from row_bodies import ROWS
from tactic_bodies import BODIES as PARTS
from tactic_bodies import problem_of

from workbench.body import TensorType
from workbench.checks import bit_equal, check_outputs
from workbench.datatypes import DataType
from workbench.formats import FORMATS
from workbench.operators import OPERATORS
from workbench.records import Refusal
from workbench.tactics import SOURCES, sources_for
from workbench.tactics.launch import bind, reformat_body, run_once
from workbench.tactics.protocol import Call, Problem, Tactic, tactic_from_json, tactic_to_json

CPU = [s for s in sources_for("cpu") if s.unavailable() is None]
BATCHES = (2, 3)
BODIES = PARTS | ATTENTIONS | ROWS | JOINS


def prepared(source, tactic: Tactic, problem: Problem) -> Call:
    call = source.prepare(tactic, problem)
    assert isinstance(call, Call), f"{tactic.title} offered, then refused: {call}"
    return call


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("source", CPU, ids=lambda s: s.name)
def test_every_tactic_is_within_the_bound_and_repeats_itself(source, name):
    offered, _, _ = problem_of(BODIES[name](BATCHES[0]))
    for tactic in source.candidates(offered):
        if isinstance(tactic, Refusal):
            assert tactic.reason
            continue
        for batch in BATCHES:
            problem, dynamic, values = problem_of(BODIES[name](batch), seed=batch)
            call = prepared(source, tactic, problem)
            outputs = run_once(call, tactic, problem, dynamic)
            result = check_outputs(problem.body, values, outputs)
            assert result.passed, f"{tactic.title} at batch {batch}: {result.message}"
            again = run_once(call, tactic, problem, dynamic)
            if tactic.deterministic:
                assert bit_equal(outputs, again), f"{tactic.title} differs from run to run"


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("source", CPU, ids=lambda s: s.name)
def test_padding_lanes_of_blocked_outputs_are_zero(source, name):
    problem, dynamic, _ = problem_of(BODIES[name](2))
    for tactic in source.candidates(problem):
        if isinstance(tactic, Refusal) or not any(f.block for f in tactic.outputs):
            continue
        bound = bind(prepared(source, tactic, problem), tactic, problem)
        bound.write(dynamic)
        for b in bound.outputs:
            b.memory.fill(0xFF)
        bound.launch()
        for layout, t, b in zip(
            tactic.outputs, problem.body.output_types, bound.outputs, strict=True
        ):
            rest = t.shape[1] % layout.block if layout.block else 0
            if rest:
                stored = b.view(t.dtype, layout.physical_shape(t.shape))
                assert not stored[:, -1, ..., rest:].astype(np.float32).any(), tactic.title


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("source", CPU, ids=lambda s: s.name)
def test_every_tactic_survives_json_and_declares_its_layouts_and_precision(source, name):
    problem, _, _ = problem_of(BODIES[name](2))
    for tactic in source.candidates(problem):
        if isinstance(tactic, Refusal):
            continue
        assert tactic_from_json(tactic_to_json(tactic)) == tactic
        assert tactic.source == source.name
        assert tactic.version == source.version
        assert tactic.precision is problem.body.compute_type
        assert len(tactic.inputs) == len(problem.body.dynamic_inputs)
        assert len(tactic.outputs) == len(problem.body.outputs)
        types = [i.type for i in problem.body.dynamic_inputs] + list(problem.body.output_types)
        layouts = (*tactic.inputs, *tactic.outputs)
        assert all(f.fits(len(t.shape)) for f, t in zip(layouts, types, strict=True))


@pytest.mark.parametrize("name", BODIES)
def test_numpy_runs_every_body(name):
    (numpy,) = [s for s in CPU if s.name == "NUMPY"]
    problem, _, _ = problem_of(BODIES[name](2))
    assert any(isinstance(t, Tactic) for t in numpy.candidates(problem))


@pytest.mark.parametrize("dtype", ["FLOAT", "BF16", "INT8", "INT64"])
@pytest.mark.parametrize("source", CPU, ids=lambda s: s.name)
def test_reformats_keep_every_element_and_zero_the_padding(source, dtype):
    for channels in (16, 5, 33):
        type_ = TensorType(DataType(dtype), (2, channels, 3, 5))
        body = reformat_body(type_)
        problem, dynamic, _ = problem_of(body)
        for before in FORMATS:
            for after in FORMATS:
                if before == after:
                    continue
                tactic = source.reformat(type_, before, after)
                if isinstance(tactic, Refusal):
                    assert tactic.reason
                    continue
                bound = bind(prepared(source, tactic, problem), tactic, problem)
                bound.write(dynamic)
                bound.outputs[0].memory.fill(0xFF)
                bound.launch()
                stored = bound.outputs[0].view(type_.dtype, after.physical_shape(type_.shape))
                expected = after.pack(dynamic["input"])
                assert stored.tobytes() == expected.tobytes(), tactic.title


def test_sources_are_asked_in_the_documented_order():
    assert [s.name for s in SOURCES][:3] == ["ONEDNN", "NUMBA", "NUMPY"]


def test_every_operator_that_the_bodies_use_exists():
    used = {n.op for make in BODIES.values() for n in make(2).nodes} - {"Constant"}
    assert used <= set(OPERATORS)
