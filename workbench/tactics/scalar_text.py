"""Text of one pointwise operator on one element, as generated kernels of every language need it.

A language has its rules: operator -> the text of its result, given the texts of its operands. What
most of them write alike is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.body import Node
from workbench.datatypes import DataType


class Untranslatable(Exception):
    """Why a node, or a Body, has no generated code; the text is for people."""


_SHORT_GELU = (
    *("2.3434010e-10", "- 1.1630668e-08", "+ 3.4649409e-07", "- 6.9956932e-06", "+ 1.0268493e-04"),
    *("- 1.1447381e-03", "+ 9.8899417e-03", "- 6.6407986e-02", "+ 3.9891395e-01"),
)
"""Coefficients after the first, 2.1248819e-12, highest power first."""


def short_gelu_terms(suffix: str = "") -> tuple[str, ...]:
    """Statements after which y · (z·q + 0.5) is the GELU of x, for results of 16 bits or fewer.

    y: x, at least -4.25; z: y, at most 4.25; s: z². 14 instructions with these, instead of 24: erf
    is an odd polynomial up to 4.25, a minimax fit, and 1 beyond: within 4e-5 everywhere, 2e-5 of
    the result below 1, where rounding to 16 bits may cost 5e-4 of it. suffix: of a literal.
    """
    first, *rest = _SHORT_GELU
    start = f"q = {first}{suffix} - 2.1248819e-12{suffix} * s"
    return (start, *(f"q = q * s {term}{suffix}" for term in rest))


@dataclass(frozen=True)
class Scalars:
    """Arguments of a rule: texts (empty where absent) and types of one node's operands.

    literal: the text of a number in a type, in the language at hand.
    """

    node: Node
    texts: Sequence[str]
    kinds: Sequence[DataType | None]
    out: DataType
    literal: Callable[[Any, DataType], str]

    def __getitem__(self, index: int) -> str:
        if not self.has(index):
            raise Untranslatable(f"{self.node.op} lacks input {index}")
        return self.texts[index]

    def has(self, index: int) -> bool:
        return index < len(self.texts) and bool(self.texts[index])

    @property
    def dtype(self) -> DataType:
        """Type of the first input."""
        kind = self.kinds[0]
        assert kind is not None
        return kind

    def number(self, value: float) -> str:
        """A constant in the first input's working type."""
        return self.literal(value, self.dtype)

    def attribute(self, name: str) -> str:
        """A numeric attribute in the first input's working type."""
        return self.number(self.node.attributes[name])


Rule = Callable[[Scalars], str]


def infix(sign: str) -> Rule:
    """``(a sign b)``."""
    return lambda s: f"({s[0]} {sign} {s[1]})"


def call(name: str) -> Rule:
    """``name(a)``."""
    return lambda s: f"{name}({s[0]})"


def chain(join: str) -> Rule:
    """Any number of operands, joined from the left: ``join`` has places 0 and 1."""

    def rule(s: Scalars) -> str:
        text = s[0]
        for k in range(1, len(s.texts)):
            text = join.format(text, s[k])
        return text

    return rule


def known_power(s: Scalars, texts: Mapping[float, str]) -> str:
    """The text of a power whose exponent is one of these numbers, with ``{x}`` replaced; or empty.

    An exponent of an integer type is no fraction: 0 is not the 0 that 0.5 is cut to.
    """
    kind = s.kinds[1] or s.dtype
    for exponent, text in texts.items():
        exists = kind.is_float or exponent.is_integer()
        if exists and s[1] == s.literal(exponent, kind):
            return text.format(x=s[0])
    return ""


def check_divisor(s: Scalars, literal: str) -> None:
    """Raises Untranslatable for integers unless the divisor is a number that is surely harmless.

    The reference raises at x / 0; a CPU stops the process there, and at the smallest integer / -1,
    and a GPU goes on with any number. literal: a pattern of the language's integer literals, whose
    first group is the number.
    """
    found = re.fullmatch(literal, s[1])
    if found is None or int(found[1]) in (0, -1):
        raise Untranslatable(f"{s.node.op} of integers by a divisor that may be 0 or -1")


_sum = chain("({0} + {1})")

COMMON: dict[str, Rule] = {
    "Add": infix("+"),
    "Sub": infix("-"),
    "Mul": infix("*"),
    "Sum": _sum,
    "Mean": lambda s: f"({_sum(s)} / {s.number(len(s.texts))})",
    "Neg": lambda s: f"(-{s[0]})",
    "Reciprocal": lambda s: f"({s.number(1)} / {s[0]})",
    "IsNaN": lambda s: f"({s[0]} != {s[0]})",
    "Identity": lambda s: s[0],
    "Equal": infix("=="),
    "Less": infix("<"),
    "LessOrEqual": infix("<="),
    "Greater": infix(">"),
    "GreaterOrEqual": infix(">="),
}
"""Rules that C++, Triton and Python write alike."""
BITWISE: dict[str, Rule] = {
    "BitwiseAnd": infix("&"),
    "BitwiseOr": infix("|"),
    "BitwiseXor": infix("^"),
    "BitwiseNot": lambda s: f"(~{s[0]})",
}
"""The same, of integers."""
