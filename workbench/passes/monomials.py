"""Products read as monomials: a coefficient, and tensors with their powers."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.network import Layer, Tensor

Powers = dict[Tensor, int]


@dataclass(frozen=True, eq=False)
class Monomial:
    """coefficient · Π tensor**power, and the layers that compute it."""

    coefficient: float
    powers: Powers
    layers: tuple[Layer, ...]

    def is_power(self, tensor: Tensor, power: int) -> bool:
        """Whether nothing but this tensor, to this power, is multiplied."""
        return self.powers == {tensor: power}


def number(tensor: Tensor | None) -> float | None:
    """The value of a constant of one element."""
    if tensor is None or tensor.weight is None or tensor.value is None or tensor.value.size != 1:
        return None
    return float(tensor.value.reshape(-1)[0])


DEPTH = 6
"""Layers that a monomial is followed upwards: no formula here has more in a row."""


def monomial(tensor: Tensor, atoms: Container[Tensor] = (), depth: int = DEPTH) -> Monomial:
    """A tensor as what it multiplies, down to ``atoms``: through Mul, Div by a number, Neg, Pow."""
    layer = tensor.producer
    whole = Monomial(1.0, {tensor: 1}, ())
    opaque = layer is None or layer.operator is None or layer.on_host
    if tensor in atoms or layer is None or opaque or not depth:
        return whole
    inputs = [t for t in layer.inputs if t is not None]
    numbers = [number(t) for t in inputs]
    match layer.op:
        case "Mul":
            first, second = (
                Monomial(n, {}, ()) if n is not None else monomial(t, atoms, depth - 1)
                for n, t in zip(numbers, inputs, strict=True)
            )
            return _times(first, second, layer)
        case "Div" if numbers[1]:
            return _times(
                Monomial(1 / numbers[1], {}, ()), monomial(inputs[0], atoms, depth - 1), layer
            )
        case "Neg":
            return _times(Monomial(-1.0, {}, ()), monomial(inputs[0], atoms, depth - 1), layer)
        case "Pow" if numbers[1] in (2.0, 3.0):
            return _raised(monomial(inputs[0], atoms, depth - 1), int(numbers[1]), layer)
        case _:
            return whole


def _times(a: Monomial, b: Monomial, layer: Layer) -> Monomial:
    powers = dict(a.powers)
    for t, p in b.powers.items():
        powers[t] = powers.get(t, 0) + p
    layers = tuple(dict.fromkeys((layer, *a.layers, *b.layers)))
    return Monomial(a.coefficient * b.coefficient, powers, layers)


def _raised(m: Monomial, power: int, layer: Layer) -> Monomial:
    powers = {t: p * power for t, p in m.powers.items()}
    return Monomial(m.coefficient**power, powers, (layer, *m.layers))


def sum_of(tensor: Tensor) -> tuple[tuple[Tensor, Tensor], Layer] | None:
    """The two summands of an Add, and the Add."""
    layer = tensor.producer
    if layer is None or layer.op != "Add" or layer.operator is None:
        return None
    a, b = layer.inputs
    return None if a is None or b is None else ((a, b), layer)


def is_close(found: float | None, wanted: float, tensor: Tensor) -> bool:
    """Whether a constant is ``wanted``, to the digits that models write and the type keeps."""
    tolerance = max(1e-4, 4 * tensor.dtype.info.eps)
    return found is not None and bool(np.isclose(found, wanted, rtol=tolerance, atol=0.0))


Constant = tuple[str, float, float]
"""A constant of a formula: its role, what it is, what it should be."""


def misfits(constants: Sequence[Constant], tensor: Tensor) -> list[Constant]:
    """The constants that are not what they should be."""
    return [c for c in constants if not is_close(c[1], c[2], tensor)]


def is_scaled_later(layer: Layer) -> bool:
    """Whether all that reads the layer multiplies it by a number: the formula may go on there."""
    readers = layer.outputs[0].users
    if len(readers) != 1 or readers[0].op not in ("Mul", "Div"):
        return False
    return any(number(t) is not None for t in readers[0].inputs)
