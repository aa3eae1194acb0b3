"""Patterns: what a rule looks for, written as nested calls of ``op``.

``op.Relu(op.Add(op.MatMul(x, w), b))`` reads as the expression that it matches. Plain elements
match an operator that is still on its own; ``op.anchored`` and ``op.pointwise`` also match layers
that were fused before, so that a fused layer grows step by step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any

from workbench.network import Layer
from workbench.operators import operator_named

COMMUTATIVE = frozenset({"Add", "Mul", "Min", "Max", "Sum", "Mean", "And", "Or", "Xor", "Equal"})
"""Operators whose two operands are matched in both orders."""


@dataclass(frozen=True, eq=False)
class Variable:
    """Matches any tensor; used twice, it must be the same tensor both times.

    constant: True for constants only, False for everything else, None for both.
    """

    name: str
    constant: bool | None = None


@dataclass(frozen=True, eq=False)
class Element:
    """Matches one layer.

    accepts: a test of the layer alone. described: what it accepts, for people.
    operators: the values of ``Layer.op`` that it can accept, None for any.
    inputs: patterns of its operands: by position, or, with ``anywhere``, each at some position.
    rest: whether further operands are allowed. name: under which the match holds the layer.
    """

    accepts: Callable[[Layer], bool]
    described: str
    operators: frozenset[str] | None
    inputs: tuple[Variable | Element, ...] = ()
    rest: bool = False
    anywhere: bool = False
    commutative: bool = False
    name: str = ""

    def called(self, name: str) -> Element:
        """This element under a name: ``match.layer(name)``."""
        return replace(self, name=name)

    @property
    def depth(self) -> int:
        """Layers on the longest path through the pattern."""
        return 1 + max((i.depth for i in self.inputs if isinstance(i, Element)), default=0)

    @property
    def size(self) -> int:
        """Elements in the pattern (one used twice counts twice)."""
        return 1 + sum(i.size for i in self.inputs if isinstance(i, Element))


Operand = Variable | Element | EllipsisType


class PatternBuilder:
    """The ``op`` of a pattern: ``op.<ONNX operator>(operands, attribute=value)``.

    A trailing ``...`` allows further operands. Raises NetworkError for an unknown operator.
    """

    def __getattr__(self, operator: str) -> Callable[..., Element]:
        operator_named(operator)

        def element(*inputs: Operand, **attributes: Any) -> Element:
            return _plain(frozenset({operator}), inputs, attributes)

        return element

    def any(self, operators: Iterable[str], *inputs: Operand, **attributes: Any) -> Element:
        """One of several operators, on its own."""
        return _plain(frozenset(operators), inputs, attributes)

    def constant(self, variable: Variable) -> Variable:
        """A variable that is a stored constant."""
        return replace(variable, constant=True)

    def computed(self, variable: Variable) -> Variable:
        """A variable that is only known at run time."""
        return replace(variable, constant=False)

    def anchored(self, operators: Iterable[str], *reading: Variable | Element) -> Element:
        """A layer that one of these operators anchors, on its own or already fused."""
        names = frozenset(operators)
        return Element(
            lambda layer: layer.op in names,
            f"a layer anchored at {_list(names)}",
            names,
            reading,
            anywhere=True,
        )

    def pointwise(self, *reading: Variable | Element) -> Element:
        """A pointwise operator, or a fused layer of nothing else."""
        return Element(is_pointwise, "a pointwise layer", None, reading, anywhere=True)

    def layer(
        self,
        accepts: Callable[[Layer], bool],
        *reading: Variable | Element,
        described: str,
        operators: Iterable[str] | None = None,
    ) -> Element:
        """A layer that passes a test of one's own. operators: all that can pass, None for any."""
        known = frozenset(operators) if operators is not None else None
        return Element(accepts, described, known, reading, anywhere=True)


def is_pointwise(layer: Layer) -> bool:
    """Whether it has one output, whose elements depend on the operands' at their place alone."""
    if len(layer.outputs) > 1:
        return False
    if layer.operator is not None:
        return layer.operator.pointwise
    return layer.fused is not None and layer.fused.anchor is None


def build_pattern(write: Callable[..., Element]) -> Element:
    """The pattern of a function ``lambda op, x, w: ...``; its further parameters are variables."""
    names = list(inspect.signature(write).parameters)[1:]
    return write(PatternBuilder(), *(Variable(n) for n in names))


def _plain(
    operators: frozenset[str], inputs: tuple[Operand, ...], attributes: Mapping[str, Any]
) -> Element:
    wanted = tuple(attributes.items())

    def accepts(layer: Layer) -> bool:
        return (
            layer.operator is not None
            and layer.operator.name in operators
            and all(layer.attributes.get(k) == v for k, v in wanted)
        )

    return Element(
        accepts,
        _list(operators) + "".join(f" with {k}={v}" for k, v in wanted),
        operators,
        tuple(i for i in inputs if not isinstance(i, EllipsisType)),
        rest=any(isinstance(i, EllipsisType) for i in inputs),
        commutative=operators <= COMMUTATIVE,
    )


def _list(operators: Iterable[str]) -> str:
    return " or ".join(sorted(operators))
