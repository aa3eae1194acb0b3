"""Small products of 8-bit integers in vector registers: what INT8 attention is tiled into."""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from workbench.tactics.numba.tiles import register_tile


def _tile(rows, vectors, lanes, *, signed_rows):
    """An intrinsic (a, a_step, b, b_step, c, c_step, depth): addresses and steps in bytes.

    C[i, j] = Σ A[i, k, r]·B[k, j, r] for ``rows`` by ``vectors·lanes`` int32, r < 4 and k < depth,
    which is at least 1: bytes lie in groups of 4. One factor is int8 and the other uint8, as
    vpdpbusd has it: A is the signed one with ``signed_rows``. The sums are exact modulo 2**32.
    """
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"

    def accumulating(builder, vector):
        # LLVM 22 reads bytes; it takes this form, which all versions know, for its own.
        dot = builder.module.declare_intrinsic(name, (), ir.FunctionType(vector, [vector] * 3))

        def accumulate(total, spread, line):
            factors = [line, spread] if signed_rows else [spread, line]
            return builder.call(dot, [total, *factors])

        return accumulate

    return register_tile(rows, vectors, lanes, ir.IntType(32), 1, accumulating)


dot_12x32_signed_rows = _tile(12, 2, 16, signed_rows=True)
dot_12x32_signed_columns = _tile(12, 2, 16, signed_rows=False)
dot_6x16_signed_rows = _tile(6, 2, 8, signed_rows=True)
dot_6x16_signed_columns = _tile(6, 2, 8, signed_rows=False)


@intrinsic
def prefetch(typing, address):
    """Begins to read the cache line of an address, which need not exist."""

    def build(context, builder, signature, arguments):
        pointer, number = ir.PointerType(ir.IntType(8)), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        where = builder.inttoptr(arguments[0], pointer)
        # To be read, into all caches, as data.
        builder.call(function, [where, *(ir.Constant(number, k) for k in (0, 3, 1))])
        return context.get_dummy_value()

    return types.none(types.int64), build
