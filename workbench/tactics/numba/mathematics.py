"""Scalar functions that generated kernels inline: written so that LLVM vectorises them.

Both sides of a choice are computed before it: a call inside a branch would stay a branch.

Errors are the largest found over all finite float32 inputs, in units of 2**-24 times the result;
the tests measure them again. NaN goes in and comes out.
"""

# pyright: basic, reportCallIssue=false
# numba's decorators have no types; an intrinsic takes one argument less than its definition.

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

f32 = np.float32
i32 = np.int32

_inline = njit(fastmath={"contract"}, error_model="numpy", nogil=True, forceinline=True)
_reduce = njit(fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy", nogil=True)


# -- bits ---------------------------------------------------------------------------------
@intrinsic
def bits_of(typing, value):
    """The bits of a float32 as int32."""

    def build(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), build


@intrinsic
def float_of(typing, value):
    """The float32 of these bits."""

    def build(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), build


@intrinsic
def half_to_float(typing, value):
    """The float32 of an IEEE half's bits; one vcvtph2ps an 8 or 16 elements."""

    def build(context, builder, signature, arguments):
        half = builder.bitcast(arguments[0], ir.HalfType())
        return builder.fpext(half, ir.FloatType())

    return types.float32(types.uint16), build


@intrinsic
def float_to_half(typing, value):
    """An IEEE half's bits, rounded to nearest, ties to even."""

    def build(context, builder, signature, arguments):
        half = builder.fptrunc(arguments[0], ir.HalfType())
        return builder.bitcast(half, ir.IntType(16))

    return types.uint16(types.float32), build


@_inline
def bf16_to_float(bits):
    """The float32 of a bfloat16's bits."""
    return float_of(i32(np.uint32(np.uint32(bits) << np.uint32(16))))


@_inline
def float_to_bf16(value):
    """A bfloat16's bits, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.uint32(bits_of(value))
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + odd)
    nan = np.uint32(bits | np.uint32(0x400000))
    chosen = nan if value != value else rounded
    return np.uint16(np.uint32(chosen) >> np.uint32(16))


# -- exponential family -------------------------------------------------------------------
@_inline
def exp_f32(x):
    """Exp of float32; error 1.3 units, subnormal results included.

    Cody-Waite reduction and a degree 6 polynomial (coefficients: N. Juffa's public expf). The
    magic addend rounds to an integer without a conversion, which NaN would make undefined.
    """
    x = f32(-104.0) if x < f32(-104.0) else x
    x = f32(89.0) if x > f32(89.0) else x
    shifted = x * f32(1.44269504) + f32(12582912.0)
    n = i32(bits_of(shifted) - i32(0x4B400000))
    k = shifted - f32(12582912.0)
    r = x - k * f32(0.693145752)
    r = r - k * f32(1.42860677e-6)
    p = f32(1.37805939e-3)
    p = p * r + f32(8.37312452e-3)
    p = p * r + f32(4.16695364e-2)
    p = p * r + f32(1.66664720e-1)
    p = p * r + f32(4.99999851e-1)
    p = p * r + f32(1.0)
    p = p * r + f32(1.0)
    half = i32(n >> i32(1))
    low = float_of(i32(i32(half + i32(127)) << i32(23)))
    high = float_of(i32(i32(i32(n - half) + i32(127)) << i32(23)))
    return p * low * high


@_inline
def sigmoid_f32(x):
    """1 / (1 + exp(-x)); error 4 units."""
    return f32(1.0) / (f32(1.0) + exp_f32(-x))


@_inline
def tanh_f32(x):
    """Tanh of float32; error 3 units. Odd polynomial below 0.625 (Cephes tanhf), else by exp."""
    t = f32(abs(x))
    z = x * x
    p = f32(-5.70498872745e-3)
    p = p * z + f32(2.06390887954e-2)
    p = p * z + f32(-5.37397155531e-2)
    p = p * z + f32(1.33314422036e-1)
    p = p * z + f32(-3.33332819422e-1)
    near = p * z * x + x
    far = f32(1.0) - f32(2.0) / (exp_f32(t + t) + f32(1.0))
    far = -far if x < f32(0.0) else far
    return near if t < f32(0.625) else far


@_inline
def _erfc_tail(t):
    """log(erfc(t)) for t in 0.92 .. 10 (N. Juffa's public erff)."""
    s = t * t
    r = f32(-1.72853470e-5) * t + f32(3.83197126e-4)
    u = f32(-3.88396438e-3) * t + f32(2.42546219e-2)
    r = r * s + u
    r = r * t + f32(-1.06777877e-1)
    r = r * t + f32(-6.34846687e-1)
    r = r * t + f32(-1.28717512e-1)
    return r * t - t


@_inline
def _erf_core(x):
    """Erf of float32 below 0.93 (N. Juffa's public erff)."""
    s = x * x
    r = f32(-5.96761703e-4)
    r = r * s + f32(4.99119423e-3)
    r = r * s + f32(-2.67681349e-2)
    r = r * s + f32(1.12819925e-1)
    r = r * s + f32(-3.76125336e-1)
    r = r * s + f32(1.28379166e-1)
    return r * x + x


@_inline
def erf_f32(x):
    """Erf of float32; error 3 units."""
    t = f32(abs(x))
    clamped = f32(10.0) if t > f32(10.0) else t
    far = f32(1.0) - exp_f32(_erfc_tail(clamped))
    far = -far if x < f32(0.0) else far
    near = _erf_core(x)
    return far if t > f32(0.927734375) else near


@_inline
def gelu_f32(x):
    """x/2 * (1 + erf(x / sqrt 2)); error 2**-24·|x|.

    Far from 0 through erfc, where 1 + erf would cancel.
    """
    v = x * f32(0.70710678118654752)
    t = f32(abs(v))
    clamped = f32(10.0) if t > f32(10.0) else t
    tail = exp_f32(_erfc_tail(clamped))
    far = tail if v < f32(0.0) else f32(2.0) - tail
    near = f32(1.0) + _erf_core(v)
    total = far if t > f32(0.927734375) else near
    return f32(0.5) * x * total


@_inline
def softplus_f32(x):
    """log(1 + exp(x)), without overflow."""
    t = f32(abs(x))
    high = x if x > f32(0.0) else f32(0.0)
    return high + f32(math.log1p(math.exp(-np.float64(t))))


# -- float64, by libm ----------------------------------------------------------------------
@_inline
def exp_f64(x):
    """Exp of float64."""
    return math.exp(x)


@_inline
def tanh_f64(x):
    """Tanh of float64."""
    return math.tanh(x)


@_inline
def erf_f64(x):
    """Erf of float64."""
    return math.erf(x)


@_inline
def sigmoid_f64(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + math.exp(-x))


@_inline
def gelu_f64(x):
    """x/2 * erfc(-x / sqrt 2)."""
    return 0.5 * x * math.erfc(-x * math.sqrt(0.5))


@_inline
def softplus_f64(x):
    """log(1 + exp(x)), without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


# -- integers -----------------------------------------------------------------------------
@_inline
def divide_toward_zero(a, b):
    """Integer division as ONNX has it; 0 by a divisor of 0."""
    q = a // b
    r = a - q * b
    return q + 1 if (r != 0 and ((a < 0) != (b < 0))) else q


# -- reductions over a row ----------------------------------------------------------------
@_reduce
def row_sum(row, n):
    """Sum of the first n elements of a float32 row."""
    total = f32(0.0)
    for j in range(n):
        total += row[j]
    return total


@_reduce
def row_centered_square_sum(row, n, center):
    """Sum of (row[j] - center)**2."""
    total = f32(0.0)
    for j in range(n):
        d = row[j] - center
        total += d * d
    return total


@_reduce
def row_exp_sum(row, n, shift):
    """Sum of exp(row[j] - shift)."""
    total = f32(0.0)
    for j in range(n):
        total += exp_f32(row[j] - shift)
    return total


@_inline
def row_max(row, n):
    """Largest of the first n elements, n >= 1; NaN counts as largest or smallest by its sign.

    Compares bits as integers in the floats' order, which LLVM vectorises without assuming that
    there is no NaN.
    """
    top = i32(-2147483648)
    for j in range(n):
        b = bits_of(row[j])
        key = i32(b ^ i32(i32(b >> i32(31)) & i32(0x7FFFFFFF)))
        top = key if key > top else top
    return float_of(i32(top ^ i32(i32(top >> i32(31)) & i32(0x7FFFFFFF))))
