"""Constants that a library reads: products of a Body's constant values, packed at ``prepare``.

A description names its constants without computing them: per-channel scales folded into each other,
weights in the order that the library reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.body import CONSTANT, Array, Body
from workbench.datatypes import DataType


@dataclass(frozen=True)
class Term:
    """A product of powers of a Body's constant values: shapes broadcast as NumPy's do.

    factors: (value, power 1 or -1), in order. Without factors it is 1.
    """

    factors: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, value: str) -> Term:
        return cls(((value, 1),))

    def __mul__(self, other: Term) -> Term:
        return Term(self.factors + other.factors)

    def __truediv__(self, other: Term) -> Term:
        return Term(self.factors + tuple((v, -p) for v, p in other.factors))


@dataclass(frozen=True)
class Constant:
    """A tensor of constants on the device.

    term: its values. shape: that they are given before ``order`` permutes the axes; () keeps their
    own. kind: the type that they are stored as.
    """

    term: Term
    kind: DataType
    shape: tuple[int, ...] = ()
    order: tuple[int, ...] = ()


@dataclass
class Constants:
    """The constant values of a Body: its constant inputs, literals, and what they alone decide.

    given: values of the constant inputs, by name.
    """

    body: Body
    given: Mapping[str, Array]
    _known: dict[str, Array | None] = field(default_factory=dict[str, "Array | None"])

    def __post_init__(self) -> None:
        self.producers = {o: n for n in self.body.nodes for o in n.outputs if o}
        self.constant_inputs = {i.name for i in self.body.inputs if i.constant}

    def knows(self, value: str) -> bool:
        """Whether the value follows from constants alone (nothing is computed)."""
        if value in self.constant_inputs:
            return True
        node = self.producers.get(value)
        return node is not None and all(self.knows(v) for v in node.inputs if v)

    def value(self, name: str) -> Array:
        """The value, in its own type. KeyError where it is not constant."""
        if name in self.given:
            return self.given[name]
        found = self._known.get(name)
        if found is None:
            found = self._computed(name)
            self._known[name] = found
        return found

    def _computed(self, name: str) -> Array:
        node = self.producers[name]
        if node.operator is CONSTANT:
            return node.attributes["value"].array()
        read = [self.value(v) if v else None for v in node.inputs]
        wide = [None if a is None else _wide(a) for a in read]
        made = node.operator.reference(node.attributes, wide)[node.outputs.index(name)]
        return np.asarray(made).astype(self.body.types[name].dtype.numpy, copy=False)

    def sources(self, name: str) -> tuple[str, ...]:
        """The constant inputs that a value is computed from."""
        if name in self.constant_inputs:
            return (name,)
        node = self.producers[name]
        return tuple(dict.fromkeys(s for v in node.inputs if v for s in self.sources(v)))

    def number(self, name: str) -> float:
        """The one number that a constant of one element is."""
        return float(np.asarray(self.value(name)).reshape(-1)[0].astype(np.float64))

    def packed(self, constant: Constant) -> Array:
        """A constant's array in the stored order, maybe a view; sums of terms are in float64."""
        factors = constant.term.factors
        single = len(factors) == 1 and factors[0][1] == 1
        found = self.value(factors[0][0]) if single else self._product(factors)
        if constant.shape:
            found = found.reshape(constant.shape)
        if constant.order:
            found = found.transpose(constant.order)
        return found if found.dtype == constant.kind.numpy else _narrowed(found, constant.kind)

    def _product(self, factors: tuple[tuple[str, int], ...]) -> Array:
        total: Any = np.float64(1)
        for value, power in factors:
            operand = self.value(value).astype(np.float64)
            total = total * operand if power > 0 else total / operand
        return np.asarray(total)


def _wide(array: Array) -> Array:
    """Half types as float32, in which reference functions compute."""
    small = array.dtype.itemsize < 4 and DataType.of(array).is_float
    return array.astype(np.float32) if small else array


def _narrowed(array: Array, kind: DataType) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(kind.numpy)
