"""Row kernels with what comes before and after them."""

from __future__ import annotations

import numpy as np
import pytest
from row_bodies import ROWS
from tactic_bodies import Draft, problem_of

from workbench.checks import check_outputs
from workbench.errors import ExecutionError
from workbench.records import Refusal
from workbench.tactics.launch import run_once
from workbench.tactics.numba import NUMBA
from workbench.tactics.numba.rows import plan_rows
from workbench.tactics.protocol import Call, Tactic


@pytest.mark.parametrize("name", ROWS)
def test_rows_run_with_what_is_around_them(name: str) -> None:
    problem, dynamic, values = problem_of(ROWS[name](2))
    tactic = NUMBA.candidates(problem)[0]
    assert isinstance(tactic, Tactic), tactic
    assert tactic.name == "rows"
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call), call
    result = check_outputs(problem.body, values, run_once(call, tactic, problem, dynamic))
    assert result, result.message


def test_the_log_of_a_sum_of_nothing_is_minus_infinity() -> None:
    d = Draft()
    problem, dynamic, _ = problem_of(
        d.body(d.anchored("ReduceLogSumExp", d.input(2, 4), d.literal([1], "int64")))
    )
    dynamic["x0"] = np.array([[-np.inf] * 4, [0.0] * 4], np.float32)
    tactic = NUMBA.candidates(problem)[0]
    assert isinstance(tactic, Tactic)
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call)
    (result,) = run_once(call, tactic, problem, dynamic).values()
    np.testing.assert_allclose(result, [[-np.inf], [np.log(4)]], rtol=1e-6)


def test_empty_rows_are_refused() -> None:
    d = Draft()
    plan = plan_rows(d.body(d.anchored("ReduceSum", d.input(3, 0), d.literal([1], "int64"))))
    assert isinstance(plan, Refusal)
    assert plan.reason == "its rows are empty"


def test_a_row_operand_that_is_broadcast_within_the_rows_is_refused() -> None:
    d = Draft()
    x = d("Mul", d.input(2, 3, 4), d.weight(3, 1))
    plan = plan_rows(d.body(d.anchored("ReduceSum", x, d.literal([1, 2], "int64"))))
    assert isinstance(plan, Refusal)
    assert "broadcast within the rows" in plan.reason


def test_an_index_outside_a_table_is_told_and_one_from_the_back_is_read() -> None:
    problem, dynamic, values = problem_of(ROWS["row_looked_up_twice"](2))
    tactic = NUMBA.candidates(problem)[0]
    assert isinstance(tactic, Tactic)
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call)
    name = next(i.name for i in problem.body.dynamic_inputs)
    dynamic[name] = values[name] = np.array([-1, -4])
    assert check_outputs(problem.body, values, run_once(call, tactic, problem, dynamic))
    dynamic[name] = np.array([0, 5])
    with pytest.raises(ExecutionError, match="index 5 lies outside size 4"):
        run_once(call, tactic, problem, dynamic)
