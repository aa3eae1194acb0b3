"""Scores of a classifier or regressor: what is done to them at the end, and the labels they give.

Source: ONNX-ML's post_transform, which it only names; the formulas are ONNX Runtime's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from workbench.body import Array, Attributes, HostType, Inference, TensorType, UnrankedType
from workbench.datatypes import DataType
from workbench.errors import InferenceError

TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
"""In the order of their numbers in TreeEnsemble-5."""


def check_transform(name: str) -> None:
    """Raise InferenceError for a transform that is not the standard's."""
    if name not in TRANSFORMS:
        raise InferenceError(
            f"post_transform is {name!r}", remedy=f"known: {', '.join(TRANSFORMS)}"
        )


def transformed(scores: Array, name: str) -> Array:
    """Scores [..., classes] after a post_transform."""
    return _FORMULAS[name](scores)


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    half = 1 / (1 + np.exp(-np.abs(x)))
    return np.where(x < 0, 1 - half, half)


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _softmax_zero(x: Array) -> Array:
    """Softmax of what is not zero; what is stays so."""
    top = x.max(-1, keepdims=True)
    e = np.where(np.abs(x) > 1e-7, np.exp(x - top), x * np.exp(-top))
    total = e.sum(-1, keepdims=True)
    return np.where(total == 0, 0.5, e / np.where(total == 0, 1, total))


def _probit(x: Array) -> Array:
    """The quantile of the normal distribution, by Winitzki's inverse of erf (error 2e-3)."""
    y = 2 * x - 1
    log = np.log((1 - y) * (1 + y))
    half = 2 / (np.pi * 0.147) + 0.5 * log
    return np.sqrt(2) * np.sign(y) * np.sqrt(np.sqrt(half * half - log / 0.147) - half)


_FORMULAS: dict[str, Callable[[Array], Array]] = {
    "NONE": lambda x: x,
    "SOFTMAX": _softmax,
    "LOGISTIC": logistic,
    "SOFTMAX_ZERO": _softmax_zero,
    "PROBIT": _probit,
}


def labels_of(attributes: Attributes, *, integers: str) -> tuple[Any, ...]:
    """The class labels, whichever attribute lists them. Raises InferenceError unless one does."""
    given = attributes[integers], attributes["classlabels_strings"]
    if bool(given[0]) == bool(given[1]):
        raise InferenceError(
            f"{integers} is {given[0]}, classlabels_strings {given[1]}", remedy="give one of them"
        )
    return given[0] or given[1]


def classified_types(
    inference: Inference, labels: tuple[Any, ...], columns: int
) -> tuple[TensorType, ...]:
    """A label and ``columns`` scores of each row of the input."""
    x = inference.input(0)
    kind = DataType.STRING if isinstance(labels[0], str) else DataType.INT64
    if isinstance(x, HostType):
        return (UnrankedType(kind), UnrankedType(DataType.FLOAT))[: inference.outputs]
    rows = x.shape[0] if len(x.shape) > 1 else 1
    found = TensorType(kind, (rows,)), TensorType(DataType.FLOAT, (rows, columns))
    return found[: inference.outputs]


def regressed_types(inference: Inference, targets: int, dtype: DataType) -> tuple[TensorType, ...]:
    """``targets`` numbers of each row of the input."""
    x = inference.input(0)
    if isinstance(x, HostType):
        return (UnrankedType(dtype),)
    rows = x.shape[0] if len(x.shape) > 1 else 1
    return (TensorType(dtype, (rows, targets)),)


def chosen(labels: tuple[Any, ...], index: Array) -> Array:
    """The labels at these places."""
    kind = np.object_ if isinstance(labels[0], str) else np.int64
    return np.array([labels[i] for i in index], kind).reshape(index.shape)
