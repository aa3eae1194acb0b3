"""One step of an optimizer: Adagrad, Adam, Momentum, of the domain ai.onnx.preview.training.

Inputs are the learning rate, the count of updates so far, and then groups of tensors of equal
length: the parameters, their gradients, and each kind of state. Outputs are the new parameters and
the new states, in groups too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench.body import REQUIRED, Array, Attributes, Inference, InferRule, Operator, TensorType
from workbench.errors import InferenceError
from workbench.operators.rules import no_error

DOMAIN = "ai.onnx.preview.training"

Update = Callable[..., tuple[Array, ...]]
"""(attributes, rate, count, parameter, gradient, *states) -> the parameter and the states, new."""


def _grouped(states: int) -> InferRule:
    """Types of an optimizer with so many kinds of state."""

    def rule(inference: Inference) -> tuple[TensorType, ...]:
        groups = 2 + states
        given = [inference.input(i) for i in range(2, len(inference.inputs))]
        if not given or len(given) % groups:
            raise InferenceError(
                f"{len(given)} tensors after the rate and the count do not make {groups} groups",
                remedy="give parameters, gradients and states, as many of each",
            )
        count = len(given) // groups
        return tuple(given[:count] + given[2 * count :])[: inference.outputs]

    return rule


def _each(update: Update, states: int) -> Callable[..., tuple[Array, ...]]:
    """A reference that updates one parameter after the other."""

    def reference(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
        rate, steps = (np.asarray(v).reshape(())[()] for v in inputs[:2])
        count = (len(inputs) - 2) // (2 + states)
        groups = [inputs[2 + k * count : 2 + (k + 1) * count] for k in range(2 + states)]
        made = [update(attributes, rate, int(steps), *one) for one in zip(*groups, strict=True)]
        return tuple(value for group in zip(*made, strict=True) for value in group)

    return reference


def _adagrad(a: Attributes, rate: Any, steps: int, x: Array, g: Array, h: Array) -> Any:
    rate = rate / (1 + steps * a["decay_factor"])
    g = a["norm_coefficient"] * x + g
    h = h + g * g
    return x - rate * g / (np.sqrt(h) + a["epsilon"]), h


def _adam(a: Attributes, rate: Any, steps: int, x: Array, g: Array, v: Array, h: Array) -> Any:
    alpha, beta = a["alpha"], a["beta"]
    g = a["norm_coefficient"] * x + g
    v = alpha * v + (1 - alpha) * g
    h = beta * h + (1 - beta) * (g * g)
    if steps > 0:
        rate = rate * np.sqrt(1 - beta**steps) / (1 - alpha**steps)
    x = x - rate * (v / (np.sqrt(h) + a["epsilon"]))
    return (1 - a["norm_coefficient_post"]) * x, v, h


def _momentum(a: Attributes, rate: Any, steps: int, x: Array, g: Array, v: Array) -> Any:
    g = a["norm_coefficient"] * x + g
    v = a["alpha"] * v + (a["beta"] if steps > 0 else 1.0) * g
    return x - rate * (g + a["alpha"] * v if a["mode"] == "nesterov" else v), v


def _momentum_types(inference: Inference) -> tuple[TensorType, ...]:
    mode = inference.attributes["mode"]
    if mode not in ("nesterov", "standard"):
        raise InferenceError(f"mode is {mode!r}", remedy="known: nesterov, standard")
    return _grouped(1)(inference)


def _row(
    name: str,
    update: Update,
    states: int,
    attributes: Mapping[str, Any],
    *,
    infer: InferRule | None = None,
) -> Operator:
    return Operator(
        name=name,
        infer=infer or _grouped(states),
        reference=_each(update, states),
        bound=no_error,
        layer_type="OPTIMIZER",
        family="training",
        attributes=MappingProxyType(dict(attributes)),
        domain=DOMAIN,
        host=True,
    )


TRAINING: tuple[Operator, ...] = (
    _row(
        "Adagrad",
        _adagrad,
        1,
        {"decay_factor": 0.0, "epsilon": 1e-6, "norm_coefficient": 0.0},
    ),
    _row(
        "Adam",
        _adam,
        2,
        {
            "alpha": 0.9,
            "beta": 0.999,
            "epsilon": 1e-6,
            "norm_coefficient": 0.0,
            "norm_coefficient_post": 0.0,
        },
    ),
    _row(
        "Momentum",
        _momentum,
        1,
        dict.fromkeys(("alpha", "beta", "mode", "norm_coefficient"), REQUIRED),
        infer=_momentum_types,
    ),
)
