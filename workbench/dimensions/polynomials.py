"""Integer polynomials as coefficients by monomial: division, and what polynomials share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

Monomial = tuple[str, ...]  # atom keys, sorted, with repetition; () is the constant term
Terms = Mapping[Monomial, int]  # coefficients, not zero


def without(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    """``monomial / divisor``, or None where it does not divide."""
    left = list(monomial)
    for k in divisor:
        if k not in left:
            return None
        left.remove(k)
    return tuple(left)


def quotient(x: Terms, y: Terms) -> dict[Monomial, int] | None:
    """q where x = q·y exactly; None where there is none with integer coefficients.

    Division by the leading term (Cox, Little, O'Shea, "Ideals, Varieties, and Algorithms", 2.3).
    """
    if not y:
        return None
    lead, rest = _leading(y), dict(x)
    found: dict[Monomial, int] = {}
    while rest:
        m = _leading(rest)
        part = without(m, lead)
        if part is None or rest[m] % y[lead]:
            return None
        c = found[part] = rest[m] // y[lead]
        for n, d in y.items():
            k = tuple(sorted(part + n))
            rest[k] = rest.get(k, 0) - c * d
            if not rest[k]:
                del rest[k]
    return found


def _leading(terms: Terms) -> Monomial:
    """The largest monomial in graded lexicographic order."""
    return min(terms, key=lambda m: (-len(m), m))


def common_factor(*polynomials: Terms) -> tuple[int, Monomial]:
    """The largest single term that divides all: a positive number, and a monomial."""
    terms = [t for p in polynomials for t in p.items()]
    number = math.gcd(*(c for _, c in terms))
    shared = Counter(terms[0][0])
    for m, _ in terms[1:]:
        shared &= Counter(m)
    return number, tuple(sorted(shared.elements()))
