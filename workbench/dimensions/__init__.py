"""Symbolic sizes: integer polynomials over named symbols, with floor division, min and max.

A Dim is an ``int`` or a ``SymbolicDim``; arithmetic that cancels to a number gives an ``int``.
Sizes are never negative, which interval arithmetic relies on.
"""

from workbench.dimensions.shapes import (
    Shape,
    broadcast,
    evaluate_shape,
    is_static,
    may_equal,
    volume,
)
from workbench.dimensions.symbolic import (
    LARGEST,
    Bindings,
    Dim,
    SymbolicDim,
    ceildiv,
    evaluate,
    floordiv,
    interval,
    is_symbol,
    maximum,
    minimum,
    substitute,
    symbol,
    symbols_of,
    without_common_factor,
)
from workbench.dimensions.text import dim_from_json, dim_to_json

__all__ = [
    "LARGEST",
    "Bindings",
    "Dim",
    "Shape",
    "SymbolicDim",
    "broadcast",
    "ceildiv",
    "dim_from_json",
    "dim_to_json",
    "evaluate",
    "evaluate_shape",
    "floordiv",
    "interval",
    "is_static",
    "is_symbol",
    "maximum",
    "may_equal",
    "minimum",
    "substitute",
    "symbol",
    "symbols_of",
    "volume",
    "without_common_factor",
]
