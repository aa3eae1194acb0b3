"""Tracked: a float64 value with a bound on its error, carried through a computation.

A reference that is written with the operators and methods that arrays and Tracked share gives its
own bound: run it on Tracked inputs (``tracked``). For steps that jump (a coordinate that is
rounded down) there is ``nudged``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from workbench.body import Array, Attributes, BoundRule, Reference
from workbench.operators.products import gamma, is_exact
from workbench.operators.rules import difference, filled

SAFETY = 4.0
"""Roundings that one step may take, in units of roundoff: an implementation may split it."""


class Tracked:
    """A float64 array with a bound on the error of each element; unit: of the accumulator."""

    # Keeps NumPy from taking a Tracked for an array of objects: it asks us instead.
    __array_ufunc__ = None

    def __init__(self, value: Any, error: Any, unit: float) -> None:
        self.value = np.asarray(value, np.float64)
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)
        self.unit = unit

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def ndim(self) -> int:
        return self.value.ndim

    def _rounded(self, value: Any, error: Any, roundings: float = SAFETY) -> Tracked:
        return Tracked(value, error + roundings * self.unit * np.abs(value), self.unit)

    def _lifted(self, other: Any) -> Tracked:
        return other if isinstance(other, Tracked) else Tracked(other, 0.0, self.unit)

    def __add__(self, other: Any) -> Tracked:
        b = self._lifted(other)
        return self._rounded(self.value + b.value, self.error + b.error)

    __radd__ = __add__

    def __neg__(self) -> Tracked:
        return Tracked(-self.value, self.error, self.unit)

    def __sub__(self, other: Any) -> Tracked:
        return self + (-self._lifted(other))

    def __rsub__(self, other: Any) -> Tracked:
        return (-self) + other

    def __mul__(self, other: Any) -> Tracked:
        b = self._lifted(other)
        spread = np.abs(self.value) * b.error + self.error * (np.abs(b.value) + b.error)
        return self._rounded(self.value * b.value, spread)

    __rmul__ = __mul__

    def __matmul__(self, other: Any) -> Tracked:
        b = self._lifted(other)
        own = SAFETY * gamma(self.shape[-1], self.unit)
        size, other_size = np.abs(self.value), np.abs(b.value) + b.error
        error = (own * (size + self.error) + self.error) @ other_size + size @ b.error
        return Tracked(self.value @ b.value, error, self.unit)

    def __rmatmul__(self, other: Any) -> Tracked:
        return self._lifted(other) @ self

    def __getitem__(self, index: Any) -> Tracked:
        return Tracked(self.value[index], self.error[index], self.unit)

    def reshape(self, *shape: int) -> Tracked:
        """As of an array."""
        return Tracked(self.value.reshape(*shape), self.error.reshape(*shape), self.unit)

    def transpose(self, *axes: int) -> Tracked:
        """As of an array."""
        return Tracked(self.value.transpose(*axes), self.error.transpose(*axes), self.unit)

    def swapaxes(self, first: int, second: int) -> Tracked:
        """As of an array."""
        return self._moved(lambda v: v.swapaxes(first, second))

    def _moved(self, move: Callable[[Array], Array]) -> Tracked:
        return Tracked(move(self.value), move(self.error), self.unit)


Value = Any
"""An array or a Tracked."""


def applied(function: Callable[[Array], Array], x: Value, *, ulps: float = 4.0) -> Value:
    """A function, monotone on each side of zero and 0 or steep there, of every element.

    ulps: relative error of an implementation, in units of the last place.
    """
    if not isinstance(x, Tracked):
        return function(x)
    center = function(x.value)
    sides = [difference(function(x.value + s * x.error), center) for s in (-1, 1)]
    own = 2 * ulps * x.unit * np.maximum(np.abs(center), x.unit)
    return Tracked(center, np.maximum(*sides) + own, x.unit)


def chosen(condition: Array, a: Value, b: Value) -> Value:
    """``np.where`` of a condition that is exact."""
    some = next((v for v in (a, b) if isinstance(v, Tracked)), None)
    if some is None:
        return np.where(condition, a, b)
    x, y = some._lifted(a), some._lifted(b)  # pyright: ignore[reportPrivateUsage]
    value = np.where(condition, x.value, y.value)
    return Tracked(value, np.where(condition, x.error, y.error), some.unit)


def stacked(parts: Sequence[Value], axis: int = 0) -> Value:
    """``np.stack``."""
    some = next((v for v in parts if isinstance(v, Tracked)), None)
    if some is None:
        return np.stack(parts, axis)
    lifted = [some._lifted(v) for v in parts]  # pyright: ignore[reportPrivateUsage]
    values, errors = [v.value for v in lifted], [v.error for v in lifted]
    return Tracked(np.stack(values, axis), np.stack(errors, axis), some.unit)


def tracked(reference: Reference, *, indices: frozenset[int] = frozenset()) -> BoundRule:
    """Bound of a reference that runs on Tracked values. indices: inputs that stay arrays."""

    def bound(
        attributes: Attributes,
        inputs: Sequence[Any],
        bounds: Sequence[Any],
        outputs: Sequence[Any],
        unit: float,
    ) -> tuple[Any, ...]:
        if any(i < len(bounds) and not is_exact(bounds[i]) for i in indices):
            return (np.inf,) * len(outputs)
        given = [
            x if x is None or i in indices else Tracked(x, filled(bounds[i], x), unit)
            for i, x in enumerate(inputs)
        ]
        return tuple(
            np.where(np.isnan(y.error), np.inf, y.error) if isinstance(y, Tracked) else 0.0
            for y in reference(attributes, given)
        )

    return bound


def nudged(
    function: Callable[..., Array], coordinates: Sequence[Array], deltas: Sequence[Any]
) -> Array:
    """How much ``function(*coordinates)`` changes where each is off by up to its delta.

    Evaluated at the corners; doubled, for what lies between them.
    """
    center = function(*coordinates)
    change = np.zeros(np.shape(center))
    for signs in itertools.product((-1.0, 1.0), repeat=len(coordinates)):
        moved = [c + s * d for c, s, d in zip(coordinates, signs, deltas, strict=True)]
        change = np.maximum(change, difference(function(*moved), center))
    return 2 * change
