"""SymbolicDim: an integer polynomial over symbols and calls, and the functions of sizes."""

from __future__ import annotations

import keyword
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, reduce
from typing import Any

from workbench.dimensions import polynomials
from workbench.dimensions.polynomials import Monomial
from workbench.errors import NetworkError

Dim = Any  # int | SymbolicDim: NumPy object arrays and JSON carry both
Bindings = Mapping[str, int]

CALLS = ("floordiv", "max", "min")
"""Functions of sizes that may stay unevaluated; no symbol has such a name."""


LARGEST = 1 << 40
"""Larger than any size of an axis."""


MOST_TERMS, MOST_DEGREE, LONGEST_CALL = 4096, 64, 4096
"""Of a size, in terms, factors a term, and characters a call. Sizes of real models stay far below;
without limits a model could square one until it fills the memory."""


class _Atom:
    """A symbol, or a call of floordiv/max/min that does not simplify."""

    __slots__ = ("args", "call", "key")

    def __init__(self, call: str, *args: Any) -> None:
        self.call = call
        self.args = args
        self.key = args[0] if call == "symbol" else f"{call}({', '.join(map(str, args))})"
        if len(self.key) > LONGEST_CALL:
            raise NetworkError(
                f"a {call} of sizes has more than {LONGEST_CALL} characters",
                remedy="give the inputs fixed sizes",
            )

    def value(self, of: Callable[[Any], int], bindings: Bindings) -> int:
        if self.call == "symbol":
            try:
                return bindings[self.args[0]]
            except KeyError:
                raise NetworkError(f"size '{self.args[0]}' is not bound") from None
        return _apply(self.call, *(of(a) for a in self.args))


def _apply(call: str, a: Any, b: Any) -> Any:
    return a // b if call == "floordiv" else (max(a, b) if call == "max" else min(a, b))


class SymbolicDim:
    """An integer polynomial over atoms. Immutable, hashable, equal when its terms are equal.

    terms: coefficients, not zero, by monomial. atoms: what the monomials' keys stand for.
    """

    def __init__(self, terms: Mapping[Monomial, int], atoms: Mapping[str, _Atom]) -> None:
        self.terms: Mapping[Monomial, int] = {m: c for m, c in sorted(terms.items()) if c}
        used = {k for m in self.terms for k in m}
        self.atoms: Mapping[str, _Atom] = {k: a for k, a in atoms.items() if k in used}

    # -- arithmetic -----------------------------------------------------------------------
    def __add__(self, other: Any) -> Any:
        if (o := _lift(other)) is None:
            return NotImplemented
        terms = dict(self.terms)
        for m, c in o.terms.items():
            terms[m] = terms.get(m, 0) + c
        return _lower(terms, {**self.atoms, **o.atoms})

    def __mul__(self, other: Any) -> Any:
        if (o := _lift(other)) is None:
            return NotImplemented
        terms: dict[Monomial, int] = {}
        if len(self.terms) * len(o.terms) > MOST_TERMS or _degree(self) + _degree(o) > MOST_DEGREE:
            raise NetworkError(
                f"a product of sizes has more than {MOST_TERMS} terms or {MOST_DEGREE} factors",
                remedy="give the inputs fixed sizes",
            )
        for m, c in self.terms.items():
            for n, d in o.terms.items():
                k = tuple(sorted(m + n))
                terms[k] = terms.get(k, 0) + c * d
        return _lower(terms, {**self.atoms, **o.atoms})

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return self + (-other)

    def __rsub__(self, other: Any) -> Any:
        return (-self) + other

    def __floordiv__(self, other: Any) -> Any:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return floordiv(other, self)

    def __mod__(self, other: Any) -> Any:
        return self - floordiv(self, other) * other

    def __rmod__(self, other: Any) -> Any:
        return other - floordiv(other, self) * self

    # -- identity -------------------------------------------------------------------------
    def __eq__(self, other: object) -> bool:
        return isinstance(other, SymbolicDim) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        parts: list[str] = []
        for m, c in self.terms.items():
            factors = ([str(c)] if c != 1 or not m else []) + list(m)
            parts.append("*".join(factors))
        return " + ".join(parts)

    # -- meaning --------------------------------------------------------------------------
    @property
    def symbols(self) -> frozenset[str]:
        """Names of the free symbols."""
        found: set[str] = set()
        for a in self.atoms.values():
            if a.call == "symbol":
                found.add(a.args[0])
            else:
                for x in a.args:
                    found |= symbols_of(x)
        return frozenset(found)

    def evaluate(self, bindings: Bindings) -> int:
        """The number, with every symbol bound."""
        values = {
            k: a.value(lambda x: evaluate(x, bindings), bindings) for k, a in self.atoms.items()
        }
        return sum(c * _product(values[k] for k in m) for m, c in self.terms.items())

    def substitute(self, bindings: Mapping[str, Any]) -> Any:
        """This size with some symbols replaced by numbers or other sizes."""
        total: Any = 0
        for m, c in self.terms.items():
            term: Any = c
            for k in m:
                a = self.atoms[k]
                if a.call == "symbol":
                    term = term * bindings.get(k, SymbolicDim({(k,): 1}, {k: a}))
                else:
                    x, y = (substitute(v, bindings) for v in a.args)
                    term = term * CONSTRUCT[a.call](x, y)
            total = total + term
        return total

    def interval(self, bounds: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
        """Smallest and largest value when each symbol lies in its bounds (all >= 0)."""
        ranges: dict[str, tuple[int, int]] = {}
        for k, a in self.atoms.items():
            if a.call == "symbol":
                if k not in bounds:
                    raise NetworkError(f"size '{k}' has no bounds")
                ranges[k] = bounds[k]
            else:
                ranges[k] = _call_interval(a.call, *(interval(v, bounds) for v in a.args))
        low = high = 0
        for m, c in self.terms.items():
            lo = hi = c
            for k in m:
                # A difference inside a call may be negative, so every corner counts.
                corners = [x * y for x in (lo, hi) for y in ranges[k]]
                lo, hi = min(corners), max(corners)
            low, high = low + lo, high + hi
        return low, high


def _call_interval(call: str, a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    if call == "floordiv":
        # Divisors are sizes: at least 1 wherever the division is ever evaluated.
        b = (max(b[0], 1), max(b[1], 1))
    corners = [_apply(call, x, y) for x in a for y in b]
    return min(corners), max(corners)


def _degree(size: SymbolicDim) -> int:
    return max(map(len, size.terms), default=0)


def _product(values: Iterable[int]) -> int:
    return reduce(operator.mul, values, 1)


def _lift(value: Any) -> SymbolicDim | None:
    if isinstance(value, SymbolicDim):
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    return SymbolicDim({(): operator.index(value)}, {})


def _lower(terms: Mapping[Monomial, int], atoms: Mapping[str, _Atom]) -> Any:
    left = {m: c for m, c in terms.items() if c}
    if not left:
        return 0
    if set(left) == {()}:
        return left[()]
    return SymbolicDim(left, atoms)


def _atom(call: str, *args: Any) -> Any:
    a = _Atom(call, *args)
    return SymbolicDim({(a.key,): 1}, {a.key: a})


def symbol(name: str) -> SymbolicDim:
    """The size named ``name``. Raises NetworkError for a name that its text form cannot hold."""
    if not name.isidentifier() or keyword.iskeyword(name) or name in CALLS:
        raise NetworkError(
            f"size name {name!r} is not an identifier", remedy="use letters, digits and _"
        )
    return _atom("symbol", name)


def floordiv(a: Any, b: Any) -> Any:
    """``a // b``, simplified where terms divide, or both sides share a factor."""
    if not isinstance(a, SymbolicDim) and not isinstance(b, SymbolicDim):
        return a // b
    x, y = _lift(a), _lift(b)
    assert x is not None and y is not None
    if (exact := polynomials.quotient(x.terms, y.terms)) is not None:
        return _lower(exact, x.atoms)
    if not x.terms or not y.terms:
        return _atom("floordiv", a, b)
    number, monomial = polynomials.common_factor(x.terms, y.terms)
    if (number, monomial) != (1, ()):
        # (k·A) // (k·B) = A // B.
        factor = SymbolicDim({monomial: number}, {**x.atoms, **y.atoms})
        return floordiv(_divided(x, factor), _divided(y, factor))
    if len(y.terms) == 1:
        whole, rest = _whole_part(x, y)
        if whole:
            # (k·A + r) // k = A + r // k for every integer A.
            return _lower(whole, x.atoms) + floordiv(_lower(rest, x.atoms), b)
    if isinstance(b, int) and b > 0 and (merged := _merged_division(x, b)) is not None:
        return merged
    return _atom("floordiv", a, b)


def _divided(x: SymbolicDim, by: SymbolicDim) -> Any:
    found = polynomials.quotient(x.terms, by.terms)
    assert found is not None
    return _lower(found, x.atoms)


def _whole_part(x: SymbolicDim, y: SymbolicDim) -> tuple[dict[Monomial, int], dict[Monomial, int]]:
    """The quotients of the terms that a single term divides, and the other terms."""
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for m, c in x.terms.items():
        part = polynomials.quotient({m: c}, y.terms)
        if part is None:
            rest[m] = c
        else:
            whole.update(part)
    return whole, rest


def _merged_division(x: SymbolicDim, b: int) -> Any | None:
    """(A // m + r) // b = (A + m·r) // (m·b), for positive numbers m and b; None elsewhere."""
    inner = [
        (m, atom)
        for m, c in x.terms.items()
        if c == 1 and len(m) == 1 and (atom := x.atoms[m[0]]).call == "floordiv"
        if isinstance(atom.args[1], int) and atom.args[1] > 0
    ]
    if len(inner) != 1:
        return None
    ((monomial, atom),) = inner
    a, m = atom.args
    rest = _lower({k: c for k, c in x.terms.items() if k != monomial}, x.atoms)
    return floordiv(a + m * rest, m * b)


def ceildiv(a: Any, b: Any) -> Any:
    """``ceil(a / b)``."""
    return floordiv(a + b - 1, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger size."""
    return _extreme("max", a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller size."""
    return _extreme("min", a, b)


DUAL = {"max": "min", "min": "max"}


def _extreme(call: str, a: Any, b: Any) -> Any:
    """max or min, without the operands that never decide."""
    if not isinstance(a, SymbolicDim) and not isinstance(b, SymbolicDim):
        return _apply(call, a, b)
    kept: list[Any] = []
    for x in (*_operands(call, a), *_operands(call, b)):
        if not any(_decides(call, k, x) for k in kept):
            kept = [k for k in kept if not _decides(call, x, k)] + [x]
    kept.sort(key=str)
    return reduce(lambda x, y: _atom(call, x, y), kept)


def _operands(call: str, value: Any) -> tuple[Any, ...]:
    """What a max of maxima (or min of minima) is taken of: max(max(a, b), c) has three."""
    atom = _lone_atom(value)
    if atom is None or atom.call != call:
        return (value,)
    return tuple(x for a in atom.args for x in _operands(call, a))


def _decides(call: str, x: Any, y: Any) -> bool:
    """Whether ``call(x, y)`` is x, whatever the symbols' sizes."""
    if x == y or x in _operands(DUAL[call], y):
        return True  # max(a, min(a, b)) is a
    gap = x - y if call == "max" else y - x
    return interval(gap, dict.fromkeys(symbols_of(gap), (0, LARGEST)))[0] >= 0


def _lone_atom(value: Any) -> _Atom | None:
    """The call or symbol that a size is, when it is nothing else."""
    if not isinstance(value, SymbolicDim) or list(value.terms.values()) != [1]:
        return None
    (monomial,) = value.terms
    return value.atoms[monomial[0]] if len(monomial) == 1 else None


CONSTRUCT: dict[str, Callable[[Any, Any], Any]] = {
    "floordiv": floordiv,
    "max": maximum,
    "min": minimum,
}
"""By name, the functions that simplify where they can."""


def without_common_factor(size: SymbolicDim) -> SymbolicDim:
    """What is left of a size, divided by the largest single term that divides it."""
    number, monomial = polynomials.common_factor(size.terms)
    left = polynomials.quotient(size.terms, {monomial: number})
    assert left is not None
    return SymbolicDim(left, size.atoms)


def is_symbol(value: Any) -> bool:
    """Whether a size is a symbol alone, which a shape given at run time binds."""
    atom = _lone_atom(value)
    return atom is not None and atom.call == "symbol"


def symbols_of(value: Any) -> frozenset[str]:
    """Free symbols of a size, or of each size of a shape."""
    if isinstance(value, SymbolicDim):
        return value.symbols
    if isinstance(value, tuple):
        return frozenset().union(*(symbols_of(v) for v in value))
    return frozenset()


def evaluate(value: Any, bindings: Bindings) -> int:
    """A size as a number."""
    return value.evaluate(bindings) if isinstance(value, SymbolicDim) else int(value)


def substitute(value: Any, bindings: Mapping[str, Any]) -> Any:
    """A size with symbols replaced."""
    return value.substitute(bindings) if isinstance(value, SymbolicDim) else value


def interval(value: Any, bounds: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """Smallest and largest value of a size."""
    return value.interval(bounds) if isinstance(value, SymbolicDim) else (value, value)
