"""Operators of ai.onnx.ml against ONNX Runtime, and the standard's text where that differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_node import run_node, texts, types_of, unknown
from string_peer import string_peer

from workbench.body import Literal, UnrankedType
from workbench.datatypes import DataType
from workbench.errors import ExecutionError, InferenceError

DOMAIN = "ai.onnx.ml"
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")


def ours(op: str, inputs: Sequence[Any], attributes: Any, outputs: int = 1) -> list[Any]:
    return run_node(f"{DOMAIN}::{op}", inputs, attributes=attributes, outputs=outputs)


def check(
    op: str, inputs: Sequence[Any], attributes: dict[str, Any], *, outputs: int = 1, opset: int = 3
) -> None:
    """Both give the same labels, and the same numbers within rounding."""
    made = ours(op, inputs, attributes, outputs)
    wanted = string_peer(op, inputs, attributes, outputs=outputs, domain=DOMAIN, domain_opset=opset)
    for a, b in zip(made, wanted, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        else:
            assert a.tolist() == b.tolist()


def quarters(g: Any, *shape: int) -> Any:
    """Small numbers that sums do not round."""
    return g.integers(-6, 7, shape).astype(np.float32) / 4


def listed(g: Any, count: int) -> list[float]:
    return quarters(g, count).tolist()


def rows(g: Any, kind: Any, columns: int = 3) -> Any:
    x = quarters(g, 5, columns)
    return x.astype(kind) if kind in (np.float32, np.float64) else (4 * x).astype(kind)


SEEDS = st.integers(0, 2**20)
KINDS = st.sampled_from([np.float32, np.float64, np.int32, np.int64])


# -- features -----------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(SEEDS, KINDS, st.sampled_from([1, 3]))
def test_scaler_and_normalizer_give_what_onnx_runtime_gives(seed: int, kind: Any, count: int):
    g = np.random.default_rng(seed)
    x = rows(g, kind)
    check("Scaler", [x], {"offset": listed(g, count), "scale": listed(g, count)})
    for norm in ("L1", "L2", "MAX"):
        check("Normalizer", [x], {"norm": norm})


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([np.float32, np.int64]))
def test_binarizer_and_imputer_give_what_onnx_runtime_gives(seed: int, kind: Any):
    g = np.random.default_rng(seed)
    x = rows(g, kind)
    if kind is np.float32:
        check("Binarizer", [x], {"threshold": 0.25})
        x[g.random(x.shape) < 0.3] = np.nan
        values = listed(g, 3)
        check(
            "Imputer", [x], {"imputed_value_floats": values, "replaced_value_float": float("nan")}
        )
    else:
        check("Imputer", [x], {"imputed_value_int64s": [7], "replaced_value_int64": 2})


def test_binarizer_keeps_the_type():
    (y,) = ours("Binarizer", [np.array([[-1, 0, 2]])], {"threshold": 0.0})
    assert y.dtype == np.int64
    assert y.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("x", [np.arange(6, dtype=np.float32).reshape(2, 3), texts("a", "b", "c")])
def test_array_feature_extractor_takes_columns(x: Any):
    check("ArrayFeatureExtractor", [x, np.array([2, 0], np.int64)], {}, opset=1)


def test_feature_vectorizer_puts_columns_side_by_side():
    x, y = np.ones((2, 2), np.float32), np.full((2, 1), 3, np.float32)
    check("FeatureVectorizer", [x, y], {"inputdimensions": [2, 1]}, opset=1)
    (made,) = ours("FeatureVectorizer", [x, y], {"inputdimensions": [1, 2]})
    assert made.tolist() == [[1, 3, 0], [1, 3, 0]]


ENCODINGS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (texts("b", "x", "a"), {"keys_strings": ["a", "b"], "values_int64s": [5, 6]}),
    (texts("b", "x"), {"keys_strings": ["a", "b"], "values_floats": [0.5, 1.5]}),
    (np.array([2, 9]), {"keys_int64s": [1, 2], "values_strings": ["a", "b"]}),
    (
        np.array([0.5, 1.5, 0], np.float32),
        {"keys_floats": [0.5, 1.5], "values_int64s": [1, 2], "default_int64": 7},
    ),
)


@pytest.mark.parametrize(("x", "attributes"), ENCODINGS)
def test_label_encoder_gives_what_onnx_runtime_gives(x: Any, attributes: dict[str, Any]):
    check("LabelEncoder", [x], attributes, opset=2)


def test_every_nan_is_one_key_and_of_equal_keys_the_last_counts():
    attributes = {"keys_floats": [float("nan"), 3, 3], "values_int64s": [1, 2, 4]}
    (made,) = ours("LabelEncoder", [np.array([np.nan, 3, 0], np.float32)], attributes)
    assert made.tolist() == [1, 4, -1]


def test_label_encoder_reads_tensors_of_keys_and_values():
    attributes = {
        "keys_tensor": Literal.of(texts("a", "b")),
        "values_tensor": Literal.of(np.array([1, 2], np.int16)),
        "default_tensor": Literal.of(np.array([42], np.int16)),
    }
    (made,) = ours("LabelEncoder", [texts("b", "z")], attributes)
    assert made.dtype == np.int16
    assert made.tolist() == [2, 42]


def test_label_encoder_refuses_two_lists_of_keys_or_keys_of_another_type():
    with pytest.raises(InferenceError, match=r"2 of the attributes keys_\* are set"):
        types_of(
            f"{DOMAIN}::LabelEncoder",
            [texts("a")],
            {"keys_strings": ["a"], "keys_int64s": [1], "values_int64s": [1]},
        )
    with pytest.raises(InferenceError, match="give keys of the input's type"):
        types_of(
            f"{DOMAIN}::LabelEncoder",
            [np.array([1])],
            {"keys_strings": ["a"], "values_int64s": [1]},
        )


def test_category_mapper_works_both_ways():
    table = {"cats_int64s": [1, 2], "cats_strings": ["a", "b"]}
    check("CategoryMapper", [texts("b", "x")], {**table, "default_int64": 9}, opset=1)
    check("CategoryMapper", [np.array([1, 7])], {**table, "default_string": "none"}, opset=1)


def test_one_hot_encoder_adds_an_axis_of_categories():
    check("OneHotEncoder", [np.array([[1, 5], [3, 9]])], {"cats_int64s": [3, 1, 5]}, opset=1)
    check("OneHotEncoder", [texts("b", "x")], {"cats_strings": ["a", "b"]}, opset=1)
    with pytest.raises(ExecutionError, match="'x' is none of the categories"):
        ours("OneHotEncoder", [texts("x")], {"cats_strings": ["a"], "zeros": 0})


# -- linear models and support vectors ----------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(SEEDS, KINDS, st.integers(2, 3), st.sampled_from(TRANSFORMS))
def test_linear_models_give_what_onnx_runtime_gives(seed: int, kind: Any, count: int, how: str):
    g = np.random.default_rng(seed)
    x = rows(g, kind)
    attributes: dict[str, Any] = {
        "coefficients": listed(g, 3 * count),
        "intercepts": listed(g, count),
        "post_transform": how,
    }
    if kind is np.float32:
        check("LinearRegressor", [x], {**attributes, "targets": count})
    labels = {"classlabels_strings": list("abc")[:count]}
    check("LinearClassifier", [x], {**attributes, **labels}, outputs=2)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from(TRANSFORMS))
def test_one_score_for_two_classes_is_that_of_the_second(seed: int, how: str):
    g = np.random.default_rng(seed)
    attributes = {
        "coefficients": listed(g, 3),
        "intercepts": listed(g, 1),
        "classlabels_ints": [4, 5],
        "post_transform": how,
    }
    check("LinearClassifier", [rows(g, np.float32)], attributes, outputs=2)


KERNELS = st.sampled_from(["LINEAR", "POLY", "RBF", "SIGMOID"])


@settings(max_examples=60, deadline=None)
@given(SEEDS, KERNELS, st.booleans(), st.booleans())
def test_support_vector_regression_gives_what_onnx_runtime_gives(
    seed: int, kernel: str, vectors: bool, one_class: bool
):
    g = np.random.default_rng(seed)
    attributes: dict[str, Any] = {
        "n_supports": 4 if vectors else 0,
        "coefficients": listed(g, 4 if vectors else 3),
        "rho": listed(g, 1),
        "kernel_type": kernel if vectors else "LINEAR",
        "kernel_params": [0.5, 0.25, 2.0],
        "one_class": int(one_class),
    }
    if vectors:
        attributes["support_vectors"] = listed(g, 12)
    check("SVMRegressor", [rows(g, np.float32)], attributes)


@settings(max_examples=60, deadline=None)
@given(SEEDS, KERNELS, st.integers(2, 3), st.booleans())
def test_support_vector_classes_are_those_of_onnx_runtime(
    seed: int, kernel: str, classes: int, likely: bool
):
    g = np.random.default_rng(seed)
    sizes = g.integers(1, 4, classes).tolist()
    pairs = classes * (classes - 1) // 2
    attributes: dict[str, Any] = {
        "classlabels_ints": [7, 8, 9][:classes],
        "vectors_per_class": sizes,
        "support_vectors": listed(g, 3 * sum(sizes)),
        "coefficients": listed(g, sum(sizes) * (classes - 1)),
        "rho": listed(g, pairs),
        "kernel_type": kernel,
        "kernel_params": [0.5, 0.25, 2.0],
    }
    if likely:
        attributes["prob_a"] = [-abs(v) - 0.5 for v in listed(g, pairs)]
        attributes["prob_b"] = listed(g, pairs)
    # Both labels of ONNX Runtime's two-class machine come out only where a coefficient is negative.
    attributes["coefficients"][0] = -1.0
    check("SVMClassifier", [rows(g, np.float32)], attributes, outputs=2)


@pytest.mark.parametrize(
    ("op", "change", "message"),
    [
        ("LinearClassifier", {"coefficients": [1.0] * 5}, "5 coefficients"),
        ("LinearClassifier", {"post_transform": "TANH"}, "post_transform is 'TANH'"),
        ("LinearClassifier", {"classlabels_strings": ["a", "b"]}, "give one of them"),
        ("LinearRegressor", {"targets": 4}, "6 coefficients"),
        ("SVMRegressor", {"kernel_type": "COSINE"}, "kernel_type is 'COSINE'"),
        ("SVMRegressor", {"kernel_type": "RBF"}, "give gamma, coef0, degree"),
        ("SVMClassifier", {"vectors_per_class": [1, 1], "rho": [0.0] * 3}, "a rho a pair"),
        ("Scaler", {"offset": [1.0, 2.0]}, "offset has 2 entries"),
        ("Normalizer", {"norm": "L3"}, "norm is 'L3'"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(op: str, change: dict[str, Any], message: str):
    attributes: dict[str, Any] = {
        "LinearClassifier": {"coefficients": [1.0] * 6, "classlabels_ints": [1, 2]},
        "LinearRegressor": {"coefficients": [1.0] * 6, "targets": 2},
        "SVMRegressor": {"coefficients": [1.0] * 3, "rho": [0.0]},
        "SVMClassifier": {"coefficients": [1.0] * 6, "rho": [0.0], "classlabels_ints": [1, 2]},
        "Scaler": {"offset": [1.0], "scale": [1.0]},
        "Normalizer": {},
    }[op]
    with pytest.raises(InferenceError, match=message):
        types_of(f"{DOMAIN}::{op}", [unknown(DataType.FLOAT, 2, 3)], {**attributes, **change})


def test_without_a_rank_the_element_types_are_known():
    x = UnrankedType(DataType.FLOAT)
    attributes = {"coefficients": [1.0] * 6, "classlabels_strings": ["a", "b"], "intercepts": [0.0]}
    attributes["intercepts"] = [0.0, 0.0]
    made = types_of(f"{DOMAIN}::LinearClassifier", [x], attributes, outputs=2)
    assert made == (UnrankedType(DataType.STRING), UnrankedType(DataType.FLOAT))
    assert types_of(f"{DOMAIN}::Normalizer", [x]) == (x,)
