"""Sums and products so far: CumSum and CumProd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.body import Array, Attributes, BoundRule, Inference, Operator, Reference, TensorType
from workbench.operators.arithmetic import is_number, restricted
from workbench.operators.products import gamma
from workbench.operators.rules import axis_of, filled, known, numbers_of, reducer, same_type


def _cumulative_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    (axis,) = numbers_of(known(inference, 1, "axis"), "axis")
    axis_of(axis, len(x.shape))
    return (x,)


def _cumulative(function: np.ufunc) -> Reference:
    def reference(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
        x, axis = inputs[0], int(np.asarray(inputs[1]).reshape(()))
        if attributes["reverse"]:
            x = np.flip(x, axis)
        y = function.accumulate(x, axis=axis, dtype=x.dtype)
        if attributes["exclusive"] and x.shape[axis]:
            nothing = np.full_like(np.take(y, [0], axis=axis), function.identity)
            y = np.concatenate((nothing, np.take(y, np.arange(x.shape[axis] - 1), axis=axis)), axis)
        return (np.flip(y, axis) if attributes["reverse"] else y,)

    return reference


def _bound(reference: Reference) -> BoundRule:
    """What magnitudes grown by their errors give more, and a rounding a step."""

    def bound(attributes: Attributes, x: Any, e: Any, y: Any, unit: float) -> tuple[Any, ...]:
        axis = int(np.asarray(x[1]).reshape(()))
        magnitude = np.abs(x[0].astype(np.float64))
        (size,) = reference(attributes, (magnitude, x[1]))
        (large,) = reference(attributes, (magnitude + filled(e[0], x[0]), x[1]))
        own = 4 * gamma(x[0].shape[axis], unit) * large if x[0].dtype.kind == "f" else 0.0
        return (large - size + own,)

    return bound


def _row(name: str, function: np.ufunc) -> Operator:
    reference = _cumulative(function)
    return reducer(
        name,
        restricted(_cumulative_types, is_number, "numbers"),
        reference,
        _bound(reference),
        layer_type="CUMULATIVE",
        structural=frozenset({1}),
        attributes={"exclusive": 0, "reverse": 0},
        open=same_type,
    )


CUMULATIVE: tuple[Operator, ...] = (_row("CumSum", np.add), _row("CumProd", np.multiply))
