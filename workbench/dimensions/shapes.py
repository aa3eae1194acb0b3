"""Shapes: tuples of sizes, numbers or symbolic."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import reduce
from typing import Any

from workbench.dimensions.symbolic import Bindings, SymbolicDim, evaluate, maximum
from workbench.errors import NetworkError

Shape = tuple[Any, ...]


def is_static(shape: Iterable[Any]) -> bool:
    """Whether every size is a number."""
    return not any(isinstance(d, SymbolicDim) for d in shape)


def evaluate_shape(shape: Iterable[Any], bindings: Bindings) -> tuple[int, ...]:
    """A shape as numbers."""
    return tuple(evaluate(d, bindings) for d in shape)


def may_equal(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Whether two shapes can be one: of one rank, and no two numbers differ."""
    return len(a) == len(b) and all(
        x == y or isinstance(x, SymbolicDim) or isinstance(y, SymbolicDim)
        for x, y in zip(a, b, strict=True)
    )


def volume(shape: Iterable[Any]) -> Any:
    """Number of elements."""
    return reduce(operator.mul, shape, 1)


def broadcast(*shapes: tuple[Any, ...], place: str = "") -> tuple[Any, ...]:
    """ONNX's multidirectional broadcast of shapes; symbols are taken to fit the sizes they meet."""
    rank = max(len(s) for s in shapes)
    result: list[Any] = []
    for axis in range(rank):
        size: Any = 1
        for s in shapes:
            k = axis - rank + len(s)
            d = s[k] if k >= 0 else 1
            if size == 1 or size == d:
                size = d
            elif d == 1:
                continue
            elif isinstance(d, SymbolicDim) and isinstance(size, SymbolicDim):
                size = maximum(size, d)
            elif isinstance(d, SymbolicDim):
                continue
            elif isinstance(size, SymbolicDim):
                size = d
            else:
                raise NetworkError(
                    f"shapes {' and '.join(map(str, shapes))} do not broadcast: "
                    f"{size} against {d} on axis {axis}",
                    place=place,
                    remedy="make the sizes equal, or one of them 1",
                )
        result.append(size)
    return tuple(result)
