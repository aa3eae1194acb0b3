"""Sizes in JSON: numbers, and the text of symbolic ones."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from workbench.dimensions.symbolic import CALLS, CONSTRUCT, SymbolicDim, symbol
from workbench.errors import NetworkError


def dim_to_json(value: Any) -> int | str:
    """A number, or the text of a symbolic size."""
    return str(value) if isinstance(value, SymbolicDim) else int(value)


def dim_from_json(value: int | str) -> Any:
    """What ``dim_to_json`` wrote; any other text is refused."""
    if isinstance(value, int):
        return value
    try:
        return _from_tree(ast.parse(value, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise NetworkError(f"not a size: {value!r}") from None


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


def _from_tree(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int(v)):
            return v
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=x):
            return -_from_tree(x)
        case ast.BinOp(left=a, op=op, right=b) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_from_tree(a), _from_tree(b))
        case ast.Call(func=ast.Name(id=name), args=[a, b]) if name in CALLS:
            return CONSTRUCT[name](_from_tree(a), _from_tree(b))
        case _:
            raise ValueError(ast.dump(node))
