"""Concatenations of computed parts: a loop for each."""

from __future__ import annotations

import pytest
from join_bodies import JOINS
from tactic_bodies import Draft, problem_of

from workbench.checks import check_outputs
from workbench.records import Refusal
from workbench.tactics.launch import run_once
from workbench.tactics.numba import NUMBA
from workbench.tactics.numba.joins import plan_join
from workbench.tactics.protocol import Call, Tactic


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", JOINS)
def test_parts_are_computed_where_they_are_joined(name: str, threads: int) -> None:
    problem, dynamic, values = problem_of(JOINS[name](2), threads=threads)
    tactic = NUMBA.candidates(problem)[0]
    assert isinstance(tactic, Tactic), tactic
    assert tactic.name == "join"
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call), call
    result = check_outputs(problem.body, values, run_once(call, tactic, problem, dynamic))
    assert result, result.message


def test_a_part_that_is_reduced_is_refused() -> None:
    d = Draft()
    x = d("ReduceMax", d.input(3, 4), d.literal([1], "int64"))
    plan = plan_join(d.body(d.anchored("Concat", x, d.input(3, 2), axis=1)))
    assert isinstance(plan, Refusal)
    assert "ReduceMax" in plan.reason


def test_a_part_whose_elements_lie_apart_is_refused() -> None:
    d = Draft()
    x = d("Relu", d("Transpose", d.input(4, 3), perm=(1, 0)))
    plan = plan_join(d.body(d.anchored("Concat", x, d.input(3, 2), axis=1)))
    assert isinstance(plan, Refusal)
    assert "side by side" in plan.reason
