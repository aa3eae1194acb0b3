"""Linear models and support vector machines of ai.onnx.ml."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from workbench.body import (
    REQUIRED,
    Array,
    Attributes,
    HostType,
    Inference,
    Operator,
    TensorType,
)
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators.features import ml_row
from workbench.operators.scores import (
    check_transform,
    chosen,
    classified_types,
    labels_of,
    logistic,
    regressed_types,
    transformed,
)

KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


def _matrix(x: Any) -> Array:
    """The input as rows of float64."""
    return np.atleast_2d(x).astype(np.float64)


def _width(inference: Inference) -> int | None:
    """Features of a row, where that is known."""
    x = inference.input(0)
    size = None if isinstance(x, HostType) or not x.shape else x.shape[-1]
    return size if isinstance(size, int) else None


def _list(attributes: Attributes, key: str) -> Array:
    return np.asarray(attributes[key] or (), np.float32).astype(np.float64)


def _check_coefficients(inference: Inference, outputs: int | None) -> int:
    """How many outputs the coefficients make. Raises InferenceError where they do not fit."""
    width, count = _width(inference), len(inference.attributes["coefficients"] or ())
    intercepts = len(inference.attributes["intercepts"] or ())
    found = outputs or intercepts or (count // width if width else 0)
    fits = found > 0 and count % found == 0 and (width is None or count == found * width)
    if not fits or intercepts not in (0, found):
        raise InferenceError(
            f"{count} coefficients, {intercepts} intercepts for an input {inference.input(0)}",
            remedy="give a coefficient a feature and output, and an intercept an output",
        )
    return found


def _linear(attributes: Attributes, x: Array) -> Array:
    scores = x @ _list(attributes, "coefficients").reshape(-1, x.shape[1]).T
    return scores + _list(attributes, "intercepts") if attributes["intercepts"] else scores


# -- LinearRegressor, LinearClassifier ----------------------------------------------------
def _regressor_types(inference: Inference) -> tuple[TensorType, ...]:
    check_transform(inference.attributes["post_transform"])
    targets = inference.attributes["targets"]
    _check_coefficients(inference, targets)
    return regressed_types(inference, targets, DataType.FLOAT)


def _regressor(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    scores = _linear(attributes, _matrix(inputs[0]))
    return (transformed(scores, attributes["post_transform"]).astype(np.float32),)


def _classifier_types(inference: Inference) -> tuple[TensorType, ...]:
    check_transform(inference.attributes["post_transform"])
    labels = labels_of(inference.attributes, integers="classlabels_ints")
    outputs = _check_coefficients(inference, None)
    if outputs != len(labels) and (outputs, len(labels)) != (1, 2):
        raise InferenceError(f"{outputs} scores for {len(labels)} classlabels")
    return classified_types(inference, labels, len(labels))


def _classifier(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """One score for two classes is that of the second."""
    labels = labels_of(attributes, integers="classlabels_ints")
    scores, transform = _linear(attributes, _matrix(inputs[0])), attributes["post_transform"]
    best = scores.argmax(-1)
    if scores.shape[1] == 1 and len(labels) == 2:
        best = (scores[:, 0] > 0).astype(np.int64)
        if transform == "LOGISTIC":
            scores = np.concatenate([-scores, scores], -1)
        else:
            scores, transform = np.concatenate([1 - scores, scores], -1), "NONE"
    return chosen(labels, best), transformed(scores, transform).astype(np.float32)


# -- support vectors ----------------------------------------------------------------------
def _check_kernel(inference: Inference) -> None:
    attributes = inference.attributes
    check_transform(attributes["post_transform"])
    if attributes["kernel_type"] not in KERNELS:
        raise InferenceError(
            f"kernel_type is {attributes['kernel_type']!r}", remedy=f"known: {', '.join(KERNELS)}"
        )
    if attributes["kernel_type"] != "LINEAR" and len(attributes["kernel_params"] or ()) != 3:
        raise InferenceError(
            f"kernel_params is {attributes['kernel_params']}", remedy="give gamma, coef0, degree"
        )
    if not attributes["rho"]:
        raise InferenceError("there is no rho", remedy="give the intercepts as rho")


def _kernel(attributes: Attributes, x: Array, vectors: Array) -> Array:
    """The kernel of each row with each support vector."""
    gamma, offset, degree = attributes["kernel_params"] or (0.0, 0.0, 0.0)
    match attributes["kernel_type"]:
        case "LINEAR":
            return x @ vectors.T
        case "POLY":
            return (gamma * (x @ vectors.T) + offset) ** int(degree)
        case "SIGMOID":
            return np.tanh(gamma * (x @ vectors.T) + offset)
        case _:
            return np.exp(-gamma * np.square(x[:, None, :] - vectors).sum(-1))


def _check_vectors(inference: Inference, count: int, coefficients: int) -> None:
    attributes, width = inference.attributes, _width(inference)
    vectors = len(attributes["support_vectors"] or ())
    given = len(attributes["coefficients"] or ())
    if vectors % count or (width is not None and vectors != count * width) or given != coefficients:
        raise InferenceError(
            f"{count} support vectors of an input {inference.input(0)} have {vectors} numbers and "
            f"{given} coefficients, not {coefficients}",
            remedy="give a number a feature and vector",
        )


def _svm_regressor_types(inference: Inference) -> tuple[TensorType, ...]:
    _check_kernel(inference)
    if count := inference.attributes["n_supports"]:
        _check_vectors(inference, count, count)
    return regressed_types(inference, 1, DataType.FLOAT)


def _svm_regressor(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, coefficients = _matrix(inputs[0]), _list(attributes, "coefficients")
    if count := attributes["n_supports"]:
        vectors = _list(attributes, "support_vectors").reshape(count, -1)
        scores = _kernel(attributes, x, vectors) @ coefficients
    else:
        scores = x @ coefficients
    scores = scores + _list(attributes, "rho")[0]
    if attributes["one_class"]:
        scores = np.where(scores > 0, 1.0, -1.0)
    return (transformed(scores[:, None], attributes["post_transform"]).astype(np.float32),)


def _svm_classifier_types(inference: Inference) -> tuple[TensorType, ...]:
    _check_kernel(inference)
    attributes = inference.attributes
    labels = labels_of(attributes, integers="classlabels_ints")
    classes, sizes = len(labels), attributes["vectors_per_class"]
    if not sizes:
        if len(attributes["coefficients"] or ()) % classes:
            raise InferenceError(f"coefficients do not divide into {classes} classes")
        return classified_types(inference, labels, classes)
    pairs = classes * (classes - 1) // 2
    if len(sizes) != classes or classes < 2 or len(attributes["rho"]) != pairs:
        raise InferenceError(
            f"{classes} classlabels, {len(sizes)} vectors_per_class, {len(attributes['rho'])} rho",
            remedy="give a size a class, and a rho a pair of classes",
        )
    _check_vectors(inference, sum(sizes), sum(sizes) * (classes - 1))
    for key in ("prob_a", "prob_b"):
        if len(attributes[key] or ()) not in (0, pairs):
            raise InferenceError(f"{key} has {len(attributes[key])} entries for {pairs} pairs")
    return classified_types(inference, labels, classes if attributes["prob_a"] else max(pairs, 2))


def _svm_classifier(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    labels = labels_of(attributes, integers="classlabels_ints")
    x, transform = _matrix(inputs[0]), attributes["post_transform"]
    if not attributes["vectors_per_class"]:
        weights = _list(attributes, "coefficients").reshape(len(labels), -1)
        scores = x @ weights.T + _list(attributes, "rho")[0]
        best = scores.argmax(-1)
    else:
        pairs, votes = _duels(attributes, x, len(labels))
        best = votes.argmax(-1)
        scores = pairs
        if attributes["prob_a"]:
            scores = _probabilities(attributes, pairs, len(labels))
        elif pairs.shape[1] == 1:
            scores = np.concatenate([-pairs, pairs], -1)
    return chosen(labels, best), transformed(scores, transform).astype(np.float32)


def _duels(attributes: Attributes, x: Array, classes: int) -> tuple[Array, Array]:
    """The score of each pair of classes, and how many pairs each class wins."""
    sizes = attributes["vectors_per_class"]
    ends = np.cumsum([0, *sizes])
    vectors = _list(attributes, "support_vectors").reshape(ends[-1], -1)
    kernel = _kernel(attributes, x, vectors)
    weights = _list(attributes, "coefficients").reshape(classes - 1, ends[-1])
    part = [slice(ends[k], ends[k + 1]) for k in range(classes)]
    votes = np.zeros((len(x), classes))
    scores: list[Array] = []
    for rho, (i, j) in zip(_list(attributes, "rho"), combinations(range(classes), 2), strict=True):
        own = kernel[:, part[i]] @ weights[j - 1, part[i]]
        score = rho + own + kernel[:, part[j]] @ weights[i, part[j]]
        votes[:, i] += score > 0
        votes[:, j] += score <= 0
        scores.append(score)
    return np.stack(scores, -1), votes


def _probabilities(attributes: Attributes, pairs: Array, classes: int) -> Array:
    """Class probabilities from those of the pairs. Source: Wu, Lin, Weng 2004, as in LIBSVM."""
    wins = np.zeros((len(pairs), classes, classes))
    a, b = _list(attributes, "prob_a"), _list(attributes, "prob_b")
    likely = np.clip(1 - logistic(pairs * a + b), 1e-7, 1 - 1e-7)
    for k, (i, j) in enumerate(combinations(range(classes), 2)):
        wins[:, i, j], wins[:, j, i] = likely[:, k], 1 - likely[:, k]
    return np.stack([_coupled(w) for w in wins])


def _coupled(wins: Array) -> Array:
    """Probabilities whose pairs come nearest to those that are given; at most 100 steps."""
    classes = len(wins)
    q = -wins.T * wins
    np.fill_diagonal(q, np.square(wins).sum(0))
    p = np.full(classes, 1 / classes)
    for _ in range(max(100, classes)):
        qp = q @ p
        total = p @ qp
        if np.abs(qp - total).max() < 0.005 / classes:
            break
        for t in range(classes):
            step = (total - qp[t]) / q[t, t]
            p[t] += step
            total = (total + step * (step * q[t, t] + 2 * qp[t])) / (1 + step) ** 2
            p, qp = p / (1 + step), (qp + step * q[t]) / (1 + step)
    return p


LINEAR_MODELS: tuple[Operator, ...] = (
    ml_row(
        "LinearRegressor",
        _regressor_types,
        _regressor,
        {"coefficients": None, "intercepts": None, "post_transform": "NONE", "targets": 1},
    ),
    ml_row(
        "LinearClassifier",
        _classifier_types,
        _classifier,
        {
            "classlabels_ints": None,
            "classlabels_strings": None,
            "coefficients": REQUIRED,
            "intercepts": None,
            "multi_class": 0,
            "post_transform": "NONE",
        },
    ),
    ml_row(
        "SVMRegressor",
        _svm_regressor_types,
        _svm_regressor,
        {
            "coefficients": None,
            "kernel_params": None,
            "kernel_type": "LINEAR",
            "n_supports": 0,
            "one_class": 0,
            "post_transform": "NONE",
            "rho": None,
            "support_vectors": None,
        },
    ),
    ml_row(
        "SVMClassifier",
        _svm_classifier_types,
        _svm_classifier,
        {
            "classlabels_ints": None,
            "classlabels_strings": None,
            "coefficients": None,
            "kernel_params": None,
            "kernel_type": "LINEAR",
            "post_transform": "NONE",
            "prob_a": None,
            "prob_b": None,
            "rho": None,
            "support_vectors": None,
            "vectors_per_class": None,
        },
    ),
)
