"""Winograd's transforms of one tile, on vectors of channels: what its kernel is made of.

Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, for an output tile of m by m and a 3 by 3 kernel.
Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.
"""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from workbench.tactics.numba.winograd_transforms import F2, LANES


def _combined(builder, vector, factors, values):
    """Σ factor·value, a multiplication only where the factor is not 1 or -1."""
    total = None
    for factor, value in zip(factors, values, strict=True):
        if not factor:
            continue
        if abs(factor) != 1:
            value = builder.fmul(ir.Constant(vector, [float(abs(factor))] * LANES), value)
        if total is None:
            total = value if factor > 0 else builder.fsub(ir.Constant(vector, [0.0] * LANES), value)
        else:
            total = builder.fadd(total, value) if factor > 0 else builder.fsub(total, value)
    return total


def _transform(matrix):
    """An intrinsic (x, x_row, x_column, x_next, y, y_step, count): addresses, steps in bytes.

    y = matrix·x·matrixᵀ for each of ``count`` vectors of LANES float32. x's elements (i, j) lie
    i·x_row + j·x_column on, those of the next vector x_next; y's vectors lie without gaps, its
    elements follow one another, row by row, y_step apart.
    """
    side, reads = len(matrix), len(matrix[0])
    index = ir.IntType(64)
    vector = ir.VectorType(ir.FloatType(), LANES)

    @intrinsic
    def transform(typing, x, x_row, x_column, x_next, y, y_step, count):
        def build(context, builder, signature, arguments):
            x, x_row, x_column, x_next, y, y_step, count = arguments

            def number(value):
                return ir.Constant(index, value)

            def at(address):
                return builder.inttoptr(address, ir.PointerType(vector))

            entry = builder.block
            loop = builder.append_basic_block("vectors")
            done = builder.append_basic_block("transformed")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(index)
            k.add_incoming(number(0), entry)
            far = builder.mul(k, number(4 * LANES))
            first = builder.add(x, builder.mul(k, x_next))
            columns = []
            for j in range(reads):
                line = builder.add(first, builder.mul(x_column, number(j)))
                column = []
                for i in range(reads):
                    place = builder.add(line, builder.mul(x_row, number(i)))
                    column.append(builder.load(at(place), align=4, typ=vector))
                columns.append([_combined(builder, vector, row, column) for row in matrix])
            for i in range(side):
                across = [columns[j][i] for j in range(reads)]
                for j in range(side):
                    value = _combined(builder, vector, matrix[j], across)
                    place = builder.add(
                        builder.add(y, far), builder.mul(y_step, number(i * side + j))
                    )
                    builder.store(value, at(place), align=4)
            following = builder.add(k, number(1))
            k.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 7), build

    return transform


@intrinsic
def move(typing, x, x_next, y, y_next, count):
    """Copy ``count`` vectors of LANES float32: from address x, x_next bytes apart, to y, y_next."""

    def build(context, builder, signature, arguments):
        x, x_next, y, y_next, count = arguments
        vector = ir.VectorType(ir.FloatType(), LANES)

        def place(address, step, k):
            address = builder.add(address, builder.mul(step, k))
            return builder.inttoptr(address, ir.PointerType(vector))

        with cgutils.for_range(builder, count) as loop:
            value = builder.load(place(x, x_next, loop.index), align=4, typ=vector)
            builder.store(value, place(y, y_next, loop.index), align=4)
        return context.get_dummy_value()

    return types.none(*[types.int64] * 5), build


input_f2 = _transform(F2.source)
output_f2 = _transform(F2.result)
