"""Sums of products: how far a correct one may be from the exact one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from workbench.body import Array

Product = Callable[[Array, Array], Array]


def gamma(terms: int, unit: float) -> float:
    """Relative error of a sum of ``terms`` products, in any order: K·u / (1 - K·u).

    Infinite where K·u reaches 1: such a sum has no correct digit to check.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.1.
    """
    return terms * unit / (1 - terms * unit) if terms * unit < 1 else np.inf


def is_exact(bound: Any) -> bool:
    """Whether an input bound says "no error" (None: the input is absent)."""
    return bound is None or (np.ndim(bound) == 0 and bound == 0)


def operand(values: Sequence[Any], index: int) -> Any:
    """An optional input or its bound; None where it is absent."""
    return values[index] if index < len(values) else None


def product_bound(
    product: Product,
    operands: tuple[Array, Array],
    bounds: tuple[Any, Any],
    *,
    terms: int,
    unit: float,
) -> Any:
    """Bound of a bilinear ``product`` of float64 operands: rounding plus amplified input error.

    4·γ(K)·(|x|·|w|) and |e_x|·|w| + |x|·|e_w| + |e_x|·|e_w|, each computed by the same product on
    absolute values. Integers are summed exactly: 0.
    """
    x, w = operands
    if x.dtype.kind != "f" and w.dtype.kind != "f":
        return 0.0
    e_x, e_w = bounds
    size_x, size_w = np.abs(x), np.abs(w) + e_w
    scaled = 4 * gamma(terms, unit) * (size_x + e_x) + e_x
    bound = product(scaled, size_w)
    if is_exact(e_w):
        return bound
    return bound + product(size_x, np.broadcast_to(np.asarray(e_w, np.float64), w.shape))
