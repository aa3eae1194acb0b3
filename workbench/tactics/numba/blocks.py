"""Square blocks transposed in vector registers, for any element size."""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _transposer(bits, size):
    """An intrinsic (source, source_step, target, target_step): addresses and steps in bytes.

    Reads ``size`` rows of ``size`` elements, writes them as columns. Eklundh's method: log2(size)
    rounds, each exchanging off-diagonal blocks of half the size by two shuffles a pair of rows.
    """
    element = ir.IntType(bits)
    row = ir.VectorType(element, size)
    pointer = ir.PointerType(row)
    lane = ir.IntType(32)

    def mask(indices):
        return ir.Constant(ir.VectorType(lane, size), indices)

    @intrinsic
    def transpose(typing, source, source_step, target, target_step):
        def build(context, builder, signature, arguments):
            read, read_step, write, write_step = arguments

            def place(base, step, k):
                address = builder.add(base, builder.mul(step, ir.Constant(step.type, k)))
                return builder.inttoptr(address, pointer)

            rows = [
                builder.load(place(read, read_step, k), align=bits // 8, typ=row)
                for k in range(size)
            ]
            half = size // 2
            while half:
                upper = mask([k if not k & half else size + k - half for k in range(size)])
                lower = mask([k + half if not k & half else size + k for k in range(size)])
                for i in range(size):
                    if not i & half:
                        a, b = rows[i], rows[i + half]
                        rows[i] = builder.shuffle_vector(a, b, upper)
                        rows[i + half] = builder.shuffle_vector(a, b, lower)
                half //= 2
            for k in range(size):
                builder.store(rows[k], place(write, write_step, k), align=bits // 8)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 4), build

    return transpose


transpose_u8 = _transposer(8, 16)
transpose_u16 = _transposer(16, 8)
transpose_u32 = _transposer(32, 8)
transpose_u64 = _transposer(64, 4)
