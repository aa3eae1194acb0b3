"""Pointwise nodes as CUDA C++: values are floats in registers, stored types at the borders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.body import CONSTANT, Body, Literal, Node, TensorType
from workbench.datatypes import DataType
from workbench.formats import Format
from workbench.records import Refusal

PRELUDE = r"""
typedef unsigned short u16; typedef long long i64;
__device__ __forceinline__ float load_FLOAT(const float* p, i64 i) { return p[i]; }
__device__ __forceinline__ void store_FLOAT(float* p, i64 i, float v) { p[i] = v; }
__device__ __forceinline__ float load_HALF(const u16* p, i64 i) {
  float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(p[i])); return f; }
__device__ __forceinline__ float round_HALF(float v) {
  u16 h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
  float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h)); return f; }
__device__ __forceinline__ void store_HALF(u16* p, i64 i, float v) {
  u16 h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v)); p[i] = h; }
__device__ __forceinline__ float load_BF16(const u16* p, i64 i) {
  return __uint_as_float(((unsigned)p[i]) << 16); }
__device__ __forceinline__ u16 bits_BF16(float v) {
  unsigned u = __float_as_uint(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (u16)((u >> 16) | 64u);
  return (u16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16); }
__device__ __forceinline__ float round_BF16(float v) {
  return __uint_as_float(((unsigned)bits_BF16(v)) << 16); }
__device__ __forceinline__ void store_BF16(u16* p, i64 i, float v) { p[i] = bits_BF16(v); }
__device__ __forceinline__ float round_FLOAT(float v) { return v; }
"""
"""Loads widen to float, stores round to nearest even; the header-free half conversions are PTX."""

C_TYPES = {DataType.FLOAT: "float", DataType.HALF: "u16", DataType.BF16: "u16"}
"""Storage type in CUDA C++ of the element types that these kernels read and write."""

_UNARY: dict[str, str] = {
    "Relu": "fmaxf({0}, 0.0f)",
    "Sigmoid": "(1.0f / (1.0f + expf(-({0}))))",
    "Tanh": "tanhf({0})",
    "Exp": "expf({0})",
    "Log": "logf({0})",
    "Sqrt": "sqrtf({0})",
    "Erf": "erff({0})",
    "Abs": "fabsf({0})",
    "Neg": "(-({0}))",
    "Reciprocal": "(1.0f / ({0}))",
    "Floor": "floorf({0})",
    "Ceil": "ceilf({0})",
    "Round": "rintf({0})",
    "Softplus": "log1pf(expf({0}))",
    "HardSwish": "(({0}) * fminf(fmaxf(({0}) / 6.0f + 0.5f, 0.0f), 1.0f))",
    "Identity": "({0})",
    "Cast": "({0})",
}
_VARIADIC: dict[str, str] = {
    "Add": "(({0}) + ({1}))",
    "Sub": "(({0}) - ({1}))",
    "Mul": "(({0}) * ({1}))",
    "Div": "(({0}) / ({1}))",
    "Pow": "powf({0}, {1})",
    "Min": "fminf({0}, {1})",
    "Max": "fmaxf({0}, {1})",
    "PRelu": "(({0}) < 0.0f ? ({0}) * ({1}) : ({0}))",
}


def expression(node: Node, operands: Sequence[str]) -> str | None:
    """One pointwise node over C expressions, or None where there is no such kernel."""
    a: Mapping[str, Any] = node.attributes
    match node.op:
        case "LeakyRelu":
            x = f"({operands[0]})"
            return f"({x} < 0.0f ? {x} * {_number(a['alpha'])} : {x})"
        case "HardSigmoid":
            inner = f"({operands[0]}) * {_number(a['alpha'])} + {_number(a['beta'])}"
            return f"fminf(fmaxf({inner}, 0.0f), 1.0f)"
        case "Gelu" if a["approximate"] == "tanh":
            x = operands[0]
            inner = f"0.7978845608028654f * (({x}) + 0.044715f * ({x}) * ({x}) * ({x}))"
            return f"(0.5f * ({x}) * (1.0f + tanhf({inner})))"
        case "Gelu":
            x = operands[0]
            return f"(0.5f * ({x}) * (1.0f + erff(({x}) * 0.7071067811865476f)))"
        case "Clip":
            x = operands[0]
            if len(operands) > 1 and operands[1]:
                x = f"fmaxf({x}, {operands[1]})"
            if len(operands) > 2 and operands[2]:
                x = f"fminf({x}, {operands[2]})"
            return x
        case op if op in _UNARY:
            return _UNARY[op].format(*operands)
        case op if op in _VARIADIC and len(operands) == 2:
            return _VARIADIC[op].format(*operands)
        case _:
            return None


def check_types(body: Body) -> Refusal | None:
    """Why a Body's types are none that these kernels store, or None."""
    literals = {o for n in body.nodes if n.operator is CONSTANT for o in n.outputs}
    for name, t in body.types.items():
        if name not in literals and t.dtype not in C_TYPES:
            return Refusal(f"NVRTC kernels do not store {t.dtype.value} ('{name}')", code="type")
    return None


def emit(
    body: Body,
    nodes: Sequence[Node],
    known: dict[str, str],
    load: Callable[[str], str],
) -> list[str] | Refusal:
    """C++ statements for pointwise nodes. ``known``: value -> expression, extended in place.

    ``load`` gives the expression of a Body input at the present element. A value of a half type is
    rounded to it, so that inner casts mean what they say.
    """
    lines: list[str] = []
    inputs = {i.name for i in body.inputs}
    for n in nodes:
        if n.operator is CONSTANT:
            literal: Literal = n.attributes["value"]
            if len(literal.values) == 1 and not literal.is_symbolic:
                known[n.outputs[0]] = _number(literal.values[0])
            continue
        operands: list[str] = []
        for v in n.inputs:
            if v and v not in known and v in inputs:
                known[v] = load(v)
            operands.append(known.get(v, "") if v else "")
            if v and not operands[-1]:
                return Refusal(f"{n.op} reads '{v}', which has no scalar form", code="operand")
        text = expression(n, operands)
        if text is None:
            return Refusal(f"there is no NVRTC kernel for {n.op}", code="operator")
        name = f"v{len(known)}"
        kind = body.types[n.outputs[0]].dtype
        lines.append(f"float {name} = round_{kind.name}({text});")
        known[n.outputs[0]] = name
    return lines


def index_of(type_: TensorType, layout: Format, coordinates: Sequence[str]) -> str:
    """Offset of the element at ``coordinates`` (of the output, innermost last), broadcasting."""
    shape = type_.shape
    own = list(coordinates[len(coordinates) - len(shape) :])
    order = list(range(len(shape)))
    if layout.channels_last:
        order = [0, *range(2, len(shape)), 1]
    terms: list[str] = []
    stride = 1
    for axis in reversed(order):
        if shape[axis] != 1:
            terms.append(f"(i64)({own[axis]}) * {stride}")
        stride *= shape[axis]
    return " + ".join(terms) or "0"


def coordinates_from(flat: str, shape: Sequence[int], names: Sequence[str]) -> list[str]:
    """Statements that split a linear index into coordinates, outermost first."""
    lines = [f"i64 rest = {flat};"]
    for size, name in zip(reversed(shape), reversed(names), strict=True):
        lines.append(f"const int {name} = (int)(rest % {max(size, 1)}); rest /= {max(size, 1)};")
    return lines


def _number(value: Any) -> str:
    v = float(value)
    if v != v:
        return "__int_as_float(0x7fc00000)"
    if v in (float("inf"), float("-inf")):
        return f"({'-' if v < 0 else ''}__int_as_float(0x7f800000))"
    text = f"{v:.9g}"
    return f"{text}f" if any(c in text for c in ".en") else f"{text}.0f"
