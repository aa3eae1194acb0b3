"""Rows of float32 in whole vector registers: the softmax of INT8 attention.

LLVM by itself uses half a register on processors that once slowed down for whole ones.
"""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LOWEST = -80.0
"""Beyond it exp ends in 2e-35, which stands for no probability: subnormal numbers are slow."""
MAGIC = 12582912.0
"""1.5·2**23: a smaller number added to it is rounded to an integer, in the lowest bits."""
POLYNOMIAL = (
    *(1.37805939e-3, 8.37312452e-3, 4.16695364e-2),
    *(1.66664720e-1, 4.99999851e-1, 1.0, 1.0),
)
"""exp(r) for |r| <= log(2) / 2, highest power first; see ``mathematics.exp_f32``."""


class Vectors:
    """Writes a loop over the vectors of a row. lanes: elements in one."""

    def __init__(self, builder, lanes):
        self.builder, self.lanes = builder, lanes
        self.real = ir.VectorType(ir.FloatType(), lanes)
        self.integer = ir.VectorType(ir.IntType(32), lanes)
        self.index = ir.IntType(64)
        kind = ir.FunctionType(self.real, [self.real] * 3)
        self.fma = builder.module.declare_intrinsic(f"llvm.fma.v{lanes}f32", (), kind)

    def number(self, value):
        return ir.Constant(self.real, [value] * self.lanes)

    def bits(self, value):
        return ir.Constant(self.integer, [value] * self.lanes)

    def spread(self, scalar):
        one = self.builder.insert_element(
            ir.Constant(self.real, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
        )
        return self.builder.shuffle_vector(one, one, self.bits(0))

    def multiplied(self, a, b, c):
        """a·b + c, rounded once."""
        return self.builder.call(self.fma, [a, b, c])

    def load(self, address):
        pointer = self.builder.inttoptr(address, ir.PointerType(self.real))
        return self.builder.load(pointer, align=4, typ=self.real)

    def store(self, value, address):
        pointer = self.builder.inttoptr(address, ir.PointerType(value.type))
        self.builder.store(value, pointer, align=1)

    def loop(self, count, total, body):
        """body(k, total) -> total for k < count, which is at least 1; the last total."""
        builder, entry = self.builder, self.builder.block
        inside, done = builder.append_basic_block("row"), builder.append_basic_block("row.end")
        builder.branch(inside)
        builder.position_at_end(inside)
        k, carried = builder.phi(self.index), builder.phi(total.type)
        k.add_incoming(ir.Constant(self.index, 0), entry)
        carried.add_incoming(total, entry)
        result = body(k, carried)
        following = builder.add(k, ir.Constant(self.index, 1))
        k.add_incoming(following, builder.block)
        carried.add_incoming(result, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), inside, done)
        builder.position_at_end(done)
        return result

    def sum(self, value):
        """The sum of a vector's elements."""
        half = self.lanes // 2
        while half:
            order = [*range(half, 2 * half), *[0] * (self.lanes - half)]
            mask = ir.Constant(self.integer, order)
            value = self.builder.fadd(value, self.builder.shuffle_vector(value, value, mask))
            half //= 2
        return self.builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    def greater(self, a, b):
        """The greater of integers."""
        return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)

    def greatest(self, value):
        """The greatest of a vector's integers."""
        half = self.lanes // 2
        while half:
            order = [*range(half, 2 * half), *[0] * (self.lanes - half)]
            mask = ir.Constant(self.integer, order)
            value = self.greater(value, self.builder.shuffle_vector(value, value, mask))
            half //= 2
        return self.builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    def exp(self, x):
        """The exponential of x <= 0. Error as of ``mathematics.exp_f32``."""
        builder = self.builder
        low = self.number(LOWEST)
        x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
        shifted = self.multiplied(x, self.number(1.44269504), self.number(MAGIC))
        k = builder.fsub(shifted, self.number(MAGIC))
        r = self.multiplied(k, self.number(-0.693145752), x)
        r = self.multiplied(k, self.number(-1.42860677e-6), r)
        p = self.number(POLYNOMIAL[0])
        for c in POLYNOMIAL[1:]:
            p = self.multiplied(p, r, self.number(c))
        # The integer's lowest bits, moved to the exponent: what is above them falls out.
        power = builder.shl(builder.bitcast(shifted, self.integer), self.bits(23))
        scaled = builder.add(builder.bitcast(p, self.integer), power)
        return builder.bitcast(scaled, self.real)


def _exp_row(lanes):
    """An intrinsic (address, vectors, shift): makes each element exp(x - shift), gives their sum.

    No element is greater than shift.
    """

    @intrinsic
    def exp_row(typing, address, vectors, shift):
        def build(context, builder, signature, arguments):
            start, count, top = arguments
            v = Vectors(builder, lanes)
            less = v.spread(top)
            step = ir.Constant(v.index, 4 * lanes)

            def body(k, total):
                place = builder.add(start, builder.mul(k, step))
                x = builder.fsub(v.load(place), less)
                y = builder.select(builder.fcmp_unordered("uno", x, x), x, v.exp(x))
                v.store(y, place)
                return builder.fadd(total, y)

            return v.sum(v.loop(count, v.number(0.0), body))

        return types.float32(types.int64, types.int64, types.float32), build

    return exp_row


def _integers_top(lanes):
    """An intrinsic (address, vectors): the greatest of a row of int32."""

    @intrinsic
    def integers_top(typing, address, vectors):
        def build(context, builder, signature, arguments):
            start, count = arguments
            v = Vectors(builder, lanes)
            step = ir.Constant(v.index, 4 * lanes)

            def body(k, top):
                x = v.load(builder.add(start, builder.mul(k, step)))
                return v.greater(top, builder.bitcast(x, v.integer))

            return v.greatest(v.loop(count, v.bits(-(1 << 31)), body))

        return types.int32(types.int64, types.int64), build

    return integers_top


def _exp_integers(lanes):
    """An intrinsic (address, vectors, top, factor): exp((x - top)·factor) of each int32; their sum.

    The results are float32, in the integers' place. No integer is greater than top, nor more than
    2**31 - 1 below it; the factor is positive.
    """

    @intrinsic
    def exp_integers(typing, address, vectors, top, factor):
        def build(context, builder, signature, arguments):
            start, count, top, factor = arguments
            v = Vectors(builder, lanes)
            less = builder.bitcast(v.spread(builder.bitcast(top, ir.FloatType())), v.integer)
            factors, step = v.spread(factor), ir.Constant(v.index, 4 * lanes)

            def body(k, total):
                place = builder.add(start, builder.mul(k, step))
                below = builder.sub(builder.bitcast(v.load(place), v.integer), less)
                y = v.exp(builder.fmul(builder.sitofp(below, v.real), factors))
                v.store(y, place)
                return builder.fadd(total, y)

            return v.sum(v.loop(count, v.number(0.0), body))

        return types.float32(types.int64, types.int64, types.int32, types.float32), build

    return exp_integers


def _round_row(lanes):
    """An intrinsic (address, target, vectors, factor, high): rounds factor·x to bytes at target.

    x is not negative; what is above high becomes high, NaN becomes 0.
    """

    @intrinsic
    def round_row(typing, address, target, vectors, factor, high):
        def build(context, builder, signature, arguments):
            start, end, count, scale, limit = arguments
            v = Vectors(builder, lanes)
            factors, limits = v.spread(scale), v.spread(limit)
            step, small = ir.Constant(v.index, 4 * lanes), ir.Constant(v.index, lanes)

            def body(k, total):
                y = builder.fmul(v.load(builder.add(start, builder.mul(k, step))), factors)
                y = builder.select(builder.fcmp_ordered(">", y, limits), limits, y)
                y = builder.select(builder.fcmp_ordered("ord", y, y), y, v.number(0.0))
                shifted = builder.bitcast(builder.fadd(y, v.number(MAGIC)), v.integer)
                found = builder.trunc(shifted, ir.VectorType(ir.IntType(8), lanes))
                v.store(found, builder.add(end, builder.mul(k, small)))
                return total

            v.loop(count, ir.Constant(v.index, 0), body)
            return context.get_dummy_value()

        kinds = (types.int64, types.int64, types.int64, types.float32, types.float32)
        return types.none(*kinds), build

    return round_row


exp_row_16, exp_row_8 = _exp_row(16), _exp_row(8)
integers_top_16, integers_top_8 = _integers_top(16), _integers_top(8)
exp_integers_16, exp_integers_8 = _exp_integers(16), _exp_integers(8)
round_row_16, round_row_8 = _round_row(16), _round_row(8)
