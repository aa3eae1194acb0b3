"""The support matrix says what the registry holds, and docs/operators.md says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from node_cases import node_cases, outcome
from onnx import defs

from workbench import support_matrix
from workbench.onnx_parser.schemas import OPSETS
from workbench.operators import OPERATORS
from workbench.reports.support import ROW, OperatorSupport, types_in_words
from workbench.reports.support_page import operators_page
from workbench.tactics.onednn.source import ONEDNN

ROOT = Path(__file__).parents[2]


def rows() -> dict[str, OperatorSupport]:
    return {r.key: r for r in support_matrix(ask=False)}


def test_every_operator_of_the_standard_is_listed_once_with_a_reason_where_it_is_refused() -> None:
    matrix = support_matrix(ask=False)
    listed = [(r.domain, r.operator) for r in matrix]
    assert len(set(listed)) == len(listed)
    schemas = defs.get_all_schemas_with_history()
    assert set(listed) == {(s.domain, s.name) for s in schemas if s.domain in OPSETS}
    assert all(bool(r.reason) != r.supported for r in matrix)
    assert all(bool(r.opsets) == r.supported for r in matrix)


def test_every_registered_operator_of_the_standard_is_a_row() -> None:
    found = rows()
    known = {k for k, o in OPERATORS.items() if o.domain in OPSETS}
    assert {k for k, r in found.items() if r.route == ROW} == known


def test_opsets_are_those_of_the_upgrade_table() -> None:
    found = rows()
    assert found["Conv"].opsets == "1–28"
    assert found["Swish"].opsets == "24–28"
    assert found["Upsample"].opsets == "7–9" and found["Upsample"].route == "upgrade"
    assert found["Scatter"].becomes == ("ScatterElements",)
    assert found["CastLike"].route == "lowered"
    assert found["RotaryEmbedding"].route == "standard body"


@pytest.mark.slow
def test_every_listed_row_has_its_rules_and_a_test_case() -> None:
    """A case of onnx's own suite that passes, or its name in the tests of the operators."""
    text = "\n".join(p.read_text() for p in sorted((ROOT / "tests" / "operators").glob("*.py")))
    named = set(re.findall(r'"([A-Za-z0-9_.:]+)"', text))
    passed = {
        operator
        for operator, cases in node_cases().items()
        for i in range(len(cases))
        if outcome(operator, i).kind == "passed"
    }
    untested: list[str] = []
    for r in support_matrix(ask=False):
        if r.route == ROW:
            row = OPERATORS[r.key]
            assert callable(row.infer) and callable(row.reference) and callable(row.bound), r.key
        # A case of a preview or machine learning operator is filed under its plain name.
        if r.supported and not {r.key, r.operator} & (named | passed):
            untested.append(r.key)
    assert not untested, "give each a test in tests/operators"


@pytest.mark.slow
def test_the_page_of_operators_is_up_to_date() -> None:
    page = operators_page(support_matrix())
    written = (ROOT / "docs" / "operators.md").read_text()
    if ONEDNN.unavailable() is not None:
        written = re.sub(r"ONEDNN(, )?", "", written)
    assert page == written, "run python docs/make_operators.py"


@pytest.mark.slow
def test_kernels_types_and_refusals_are_asked_for() -> None:
    found = {r.key: r for r in support_matrix()}
    conv = found["Conv"]
    assert {"NUMBA", "NUMPY"} <= set(conv.kernels)
    assert {"CUDNN", "NVRTC"} <= set(conv.gpu)
    assert types_in_words(conv.types) == "floats"
    assert found["MatMul"].gpu.count("CUBLAS_LT") == 1
    assert found["NonZero"].host and not found["NonZero"].kernels
    assert found["CastLike"].becomes == ("Cast",)
    assert found["ai.onnx.ml::ZipMap"].reason
    assert found["DFT"].kernels == () and found["DFT"].gpu == ("NVRTC",)


@pytest.mark.slow
def test_every_operator_has_a_gpu_kernel_or_a_reason_for_the_host() -> None:
    rows = [r for r in support_matrix() if r.route == ROW and r.family != "constant"]
    assert not [r.key for r in rows if not r.gpu and not r.host_on_gpu]
    assert not [r.key for r in rows if r.host and not r.host_on_gpu]
