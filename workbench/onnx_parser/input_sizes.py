"""Sizes of the model's inputs: numbers, symbols, and simple expressions over symbols."""

from __future__ import annotations

import ast
import keyword
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx import TensorShapeProto

from workbench import dimensions
from workbench.onnx_parser.names import Names

_RESERVED = frozenset({"floordiv", "max", "min"})
"""Names that the text form of a size uses for calls."""

_CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "floordiv": dimensions.floordiv,
    "max": dimensions.maximum,
    "min": dimensions.minimum,
}

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: dimensions.floordiv,
}


class InputSizes:
    """Reads dim_params of all inputs together: equal names are equal sizes.

    A name becomes a Python identifier, unique among the model's. An expression such as
    ``batch*16`` or ``Min(512, tokens)`` is kept where each of its symbols is itself the size of
    some input axis, so that shapes given at run time bind it; else it becomes a fresh symbol.
    """

    def __init__(self, inputs: Mapping[str, Sequence[TensorShapeProto.Dimension]]) -> None:
        self._names: dict[str, str] = {}
        self._symbols = Names()
        params = [d.dim_param for dims in inputs.values() for d in dims if d.dim_param]
        for param in params:
            if _tree(param) is None or _is_name(param):
                self._rename(param)
        self._plain = {p for p in params if _is_name(p)}

    def shape(self, name: str, dims: Sequence[TensorShapeProto.Dimension]) -> tuple[Any, ...]:
        """The sizes of one input."""
        return tuple(self._size(name, axis, d) for axis, d in enumerate(dims))

    def _size(self, name: str, axis: int, dim: TensorShapeProto.Dimension) -> Any:
        # Some exporters write -1 for a size that is only known at run time.
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            return dim.dim_value
        if not dim.dim_param:
            return dimensions.symbol(self._rename(f"{name}_{axis}", key=f"{name}\0{axis}"))
        tree = None if _is_name(dim.dim_param) else _tree(dim.dim_param)
        size = self._expression(tree) if tree is not None else None
        return dimensions.symbol(self._rename(dim.dim_param)) if size is None else size

    def _rename(self, text: str, *, key: str = "") -> str:
        key = key or text
        if key not in self._names:
            self._names[key] = self._symbols.claim(identifier(text))
        return self._names[key]

    def _expression(self, tree: ast.expr) -> Any:
        """The size, or None where it is not simple or not bound by the inputs."""
        match tree:
            case ast.Constant(value=int(v)):
                return v
            case ast.Name(id=name) if name in self._plain:
                return dimensions.symbol(self._rename(name))
            case ast.BinOp(left=a, op=op, right=b) if type(op) in _OPERATORS:
                return self._applied(_OPERATORS[type(op)], a, b)
            case ast.Call(func=ast.Name(id=name), args=[a, b]) if name.lower() in _CALLS:
                return self._applied(_CALLS[name.lower()], a, b)
            case _:
                return None

    def _applied(self, call: Callable[[Any, Any], Any], a: ast.expr, b: ast.expr) -> Any:
        x, y = self._expression(a), self._expression(b)
        if x is None or y is None or (call is dimensions.floordiv and y == 0):
            return None
        return call(x, y)


def identifier(text: str) -> str:
    """``text`` as a Python identifier that is not a keyword."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "size"
    if name[0].isdigit() or keyword.iskeyword(name) or name in _RESERVED:
        name = f"size_{name}"
    return name


def _is_name(text: str) -> bool:
    return text.isidentifier()


_ARITHMETIC = re.compile(r"[\w\s+\-*/(),]{1,200}", re.ASCII)


def _tree(text: str) -> ast.expr | None:
    if not _ARITHMETIC.fullmatch(text):
        return None
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
