"""Scalar rules: the text of one pointwise operator on one element, and how elements are stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from workbench.datatypes import DataType
from workbench.tactics.arithmetic import is_reduced
from workbench.tactics.scalar_text import (
    BITWISE,
    COMMON,
    Rule,
    Scalars,
    Untranslatable,
    call,
    check_divisor,
    infix,
    known_power,
)

STORAGE: dict[DataType, str] = {
    DataType.FLOAT: "float32",
    DataType.DOUBLE: "float64",
    DataType.HALF: "uint16",
    DataType.BF16: "uint16",
    DataType.INT8: "int8",
    DataType.UINT8: "uint8",
    DataType.INT16: "int16",
    DataType.UINT16: "uint16",
    DataType.INT32: "int32",
    DataType.UINT32: "uint32",
    DataType.INT64: "int64",
    DataType.UINT64: "uint64",
    DataType.BOOL: "uint8",
}
"""What generated code sees in a buffer; types that are not here are refused."""


def working_name(dtype: DataType) -> str:
    """The type in which an element is computed."""
    if dtype is DataType.BOOL:
        return "bool_"
    return "float32" if is_reduced(dtype) else STORAGE[dtype]


def loaded(dtype: DataType, text: str) -> str:
    """A stored element in its working type."""
    match dtype:
        case DataType.BF16:
            return f"bf16_to_float({text})"
        case DataType.HALF:
            return f"half_to_float({text})"
        case DataType.BOOL:
            return f"({text} != 0)"
        case _:
            return text


def stored(dtype: DataType, text: str) -> str:
    """A working element as it is stored. Raises Untranslatable."""
    match dtype:
        case DataType.BF16:
            return f"float_to_bf16({text})"
        case DataType.HALF:
            return f"float_to_half({text})"
        case _ if dtype in STORAGE:
            return f"{STORAGE[dtype]}({text})"
        case _:
            raise Untranslatable(f"{dtype} is no type that generated kernels write")


@dataclass(frozen=True)
class Value:
    """Text of a scalar, its type, and the shape of the tensor that it is an element of."""

    text: str
    dtype: DataType
    shape: tuple[int, ...]


def constant(value: Any, dtype: DataType) -> str:
    """A literal in a type's working type."""
    if dtype is DataType.BOOL:
        return f"bool_({bool(value)})"
    if dtype.is_float:
        return f"{working_name(dtype)}({float(value)!r})"
    return f"{working_name(dtype)}({int(value)})"


def _suffix(s: Scalars) -> str:
    """Which of the ``mathematics`` functions to use."""
    return "f64" if s.dtype is DataType.DOUBLE else "f32"


def _math(name: str) -> Rule:
    """A function of ``mathematics``, by type."""
    return lambda s: f"{name}_{_suffix(s)}({s[0]})"


def _pick(sign: str) -> Rule:
    """Max or Min: NaN wins."""

    def rule(s: Scalars) -> str:
        if len(s.texts) > 2:
            raise Untranslatable(f"{s.node.op} of {len(s.texts)} inputs")
        if len(s.texts) == 1:
            return s[0]
        a, b = s[0], s[1]
        nan = f" | ({a} != {a})" if s.dtype.is_float else ""
        return f"({a} if ({a} {sign} {b}){nan} else {b})"

    return rule


_INTEGER = r"\w+\((-?\d+)\)"
"""An integer literal; see ``constant``."""


def _div(s: Scalars) -> str:
    if s.dtype.is_float:
        return f"{s[0]} / {s[1]}"
    check_divisor(s, _INTEGER)
    return f"divide_toward_zero({s[0]}, {s[1]})"


def _mod(s: Scalars) -> str:
    if not s.dtype.is_float:
        check_divisor(s, _INTEGER)
    if not s.node.attributes["fmod"]:
        return f"{s[0]} % {s[1]}"
    if s.dtype.is_float:
        return f"fmod({s[0]}, {s[1]})"
    return f"{s[0]} - divide_toward_zero({s[0]}, {s[1]}) * {s[1]}"


_POWERS = {2.0: "{x} * {x}", 3.0: "{x} * {x} * {x}", 0.5: "sqrt({x})", 1.0: "{x}"}


def _pow(s: Scalars) -> str:
    if not s.dtype.is_float:
        raise Untranslatable("Pow of integers")
    return known_power(s, _POWERS) or f"math.pow(float64({s[0]}), float64({s[1]}))"


def _clip(s: Scalars) -> str:
    text = s[0]
    if s.has(1):
        text = f"({s[1]} if {text} < {s[1]} else {text})"
    if s.has(2):
        text = f"({s[2]} if {text} > {s[2]} else {text})"
    return text


def _cast(s: Scalars) -> str:
    if s.out is DataType.BOOL:
        return f"{s[0]} != {s.number(0)}" if s.dtype is not DataType.BOOL else s[0]
    if s.dtype.is_float and s.out.is_integer:
        return f"int64(trunc({s[0]}))"
    return s[0]


def _is_inf(s: Scalars) -> str:
    a = s.node.attributes
    wanted = {math.inf: a["detect_positive"], -math.inf: a["detect_negative"]}
    sides = [f"({s[0]} == {s.number(v)})" for v, asked in wanted.items() if asked]
    return " | ".join(sides) or "False"


def _gelu(s: Scalars) -> str:
    if s.node.attributes["approximate"] != "tanh":
        return f"gelu_{_suffix(s)}({s[0]})"
    x, n = s[0], s.number
    inner = f"{n(math.sqrt(2 / math.pi))} * ({x} + {n(0.044715)} * {x} * {x} * {x})"
    return f"{n(0.5)} * {x} * ({n(1)} + tanh_{_suffix(s)}({inner}))"


def _hard_sigmoid(s: Scalars) -> str:
    line = f"({s.attribute('alpha')} * {s[0]} + {s.attribute('beta')})"
    return _unit_clip(s, line)


def _unit_clip(s: Scalars, line: str) -> str:
    low = f"({s.number(0)} if {line} < {s.number(0)} else {line})"
    return f"({s.number(1)} if {low} > {s.number(1)} else {low})"


def _exponential(s: Scalars, alpha: str, gamma: str = "") -> str:
    curve = f"{alpha} * (exp_{_suffix(s)}({s[0]}) - {s.number(1)})"
    chosen = f"({s[0]} if {s[0]} > {s.number(0)} else {curve})"
    return f"{gamma} * {chosen}" if gamma else chosen


def _celu(s: Scalars) -> str:
    a = s.attribute("alpha")
    curve = f"{a} * (exp_{_suffix(s)}({s[0]} / {a}) - {s.number(1)})"
    return f"({s[0]} if {s[0]} > {s.number(0)} else {curve})"


def _sign(s: Scalars) -> str:
    zero = s.number(0)
    if s.dtype.info.low == 0:
        return f"({s.number(1)} if {s[0]} > {zero} else {zero})"
    return (
        f"({s.number(1)} if {s[0]} > {zero} else ({s.number(-1)} if {s[0]} < {zero} else {s[0]}))"
    )


def _relu(s: Scalars) -> str:
    return f"({s.number(0)} if {s[0]} < {s.number(0)} else {s[0]})"


def _sloped(s: Scalars, slope: str) -> str:
    return f"({slope} * {s[0]} if {s[0]} < {s.number(0)} else {s[0]})"


RULES: dict[str, Rule] = {
    **COMMON,
    **BITWISE,
    "Div": _div,
    "Mod": _mod,
    "Pow": _pow,
    "Max": _pick(">"),
    "Min": _pick("<"),
    "Abs": call("abs"),
    "Sign": _sign,
    "Floor": call("floor"),
    "Ceil": call("ceil"),
    "Round": call("rint"),
    "Sqrt": call("sqrt"),
    "Exp": _math("exp"),
    "Erf": _math("erf"),
    "Tanh": _math("tanh"),
    "Sigmoid": _math("sigmoid"),
    "Softplus": _math("softplus"),
    **{
        op: call(f"math.{op.lower()}")
        for op in "Log Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh".split()
    },
    "IsInf": _is_inf,
    "Relu": _relu,
    "LeakyRelu": lambda s: _sloped(s, s.attribute("alpha")),
    "PRelu": lambda s: _sloped(s, s[1]),
    "ThresholdedRelu": lambda s: f"({s[0]} if {s[0]} > {s.attribute('alpha')} else {s.number(0)})",
    "Elu": lambda s: _exponential(s, s.attribute("alpha")),
    "Selu": lambda s: _exponential(s, s.attribute("alpha"), s.attribute("gamma")),
    "Celu": _celu,
    "Softsign": lambda s: f"{s[0]} / ({s.number(1)} + abs({s[0]}))",
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda s: (
        f"{s[0]} * {_unit_clip(s, f'({s[0]} / {s.number(6)} + {s.number(0.5)})')}"
    ),
    "Mish": lambda s: f"{s[0]} * tanh_{_suffix(s)}(softplus_{_suffix(s)}({s[0]}))",
    "Swish": lambda s: f"{s[0]} * sigmoid_{_suffix(s)}({s.attribute('alpha')} * {s[0]})",
    "Gelu": _gelu,
    "Clip": _clip,
    "Cast": _cast,
    "Where": lambda s: f"({s[1]} if {s[0]} else {s[2]})",
    "And": infix("&"),
    "Or": infix("|"),
    "Xor": infix("^"),
    "Not": lambda s: f"not {s[0]}",
}
"""Scalar code of each pointwise operator, in working types; NaN behaves as in the reference."""
