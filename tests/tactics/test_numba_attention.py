"""Attention in one generated kernel: every form, every cut into blocks and threads."""

from __future__ import annotations

import numpy as np
import pytest
from attention_bodies import ATTENTIONS, crossed, merged
from tactic_bodies import INT8, Draft, problem_of

from workbench.body import Body
from workbench.checks import check_outputs
from workbench.records import Refusal
from workbench.tactics.launch import run_once
from workbench.tactics.numba import NUMBA
from workbench.tactics.numba import attention as kernel
from workbench.tactics.numba.attention import AttentionPlan, plan_attention
from workbench.tactics.numba.attention_code import Tile
from workbench.tactics.protocol import Call, Problem, Tactic


def tactic_of(problem: Problem) -> Tactic:
    tactic = NUMBA.candidates(problem)[0]
    assert isinstance(tactic, Tactic), tactic
    return tactic


def outputs_of(problem: Problem, dynamic: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    tactic = tactic_of(problem)
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call), call
    return run_once(call, tactic, problem, dynamic)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_form_of_attention_has_a_kernel(name: str) -> None:
    problem, _, _ = problem_of(ATTENTIONS[name](2))
    assert tactic_of(problem).name == "attention"


@pytest.mark.parametrize("tile", [Tile("tile_6x16", 6, 16), Tile("tile_8x32", 8, 32)])
def test_every_tile_gives_the_result(tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "tile_for", lambda keys, width: tile)
    problem, dynamic, values = problem_of(crossed()(2))
    assert check_outputs(problem.body, values, outputs_of(problem, dynamic))


def test_queries_are_cut_into_blocks_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MOST_QUERIES", 16)
    problem, dynamic, values = problem_of(merged(tokens=150, size=16)(1), threads=4)
    assert tactic_of(problem).parameter("threads") == 4
    assert check_outputs(problem.body, values, outputs_of(problem, dynamic))


def test_results_of_many_keys_are_summed_in_blocks() -> None:
    problem, dynamic, values = problem_of(merged(tokens=300, size=16)(1))
    assert check_outputs(problem.body, values, outputs_of(problem, dynamic))


def test_the_same_kernel_serves_every_size() -> None:
    texts = {_plan(merged(tokens=n)(b)).code for n, b in ((17, 1), (40, 3))}
    assert len(texts) == 1


def test_a_row_of_which_all_is_masked_is_nan_as_softmax_has_it() -> None:
    d = Draft()
    q, k, v = d.input(4, 8), d.input(8, 4), d.input(4, 3)
    scores = d("Add", d("MatMul", q, k), d.input(4, 1))
    problem, dynamic, _ = problem_of(d.body(d("MatMul", d.anchored("Softmax", scores, axis=-1), v)))
    dynamic["x3"] = np.array([[0], [-np.inf], [0], [0]], np.float32)
    (result,) = outputs_of(problem, dynamic).values()
    np.testing.assert_array_equal(np.isnan(result).all(axis=1), [False, True, False, False])


def _plan(body: Body) -> AttentionPlan:
    plan = plan_attention(body)
    assert isinstance(plan, AttentionPlan), plan
    return plan


def refused(body: Body) -> str:
    plan = plan_attention(body)
    assert isinstance(plan, Refusal)
    return plan.reason


def test_a_reshape_across_axes_is_refused() -> None:
    d = Draft()
    q = d("Transpose", d.input(4, 6), perm=(1, 0))
    q = d("Reshape", q, d.literal([8, 3], "int64"))
    p = d.anchored("Softmax", d("MatMul", q, d.input(3, 5)), axis=-1)
    assert "takes a copy" in refused(d.body(d("MatMul", p, d.input(5, 2))))


def test_an_activation_of_the_queries_is_refused_by_its_operands() -> None:
    d = Draft()
    q = d("Add", d.input(4, 3), d.input(4, 3))
    p = d.anchored("Softmax", d("MatMul", q, d.input(3, 5)), axis=-1)
    reason = refused(d.body(d("MatMul", p, d.input(5, 2))))
    assert reason.startswith("Add")
    assert reason.endswith("is neither a shuffle nor a scale")


def test_quantized_keys_are_refused() -> None:
    d = Draft()
    k = d("DequantizeLinear", d.input(3, 5, dtype=INT8), d.weight())
    p = d.anchored("Softmax", d("MatMul", d.input(4, 3), k), axis=-1)
    assert "DequantizeLinear" in refused(d.body(d("MatMul", p, d.input(5, 2))))


def test_little_workspace_is_told() -> None:
    full, _, _ = problem_of(merged()(2))
    problem = Problem(full.body, full.constants, full.device, 1, workspace_limit=64)
    answer = NUMBA.prepare(tactic_of(problem), problem)
    assert isinstance(answer, Refusal)
    assert answer.code == "workspace"
