"""Activations: the pointwise functions of one variable that oneDNN computes after a primitive.

A single operator is looked up by name. A group of operators (x·sigmoid(x), the many spellings of
GELU) is recognized by its values: it is evaluated in float64 on a grid and compared with every
function of ``COMPOSED``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import Array, Node
from workbench.tactics.onednn.constants import Algorithm

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Eltwise:
    """x = algorithm(x), with oneDNN's two parameters."""

    algorithm: Algorithm
    alpha: float = 0.0
    beta: float = 0.0


def _gelu(attributes: Mapping[str, Any]) -> Eltwise:
    tanh = attributes.get("approximate", "none") == "tanh"
    return Eltwise(Algorithm.GELU_TANH if tanh else Algorithm.GELU_ERF)


_BY_NAME: dict[str, Callable[[Mapping[str, Any]], Eltwise]] = {
    "Relu": lambda a: Eltwise(Algorithm.RELU),
    "LeakyRelu": lambda a: Eltwise(Algorithm.RELU, a["alpha"]),
    "Elu": lambda a: Eltwise(Algorithm.ELU, a["alpha"]),
    "Tanh": lambda a: Eltwise(Algorithm.TANH),
    "Sigmoid": lambda a: Eltwise(Algorithm.LOGISTIC),
    "HardSigmoid": lambda a: Eltwise(Algorithm.HARDSIGMOID, a["alpha"], a["beta"]),
    "HardSwish": lambda a: Eltwise(Algorithm.HARDSWISH, 1 / 6, 0.5),
    "Swish": lambda a: Eltwise(Algorithm.SWISH, a["alpha"]),
    "Gelu": _gelu,
    "Mish": lambda a: Eltwise(Algorithm.MISH),
    "Softplus": lambda a: Eltwise(Algorithm.SOFT_RELU, 1.0),
    "Abs": lambda a: Eltwise(Algorithm.ABS),
    "Sqrt": lambda a: Eltwise(Algorithm.SQRT),
    "Exp": lambda a: Eltwise(Algorithm.EXP),
    "Log": lambda a: Eltwise(Algorithm.LOG),
    "Round": lambda a: Eltwise(Algorithm.ROUND),
    "Neg": lambda a: Eltwise(Algorithm.LINEAR, -1.0),
    "Reciprocal": lambda a: Eltwise(Algorithm.POW, 1.0, -1.0),
}

UNARY: tuple[str, ...] = (*_BY_NAME, "Clip")
"""Operators of one variable that oneDNN has."""

BINARY: dict[str, Algorithm] = {
    "Add": Algorithm.ADD,
    "Sub": Algorithm.SUB,
    "Mul": Algorithm.MUL,
    "Div": Algorithm.DIV,
    "Max": Algorithm.MAX,
    "Min": Algorithm.MIN,
}


def named(node: Node, limits: Sequence[float | None]) -> Eltwise | None:
    """The activation that one node of one variable is. limits: Clip's scalars, None if absent."""
    if node.op == "Clip":
        low, high = (*limits, None, None)[:2]
        return Eltwise(
            *(Algorithm.CLIP, -LARGEST if low is None else low),
            LARGEST if high is None else high,
        )
    make = _BY_NAME.get(node.op)
    return make(node.attributes) if make else None


def with_scalar(op: str, scalar: float, *, scalar_first: bool) -> Eltwise | None:
    """``x op scalar`` (or ``scalar op x``) as one function of x."""
    match op, scalar_first:
        case "Add", _:
            return Eltwise(Algorithm.LINEAR, 1.0, scalar)
        case "Sub", False:
            return Eltwise(Algorithm.LINEAR, 1.0, -scalar)
        case "Sub", True:
            return Eltwise(Algorithm.LINEAR, -1.0, scalar)
        case "Mul", _:
            return Eltwise(Algorithm.LINEAR, scalar)
        case "Div", False if scalar:
            return Eltwise(Algorithm.LINEAR, 1 / scalar)
        case "Div", True:
            return Eltwise(Algorithm.POW, scalar, -1.0)
        case "Max", _:
            return Eltwise(Algorithm.CLIP, scalar, LARGEST)
        case "Min", _:
            return Eltwise(Algorithm.CLIP, -LARGEST, scalar)
        case "Pow", False:
            squared = Eltwise(Algorithm.SQUARE)
            return squared if scalar == 2 else Eltwise(Algorithm.POW, 1.0, scalar)
        case _:
            return None


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _gelu_tanh(x: Array) -> Array:
    # Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016), the approximation of section 2.
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


COMPOSED: tuple[tuple[Eltwise, Callable[[Array], Array]], ...] = (
    (Eltwise(Algorithm.SWISH, 1.0), lambda x: x * _sigmoid(x)),
    (Eltwise(Algorithm.GELU_ERF), lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2)))),
    (Eltwise(Algorithm.GELU_TANH), _gelu_tanh),
    (Eltwise(Algorithm.SWISH, 1.702), lambda x: x * _sigmoid(1.702 * x)),
    (Eltwise(Algorithm.HARDSWISH, 1 / 6, 0.5), lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    (Eltwise(Algorithm.HARDSIGMOID, 1 / 6, 0.5), lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    (Eltwise(Algorithm.CLIP, 0.0, 6.0), lambda x: np.clip(x, 0, 6)),
    (Eltwise(Algorithm.MISH), lambda x: x * np.tanh(np.logaddexp(0, x))),
    (Eltwise(Algorithm.SQUARE), lambda x: x * x),
)

_GRID = np.concatenate([np.linspace(-12, 12, 481), [-100.0, -30.0, 30.0, 100.0]])
_TOLERANCE = 2e-6
"""Relative to max(1, |value|): constants in models are float32 (sqrt(2), 0.044715)."""


def recognized(
    nodes: Sequence[Node], variable: str, scalars: Mapping[str, Array]
) -> Eltwise | None:
    """The activation that these nodes together compute from ``variable``, or None."""
    values: dict[str, Any] = {k: v.astype(np.float64) for k, v in scalars.items()}
    values[variable] = _GRID
    for node in nodes:
        if not node.operator.pointwise or len(node.outputs) != 1:
            return None
        arguments = [values[v].reshape(-1) if v else None for v in node.inputs]
        with np.errstate(all="ignore"):
            (values[node.outputs[0]],) = node.operator.reference(node.attributes, arguments)
    found = values[nodes[-1].outputs[0]]
    for eltwise, function in COMPOSED:
        with np.errstate(all="ignore"):
            expected = function(_GRID)
        if np.all(np.abs(found - expected) <= _TOLERANCE * np.maximum(1, np.abs(expected))):
            return eltwise
    return None
