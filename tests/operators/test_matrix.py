"""MatMul, Gemm and Einsum: ONNX's semantics, and bounds that catch a wrong result."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_peer import against_peer, four_bounds_off, normal, one_node

from workbench import dimensions
from workbench.body import Inference, TensorType
from workbench.checks import check_outputs
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators import operator_named

FEW = settings(max_examples=30, deadline=None)
SMALL = st.integers(1, 5)


@FEW
@given(st.data())
def test_matmul_agrees_with_onnx_runtime(data):
    m, k, n = (data.draw(SMALL) for _ in range(3))
    batch = data.draw(st.lists(SMALL, max_size=2))
    left = [d if data.draw(st.booleans()) else 1 for d in batch]
    right = [
        d if a == 1 or data.draw(st.booleans()) else 1 for d, a in zip(batch, left, strict=True)
    ]
    a, b = normal(0, *left, m, k), normal(1, *right[data.draw(st.integers(0, len(right))) :], k, n)
    if data.draw(st.integers(0, 4)) == 0:
        a = normal(0, k)
    result = against_peer("MatMul", [a, b])
    assert result.passed, result.message


@FEW
@given(st.data())
def test_gemm_agrees_with_onnx_runtime(data):
    m, k, n = (data.draw(SMALL) for _ in range(3))
    trans = {"transA": data.draw(st.integers(0, 1)), "transB": data.draw(st.integers(0, 1))}
    scale = {"alpha": data.draw(st.sampled_from([1.0, 0.5, -2.0])), "beta": 1.5}
    a = normal(0, *((k, m) if trans["transA"] else (m, k)))
    b = normal(1, *((n, k) if trans["transB"] else (k, n)))
    shape = data.draw(st.sampled_from([None, (), (1,), (n,), (1, n), (m, 1), (m, n)]))
    c = None if shape is None else np.asarray(normal(2, *shape))
    result = against_peer("Gemm", [a, b, c], {**trans, **scale})
    assert result.passed, result.message


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("bhid, bhjd -> bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,...jk", [(2, 3, 4), (1, 4, 5)]),
        ("ii->i", [(4, 4)]),
        ("ij->", [(3, 4)]),
        ("ij,j", [(3, 4), (4,)]),
        ("i,j,k->ijk", [(2,), (3,), (4,)]),
    ],
)
def test_einsum_agrees_with_onnx_runtime(equation, shapes):
    inputs = [normal(i, *s) for i, s in enumerate(shapes)]
    result = against_peer("Einsum", inputs, {"equation": equation})
    assert result.passed, result.message


def test_an_ellipsis_broadcasts_over_missing_axes():
    a, b = normal(0, 2, 3, 4), normal(1, 4, 5)
    body, values = one_node("Einsum", [a, b], {"equation": "...ij,...jk->...ik"})
    np.testing.assert_allclose(body.evaluate(values)["o0"], a @ b, rtol=1e-5)


@pytest.mark.parametrize(
    ("equation", "ranks"), [("ij,jk->ik", 3), ("ij->ijk", 2), ("ij,->", 2), ("i1->i", 2)]
)
def test_einsum_refuses_an_equation_that_does_not_fit(equation, ranks):
    t = TensorType(DataType.FLOAT, (2,) * ranks)
    with pytest.raises(InferenceError, match="equation"):
        operator_named("Einsum").infer(Inference({"equation": equation}, (t,), (None,)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Einsum"])
def test_an_error_of_four_bounds_fails_and_the_reference_passes(op, dtype):
    inputs = [normal(i, 8, 8).astype(dtype) for i in range(3 if op == "Gemm" else 2)]
    body, values = one_node(op, inputs, {"equation": "ij,jk->ik"} if op == "Einsum" else {})
    assert check_outputs(body, values, body.evaluate(values)).passed
    assert not four_bounds_off(body, values).passed


def test_integer_products_are_exact():
    a = np.arange(6, dtype=np.int64).reshape(2, 3)
    body, values = one_node("MatMul", [a, a.T.copy()])
    right = body.evaluate(values)["o0"]
    assert check_outputs(body, values, {"o0": right}).worst == 0
    assert not check_outputs(body, values, {"o0": right + 1}).passed


def test_shapes_keep_symbols():
    b, t = dimensions.symbol("b"), dimensions.symbol("t")
    x = TensorType(DataType.FLOAT, (b, 12, t, 64))
    w = TensorType(DataType.FLOAT, (1, 12, 64, t))
    (y,) = operator_named("MatMul").infer(Inference({}, (x, w), (None, None)))
    assert y.shape == (b, 12, t, t)
    (z,) = operator_named("Einsum").infer(
        Inference({"equation": "bhtd,...hdu->bhtu"}, (x, w), (None, None))
    )
    assert z.shape == (b, 12, t, t)


def test_a_mismatch_names_both_sizes_and_the_remedy():
    a, b = TensorType(DataType.FLOAT, (2, 768)), TensorType(DataType.FLOAT, (512, 4))
    with pytest.raises(InferenceError, match="A has K=768, B has K=512; transpose B or re-export"):
        operator_named("MatMul").infer(Inference({}, (a, b), (None, None)))


def test_operands_of_two_types_are_refused():
    a, b = TensorType(DataType.FLOAT, (2, 2)), TensorType(DataType.HALF, (2, 2))
    with pytest.raises(InferenceError, match="FLOAT and HALF; cast them"):
        operator_named("MatMul").infer(Inference({}, (a, b), (None, None)))


def test_cost_counts_a_multiply_and_an_add_as_two():
    def flops(op, *shapes, **attributes):
        row = operator_named(op)
        full = row.complete(attributes)
        types = tuple(TensorType(DataType.FLOAT, s) for s in shapes)
        return row.cost(full, types, row.infer(Inference(full, types, (None,) * 3))).flops

    assert flops("MatMul", (2, 3, 4), (4, 5)) == 2 * 2 * 3 * 4 * 5
    assert flops("Gemm", (4, 3), (5, 4), (5,), transA=1, transB=1) == 2 * 3 * 4 * 5 + 3 * 5
    assert flops("Einsum", (3, 4), (4, 5), equation="ij,jk->ik") == 2 * 3 * 4 * 5
