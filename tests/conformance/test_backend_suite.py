"""ONNX's backend suite on the real route: passes, fusions, tactics, plan bytes, Runtime.

The whole suite runs on the sources that compile nothing; one case in twelve also with each source
preferred, so that every source's kernels take part.
"""

from __future__ import annotations

import pytest
from backend_cases import all_cases, every, run_all, run_case, summary, unfit
from onnx.backend.test.runner import Runner

from workbench.onnx_backend import PreferNumba, PreferNumpy, PreferOnednn, WorkbenchBackend

DECLINED = {
    "node/test_bernoulli",
    "node/test_bernoulli_double",
    "node/test_bernoulli_double_expanded",
    "node/test_bernoulli_expanded",
    "node/test_bernoulli_seed",
    "node/test_bernoulli_seed_expanded",
    "simple/test_gradient_of_add",
    "simple/test_gradient_of_add_and_mul",
}
"""Of the 2,024 cases of onnx 1.23 without the real models: six draw random numbers, which have
nothing to be compared with, and two are derivatives."""


class Uncompiled(WorkbenchBackend):
    """oneDNN where it runs a layer, else NumPy."""

    sources = ("ONEDNN", "NUMPY")


@pytest.mark.slow
def test_the_whole_suite_passes_but_for_random_numbers_and_derivatives():
    outcomes = run_all(list(all_cases()), Uncompiled)
    print(summary(outcomes))
    assert not unfit(outcomes)
    assert {n for n, o in outcomes.items() if o.kind != "passed"} == DECLINED


@pytest.mark.slow
@pytest.mark.parametrize("backend", [PreferOnednn, PreferNumba, PreferNumpy])
def test_whichever_source_is_asked_first_no_answer_is_wrong(backend: type[WorkbenchBackend]):
    outcomes = run_all(every(12), backend)
    print(summary(outcomes))
    assert not unfit(outcomes)
    used = {s for o in outcomes.values() for s in o.sources or ()}
    assert backend.preferred in used


def test_onnx_s_own_comparison_refuses_a_sequence_of_numbers_even_against_itself():
    """Why ``loop16_seq_none`` counts as wrong where onnx's runner compares: no answer passes."""
    case = all_cases()["node/test_loop16_seq_none"]
    assert case.data_sets is not None
    _, expected = case.data_sets[0]
    with pytest.raises(TypeError, match="Unable to compare"):
        Runner.assert_similar_outputs(expected, expected, case.rtol, case.atol)
    assert run_case(case, WorkbenchBackend).kind == "passed"
