"""One element as CUDA C++: how types are stored and computed in, and each pointwise operator."""

from __future__ import annotations

import math
from typing import Any

from workbench.datatypes import DataType
from workbench.tactics.arithmetic import is_reduced
from workbench.tactics.nvrtc.small_types import SMALL, narrowed
from workbench.tactics.scalar_text import (
    BITWISE,
    COMMON,
    Rule,
    Scalars,
    call,
    chain,
    check_divisor,
    infix,
    known_power,
)

STORAGE: dict[DataType, str] = {
    DataType.FLOAT: "float",
    DataType.DOUBLE: "double",
    DataType.HALF: "u16",
    DataType.BF16: "u16",
    **SMALL,
    DataType.INT8: "signed char",
    DataType.UINT8: "u8",
    DataType.INT16: "short",
    DataType.UINT16: "u16",
    DataType.INT32: "int",
    DataType.UINT32: "unsigned",
    DataType.INT64: "i64",
    DataType.UINT64: "u64",
    DataType.BOOL: "u8",
}
"""The C type of a stored element; types that are not here have no kernel."""

PRELUDE = r"""
typedef unsigned char u8; typedef unsigned short u16; typedef long long i64;
typedef unsigned long long u64;
#define INLINE __device__ __forceinline__
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define WAIT_FOR_EARLIER asm volatile("griddepcontrol.wait;" ::: "memory");
#define LET_NEXT_START if (lets_next_start) asm volatile("griddepcontrol.launch_dependents;");
#else
#define WAIT_FOR_EARLIER
#define LET_NEXT_START
#endif
#ifndef HOST_SHIM
INLINE float load_HALF(u16 h) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h)); return f; }
INLINE u16 store_HALF(float v) {
  u16 h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v)); return h; }
#endif
INLINE float load_BF16(u16 h) { return __uint_as_float(((unsigned)h) << 16); }
INLINE u16 store_BF16(float v) {
  unsigned u = __float_as_uint(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (u16)((u >> 16) | 64u);
  return (u16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16); }
template <typename T, int N> struct alignas(sizeof(T) * N) Pack { T v[N]; };
INLINE i64 div_i64(i64 a, i64 b) { return b == 0 ? 0 : a / b; }
INLINE i64 mod_i64(i64 a, i64 b) {
  i64 r = b == 0 ? 0 : a % b; return r && ((r < 0) != (b < 0)) ? r + b : r; }
INLINE u64 div_u64(u64 a, u64 b) { return b == 0 ? 0 : a / b; }
INLINE u64 mod_u64(u64 a, u64 b) { return b == 0 ? 0 : a % b; }
INLINE float mod_float(float a, float b) {
  const float r = fmodf(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
INLINE double mod_double(double a, double b) {
  const double r = fmod(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
INLINE i64 pow_i64(i64 x, i64 n) {
  if (n < 0) return (i64)pow((double)x, (double)n);
  unsigned long long r = 1, b = (unsigned long long)x;
  for (; n; n >>= 1, b *= b) if (n & 1) r *= b;
  return (i64)r; }
INLINE i64 shift_left(i64 a, i64 n) {
  return n > 63 || n < 0 ? 0 : (i64)((unsigned long long)a << n); }
INLINE i64 shift_right(i64 a, i64 n) { return a >> (n > 63 || n < 0 ? 63 : n); }
INLINE i64 shift_right_unsigned(i64 a, i64 n) {
  return n > 63 || n < 0 ? 0 : (i64)((unsigned long long)a >> n); }
INLINE float max_nan(float a, float b) { return a != a || a > b ? a : b; }
INLINE float min_nan(float a, float b) { return a != a || a < b ? a : b; }
INLINE double max_nan(double a, double b) { return a != a || a > b ? a : b; }
INLINE double min_nan(double a, double b) { return a != a || a < b ? a : b; }
INLINE i64 max_nan(i64 a, i64 b) { return a > b ? a : b; }
INLINE i64 min_nan(i64 a, i64 b) { return a < b ? a : b; }
INLINE u64 max_nan(u64 a, u64 b) { return a > b ? a : b; }
INLINE u64 min_nan(u64 a, u64 b) { return a < b ? a : b; }
INLINE float erf_(float x) { return erff(x); }
INLINE double erf_(double x) { return erf(x); }
INLINE float exp_(float x) { return expf(x); }
INLINE double exp_(double x) { return exp(x); }
INLINE float log_(float x) { return logf(x); }
INLINE double log_(double x) { return log(x); }
INLINE float tanh_(float x) { return tanhf(x); }
INLINE double tanh_(double x) { return tanh(x); }
INLINE float sqrt_(float x) { return sqrtf(x); }
INLINE double sqrt_(double x) { return sqrt(x); }
INLINE float pow_(float x, float y) { return powf(x, y); }
INLINE double pow_(double x, double y) { return pow(x, y); }
INLINE float log1p_(float x) { return log1pf(x); }
INLINE double log1p_(double x) { return log1p(x); }
template <typename T> INLINE T softplus_(T x) {
  return (x > T(0) ? x : T(0)) + log1p_(exp_(x > T(0) ? -x : x)); }
template <typename T> INLINE T sigmoid_(T x) { return T(1) / (T(1) + exp_(-x)); }
"""
"""Header-free: NVRTC needs no include path. Sigmoid and softplus never overflow into NaN."""


def working(dtype: DataType) -> str:
    """The C type in which an element is computed."""
    if dtype is DataType.BOOL:
        return "bool"
    if dtype is DataType.DOUBLE:
        return "double"
    if dtype.is_float:
        return "float"
    return "u64" if dtype is DataType.UINT64 else "i64"


INTEGERS = ("i64", "u64")
"""Working types of integers."""


def loaded(dtype: DataType, text: str) -> str:
    """A stored element in its working type."""
    if is_reduced(dtype) or dtype in SMALL:
        return f"load_{dtype.name}({text})"
    if dtype is DataType.BOOL:
        return f"({text} != 0)"
    return text if dtype.is_float else f"({working(dtype)})({text})"


def stored(dtype: DataType, text: str) -> str:
    """A working element as it is stored."""
    if is_reduced(dtype) or dtype in SMALL:
        return f"store_{dtype.name}({text})"
    return f"({STORAGE[dtype]})({text})"


def wrapped(dtype: DataType, text: str) -> str:
    """An integer result, reduced to its type's range. Floats keep the precision they have."""
    if dtype.is_integer and dtype in SMALL:
        return f"load_{dtype.name}(store_{dtype.name}({text}))"
    if dtype.is_integer and dtype not in (DataType.INT64, DataType.UINT64, DataType.BOOL):
        return f"(i64)({STORAGE[dtype]})({text})"
    return text


def number(value: Any, dtype: DataType) -> str:
    """A literal in a type's working type."""
    if dtype is DataType.BOOL:
        return "true" if value else "false"
    if dtype is DataType.UINT64:
        return f"(u64){int(value) % 2**64}ULL"
    if not dtype.is_float:
        return f"(i64){int(value)}LL" if int(value) != -(2**63) else "(-9223372036854775807LL - 1)"
    v, kind = float(value), working(dtype)
    if v != v:
        return f"({kind})__int_as_float(0x7fc00000)"
    if math.isinf(v):
        return f"({kind})({'-' if v < 0 else ''}__int_as_float(0x7f800000))"
    if kind == "double":
        text = f"{v:.17g}"
        return text if any(c in text for c in ".en") else f"{text}.0"
    return _float(v)


def lowest(kind: str) -> str:
    """What no value of a working type is below."""
    least = {"i64": "(-9223372036854775807LL - 1)", "u64": "0"}
    return f"({kind})({least.get(kind, '-__int_as_float(0x7f800000)')})"


def highest(kind: str) -> str:
    """What no value of a working type is above."""
    return f"({kind})(~{lowest(kind)})" if kind in INTEGERS else f"(-{lowest(kind)})"


def powered(text: str, p: int, kind: str) -> str:
    """A number of a floating kind to the power of p."""
    return {1: text, 2: f"{text} * {text}"}.get(p, f"pow_({text}, ({kind}){p})")


def rooted(text: str, p: int, kind: str) -> str:
    """Its p-th root."""
    return {1: text, 2: f"sqrt_({text})"}.get(p, f"pow_({text}, ({kind}){1 / p!r})")


def _float(v: float) -> str:
    text = f"{v:.9g}"
    return f"{text}f" if any(c in text for c in ".en") else f"{text}.0f"


_INTEGER = r"\([iu]64\)(-?\d+)U?LL"
"""An integer literal; see ``number``."""


def _div(s: Scalars) -> str:
    if s.dtype.is_float:
        return f"({s[0]} / {s[1]})"
    check_divisor(s, _INTEGER)
    return f"div_{working(s.dtype)}({s[0]}, {s[1]})"


def _mod(s: Scalars) -> str:
    if not s.dtype.is_float:
        check_divisor(s, _INTEGER)
    if not s.node.attributes["fmod"]:
        return f"mod_{working(s.dtype)}({s[0]}, {s[1]})"
    if s.dtype.is_float:
        return f"fmod{'' if s.dtype is DataType.DOUBLE else 'f'}({s[0]}, {s[1]})"
    return f"({s[0]} - div_{working(s.dtype)}({s[0]}, {s[1]}) * {s[1]})"


_POWERS = {2.0: "({x} * {x})", 3.0: "({x} * {x} * {x})", 0.5: "sqrt_({x})", 1.0: "{x}"}


def _pow(s: Scalars) -> str:
    exponent = s.kinds[1]
    if not s.dtype.is_float:
        real = exponent is not None and exponent.is_float
        if real:
            return f"({working(s.dtype)})pow_((double)({s[0]}), (double)({s[1]}))"
        return f"pow_i64({s[0]}, {s[1]})"
    kind = working(s.dtype)
    return known_power(s, _POWERS) or f"pow_({s[0]}, ({kind})({s[1]}))"


def _clip(s: Scalars) -> str:
    text = s[0]
    if s.has(1):
        text = f"({text} < {s[1]} ? {s[1]} : {text})"
    if s.has(2):
        text = f"({text} > {s[2]} ? {s[2]} : {text})"
    return text


def _cast(s: Scalars) -> str:
    if s.out is DataType.BOOL:
        return f"({s[0]} != {s.number(0)})" if s.dtype is not DataType.BOOL else s[0]
    if s.dtype.is_float and s.out is DataType.UINT64:
        return f"({s[0]} < 0 ? (u64)(i64)({s[0]}) : (u64)({s[0]}))"
    if s.dtype.is_float and s.out.is_integer:
        return wrapped(s.out, f"(i64)({s[0]})")
    if s.out.is_float and s.out in SMALL:
        a = s.node.attributes
        saturate = bool(a["saturate"])
        return narrowed(s.out, s[0], saturate=saturate, rounds=a["round_mode"])
    return wrapped(s.out, f"({working(s.out)})({s[0]})")


def _shift(s: Scalars) -> str:
    """By more than a type's bits: what the C type of 64 bits gives, cut to the type."""
    if s.node.attributes["direction"] == "LEFT":
        return f"shift_left({s[0]}, {s[1]})"
    unsigned = s.dtype is DataType.UINT64
    return f"shift_right{'_unsigned' if unsigned else ''}({s[0]}, {s[1]})"


def _is_inf(s: Scalars) -> str:
    a = s.node.attributes
    wanted = {math.inf: a["detect_positive"], -math.inf: a["detect_negative"]}
    sides = [f"({s[0]} == {s.number(v)})" for v, asked in wanted.items() if asked]
    return f"({' || '.join(sides) or 'false'})"


def _gelu(s: Scalars) -> str:
    x, n = s[0], s.number
    if s.node.attributes["approximate"] != "tanh":
        return f"({n(0.5)} * {x} * ({n(1)} + erf_({x} * {n(math.sqrt(0.5))})))"
    inner = f"{n(math.sqrt(2 / math.pi))} * ({x} + {n(0.044715)} * {x} * {x} * {x})"
    return f"({n(0.5)} * {x} * ({n(1)} + tanh_({inner})))"


def _unit_clip(s: Scalars, line: str) -> str:
    return f"min_nan(max_nan({line}, {s.number(0)}), {s.number(1)})"


def _curve(s: Scalars, curve: str, gamma: str = "") -> str:
    chosen = f"({s[0]} > {s.number(0)} ? {s[0]} : {curve})"
    return f"({gamma} * {chosen})" if gamma else chosen


def _exponential(s: Scalars) -> str:
    return f"{s.attribute('alpha')} * (exp_({s[0]}) - {s.number(1)})"


def _sign(s: Scalars) -> str:
    zero = s.number(0)
    return f"({s[0]} > {zero} ? {s.number(1)} : ({s[0]} < {zero} ? {s.number(-1)} : {s[0]}))"


def _sloped(s: Scalars, slope: str) -> str:
    return f"({s[0]} < {s.number(0)} ? {slope} * {s[0]} : {s[0]})"


def _typed(name: str) -> Rule:
    """A function of CUDA's mathematics, whose float form ends in f."""
    return lambda s: f"{name}{'' if s.dtype is DataType.DOUBLE else 'f'}({s[0]})"


def _absolute(s: Scalars) -> str:
    return _typed("fabs")(s) if s.dtype.is_float else f"({s[0]} < 0 ? -{s[0]} : {s[0]})"


RULES: dict[str, Rule] = {
    **COMMON,
    **BITWISE,
    "Div": _div,
    "Mod": _mod,
    "Pow": _pow,
    "Max": chain("max_nan({0}, {1})"),
    "Min": chain("min_nan({0}, {1})"),
    "Abs": _absolute,
    "Sign": _sign,
    "Floor": _typed("floor"),
    "Ceil": _typed("ceil"),
    "Round": _typed("rint"),
    "Sqrt": call("sqrt_"),
    "Exp": call("exp_"),
    "Log": call("log_"),
    "Erf": call("erf_"),
    "Tanh": call("tanh_"),
    "Sigmoid": call("sigmoid_"),
    "Softplus": call("softplus_"),
    **{
        op: _typed(op.lower())
        for op in "Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh".split()
    },
    "IsInf": _is_inf,
    "Relu": lambda s: f"({s[0]} < {s.number(0)} ? {s.number(0)} : {s[0]})",
    "LeakyRelu": lambda s: _sloped(s, s.attribute("alpha")),
    "PRelu": lambda s: _sloped(s, s[1]),
    "ThresholdedRelu": lambda s: f"({s[0]} > {s.attribute('alpha')} ? {s[0]} : {s.number(0)})",
    "Elu": lambda s: _curve(s, _exponential(s)),
    "Selu": lambda s: _curve(s, _exponential(s), s.attribute("gamma")),
    "Celu": lambda s: _curve(
        s, f"{s.attribute('alpha')} * (exp_({s[0]} / {s.attribute('alpha')}) - {s.number(1)})"
    ),
    "Softsign": lambda s: f"({s[0]} / ({s.number(1)} + {_absolute(s)}))",
    "HardSigmoid": lambda s: _unit_clip(
        s, f"({s.attribute('alpha')} * {s[0]} + {s.attribute('beta')})"
    ),
    "HardSwish": lambda s: (
        f"({s[0]} * {_unit_clip(s, f'({s[0]} / {s.number(6)} + {s.number(0.5)})')})"
    ),
    "Mish": lambda s: f"({s[0]} * tanh_(softplus_({s[0]})))",
    "Swish": lambda s: f"({s[0]} * sigmoid_({s.attribute('alpha')} * {s[0]}))",
    "Gelu": _gelu,
    "Clip": _clip,
    "Cast": _cast,
    "Where": lambda s: f"({s[0]} ? {s[1]} : {s[2]})",
    "And": infix("&&"),
    "Or": infix("||"),
    "Xor": infix("!="),
    "Not": lambda s: f"(!{s[0]})",
    "BitShift": _shift,
}
"""C++ of each pointwise operator in working types; NaN behaves as in the reference."""
