"""Each pointwise operator as Triton text: floats are float32 in registers, integers int32."""

from __future__ import annotations

import math
from typing import Any

from workbench.datatypes import DataType
from workbench.tactics.scalar_text import (
    COMMON,
    Rule,
    Scalars,
    Untranslatable,
    call,
    chain,
    infix,
    known_power,
)


def working(dtype: DataType) -> str:
    """The type in which an element is computed."""
    if dtype is DataType.BOOL:
        return "tl.int1"
    if dtype.is_float and dtype is not DataType.DOUBLE:
        return "tl.float32"
    if dtype is DataType.INT64:
        return "tl.int64"
    if dtype.is_integer and dtype.info.bits <= 32 and dtype is not DataType.UINT32:
        return "tl.int32"
    raise Untranslatable(f"Triton kernels here compute no {dtype.value}")


def loaded(dtype: DataType, text: str) -> str:
    """A stored element in its working type."""
    if dtype is DataType.BOOL:
        return f"({text} != 0)"
    return text if dtype is DataType.FLOAT else f"{text}.to({working(dtype)})"


def number(value: Any, dtype: DataType) -> str:
    """A literal."""
    if dtype is DataType.BOOL:
        return str(bool(value))
    if not dtype.is_float:
        return str(int(value))
    v = float(value)
    return repr(v) if math.isfinite(v) else f'float("{v}")'


NAN = "propagate_nan=tl.PropagateNan.ALL"


def _largest(s: Scalars) -> str:
    return chain(f"tl.maximum({{0}}, {{1}}, {NAN})" if s.dtype.is_float else "tl.maximum({}, {})")(
        s
    )


def _smallest(s: Scalars) -> str:
    return chain(f"tl.minimum({{0}}, {{1}}, {NAN})" if s.dtype.is_float else "tl.minimum({}, {})")(
        s
    )


def _div(s: Scalars) -> str:
    if not s.dtype.is_float:
        raise Untranslatable("Div of integers")
    return f"({s[0]} / {s[1]})"


_POWERS = {2.0: "({x} * {x})", 3.0: "({x} * {x} * {x})", 0.5: "tl.sqrt({x})", 1.0: "{x}"}


def _pow(s: Scalars) -> str:
    if not s.dtype.is_float:
        raise Untranslatable("Pow of integers")
    return known_power(s, _POWERS) or f"libdevice.pow({s[0]}, {s[1]})"


def _clip(s: Scalars) -> str:
    # The limits are no NaN; a NaN passes as in the reference.
    nan = f", {NAN}" if s.dtype.is_float else ""
    text = s[0]
    if s.has(1):
        text = f"tl.maximum({text}, {s[1]}{nan})"
    if s.has(2):
        text = f"tl.minimum({text}, {s[2]}{nan})"
    return text


def _cast(s: Scalars) -> str:
    if s.out is DataType.BOOL:
        return f"({s[0]} != 0)" if s.dtype is not DataType.BOOL else s[0]
    if working(s.out) == working(s.dtype):
        return s[0]
    return f"({s[0]}).to({working(s.out)})"


def _gelu(s: Scalars) -> str:
    x = s[0]
    if s.node.attributes["approximate"] != "tanh":
        return f"{'short' if s.out.info.bits <= 16 else 'long'}_gelu({x})"
    inner = f"{math.sqrt(2 / math.pi)!r} * ({x} + 0.044715 * {x} * {x} * {x})"
    return f"(0.5 * {x} * (1.0 + libdevice.tanh({inner})))"


def _unit_clip(line: str) -> str:
    return f"tl.minimum(tl.maximum({line}, 0.0, {NAN}), 1.0, {NAN})"


def _curve(s: Scalars, curve: str, gamma: str = "") -> str:
    chosen = f"tl.where({s[0]} > 0.0, {s[0]}, {curve})"
    return f"({gamma} * {chosen})" if gamma else chosen


def _exponential(s: Scalars) -> str:
    return f"{s.attribute('alpha')} * libdevice.expm1({s[0]})"


def _softplus(x: str) -> str:
    return f"(tl.maximum({x}, 0.0, {NAN}) + libdevice.log1p(tl.exp(-tl.abs({x}))))"


def _sigmoid(x: str) -> str:
    return f"(1.0 / (1.0 + tl.exp(-({x}))))"


def _sloped(s: Scalars, slope: str) -> str:
    return f"tl.where({s[0]} < 0.0, {slope} * {s[0]}, {s[0]})"


def _relu(s: Scalars) -> str:
    return f"tl.maximum({s[0]}, 0.0, {NAN})" if s.dtype.is_float else f"tl.maximum({s[0]}, 0)"


RULES: dict[str, Rule] = {
    **COMMON,
    "Div": _div,
    "Pow": _pow,
    "Max": _largest,
    "Min": _smallest,
    "Abs": call("tl.abs"),
    "Floor": call("libdevice.floor"),
    "Ceil": call("libdevice.ceil"),
    "Round": call("libdevice.rint"),
    "Sqrt": call("tl.sqrt"),
    "Exp": call("tl.exp"),
    "Log": call("tl.log"),
    "Erf": call("tl.erf"),
    "Tanh": call("libdevice.tanh"),
    "Sigmoid": lambda s: _sigmoid(s[0]),
    "Softplus": lambda s: _softplus(s[0]),
    "Sin": call("libdevice.sin"),
    "Cos": call("libdevice.cos"),
    "Relu": _relu,
    "LeakyRelu": lambda s: _sloped(s, s.attribute("alpha")),
    "PRelu": lambda s: _sloped(s, s[1]),
    "ThresholdedRelu": lambda s: f"tl.where({s[0]} > {s.attribute('alpha')}, {s[0]}, 0.0)",
    "Elu": lambda s: _curve(s, _exponential(s)),
    "Selu": lambda s: _curve(s, _exponential(s), s.attribute("gamma")),
    "Celu": lambda s: _curve(
        s, f"{s.attribute('alpha')} * libdevice.expm1({s[0]} / {s.attribute('alpha')})"
    ),
    "Softsign": lambda s: f"({s[0]} / (1.0 + tl.abs({s[0]})))",
    "HardSigmoid": lambda s: _unit_clip(
        f"({s.attribute('alpha')} * {s[0]} + {s.attribute('beta')})"
    ),
    "HardSwish": lambda s: f"({s[0]} * {_unit_clip(f'({s[0]} / 6.0 + 0.5)')})",
    "Mish": lambda s: f"({s[0]} * libdevice.tanh({_softplus(s[0])}))",
    "Swish": lambda s: f"({s[0]} * {_sigmoid(s.attribute('alpha') + ' * ' + s[0])})",
    "Gelu": _gelu,
    "Clip": _clip,
    "Cast": _cast,
    "Where": lambda s: f"tl.where({s[0]}, {s[1]}, {s[2]})",
    "And": infix("&"),
    "Or": infix("|"),
    "Xor": infix("^"),
    "Not": lambda s: f"({s[0]} == 0)",
}
"""Text of each pointwise operator in working types; NaN behaves as in the reference."""
