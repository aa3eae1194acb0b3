"""Elements of at most eight bits: how FP8, FP4, E8M0 and integers of 2 and 4 bits are stored.

Each takes a byte in memory. Loading gives a float or an integer; storing rounds to nearest, ties to
even. What saturates is the operator's affair: its rule clips before.
"""

from __future__ import annotations

from collections.abc import Iterable

from workbench.datatypes import DataType

SMALL: dict[DataType, str] = {
    DataType.FP8: "u8",
    DataType.FP8E5M2: "u8",
    DataType.FP8E4M3FNUZ: "u8",
    DataType.FP8E5M2FNUZ: "u8",
    DataType.FP4: "u8",
    DataType.E8M0: "u8",
    DataType.INT4: "u8",
    DataType.UINT4: "u8",
    DataType.INT2: "u8",
    DataType.UINT2: "u8",
}
"""The C type of a stored element."""

FP8_SINCE = 89
"""Compute capability, times ten, that has the instructions for FP8 and FP8E5M2."""

_FP8 = r"""
#ifndef HOST_SHIM
INLINE float half_bits(u16 h) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h)); return f; }
#define FP8(NAME, KIND, INFINITE) \
INLINE float load_##NAME(u8 b) { unsigned r; u16 p = b; \
  asm("cvt.rn.f16x2." KIND "x2 %0, %1;" : "=r"(r) : "h"(p)); return half_bits((u16)r); } \
INLINE u8 store_##NAME(float v) { u16 p; \
  if (v == v && v - v != 0) return v < 0 ? 128 + INFINITE : INFINITE; \
  asm("cvt.rn.satfinite." KIND "x2.f32 %0, %1, %2;" : "=h"(p) : "f"(0.0f), "f"(v)); return (u8)p; }
FP8(FP8, "e4m3", 127)
FP8(FP8E5M2, "e5m2", 124)
#endif
"""
"""Infinity is NaN in E4M3, which has none."""

_SOFTWARE = r"""
template <int M, int BIAS, int BITS> struct Minifloat {
  static const int MASK = (1 << (BITS - 1)) - 1;
  static INLINE float load(u8 b) {
    const int e = (b & MASK) >> M, m = b & ((1 << M) - 1);
    const unsigned normal = ((unsigned)(e - BIAS + 127) << 23) | ((unsigned)m << (23 - M));
    const float v = e ? __uint_as_float(normal)
                      : m * __uint_as_float((unsigned)(128 - BIAS - M) << 23);
    return b >> (BITS - 1) & 1 ? -v : v; }
  static INLINE int code(float a) {  // of a >= 0: beyond MASK where it is too large
    if (a < __uint_as_float((unsigned)(128 - BIAS) << 23))
      return (int)rintf(a * __uint_as_float((unsigned)(126 + BIAS + M) << 23));
    unsigned u = __float_as_uint(a);
    u += ((1u << (22 - M)) - 1) + ((u >> (23 - M)) & 1);
    return (int)(u >> (23 - M)) - ((127 - BIAS) << M); }
};
#define FNUZ(NAME, M, BIAS) \
INLINE float load_##NAME(u8 b) { \
  return b == 128 ? __uint_as_float(0x7fc00000u) : Minifloat<M, BIAS, 8>::load(b); } \
INLINE u8 store_##NAME(float v) { \
  if (v != v) return 128; \
  const int c = Minifloat<M, BIAS, 8>::code(v < 0 ? -v : v); \
  return c > 127 ? 128 : v < 0 && c ? 128 + c : c; }
FNUZ(FP8E4M3FNUZ, 3, 8)
FNUZ(FP8E5M2FNUZ, 2, 16)
INLINE float load_FP4(u8 b) { return Minifloat<1, 1, 4>::load(b); }
INLINE u8 store_FP4(float v) {
  if (v != v) return 8;
  const int c = Minifloat<1, 1, 4>::code(v < 0 ? -v : v);
  return (__float_as_uint(v) >> 31) * 8 + (c > 7 ? 7 : c); }
INLINE float load_E8M0(u8 b) {
  return __uint_as_float(b == 255 ? 0x7fc00000u : b ? (unsigned)b << 23 : 0x00400000u); }
INLINE u8 store_E8M0(float v) {
  return v == v && v - v == 0 ? (u8)(__float_as_uint(v) >> 23) : (u8)255; }
INLINE i64 load_INT4(u8 b) { return (signed char)(b << 4) >> 4; }
INLINE i64 load_INT2(u8 b) { return (signed char)(b << 6) >> 6; }
INLINE i64 load_UINT4(u8 b) { return b & 15; }
INLINE i64 load_UINT2(u8 b) { return b & 3; }
INLINE u8 store_INT4(i64 v) { return v & 15; }
INLINE u8 store_UINT4(i64 v) { return v & 15; }
INLINE u8 store_INT2(i64 v) { return v & 3; }
INLINE u8 store_UINT2(i64 v) { return v & 3; }
INLINE float power_of_two(float v, int up) {  // up: 0 never, 1 whatever is more, 2 from halfway on
  if (v == 0 || v - v != 0) return v;
  int e; const float f = frexpf(v < 0 ? -v : v, &e);
  return ldexpf(1.0f, e - 1 + (up == 1 ? f > 0.5f : up == 2 ? f >= 0.75f : 0)); }
"""

_HARDWARE = frozenset({DataType.FP8, DataType.FP8E5M2})


def prelude(kinds: Iterable[DataType]) -> tuple[str, int]:
    """Conversions that elements of these types need, and the least compute capability."""
    used = set(kinds) & SMALL.keys()
    text = _FP8 if used & _HARDWARE else ""
    return text + (_SOFTWARE if used - _HARDWARE else ""), FP8_SINCE if used & _HARDWARE else 0


_BEYOND = {
    DataType.FP8: "{x} > 464.0f || {x} < -464.0f",
    DataType.FP8E5M2: "fabsf({x}) >= 61440.0f",
}
"""What is nearer to the number after the largest one than to that, or as near with it odd."""
_ROUNDS = {"down": 0, "up": 1, "nearest": 2}


def narrowed(dtype: DataType, text: str, *, saturate: bool, rounds: str = "nearest") -> str:
    """A float as a small one's range wants it: clipped, or infinite beyond it.

    rounds: of E8M0, ``up``, ``down`` or ``nearest``. Source: ONNX Cast-28, QuantizeLinear-25.
    """
    x = f"(float)({text})"
    low, high = f"{dtype.info.low:.9g}f", f"{dtype.info.high:.9g}f"
    low, high = (v if "." in v or "e" in v else v.replace("f", ".0f") for v in (low, high))
    if dtype is DataType.E8M0:
        x = f"power_of_two({x}, {_ROUNDS[rounds]})"
        if not saturate:
            nan = "__uint_as_float(0x7fc00000u)"
            return f"({x} < {low} || {x} > {high} ? {nan} : {x})"
    if saturate or dtype is DataType.FP4:
        return f"min_nan(max_nan({x}, {low}), {high})"
    if dtype in _BEYOND:
        infinite = "__uint_as_float(0x7f800000u)"
        return f"({_BEYOND[dtype].format(x=x)} ? {x} * {infinite} : {x})"
    return x
