"""Small products of 8-bit integers in vector registers: what INT8 attention is tiled into."""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _tile(rows, vectors, lanes, *, signed_rows):
    """An intrinsic (a, a_step, b, b_step, c, c_step, depth): addresses and steps in bytes.

    C[i, j] = Σ A[i, k, r]·B[k, j, r] for ``rows`` by ``vectors·lanes`` int32, r < 4 and k < depth,
    which is at least 1: bytes lie in groups of 4. One factor is int8 and the other uint8, as
    vpdpbusd has it: A is the signed one with ``signed_rows``. The sums are exact modulo 2**32.
    """
    integer, index = ir.IntType(32), ir.IntType(64)
    vector = ir.VectorType(integer, lanes)
    zeros = ir.Constant(ir.VectorType(integer, lanes), [0] * lanes)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"

    @intrinsic
    def tile(typing, a, a_step, b, b_step, c, c_step, depth):
        def build(context, builder, signature, arguments):
            left, left_step, right, right_step, result, result_step, count = arguments
            # LLVM 22 reads bytes; it takes this form, which all versions know, for its own.
            dot = builder.module.declare_intrinsic(name, (), ir.FunctionType(vector, [vector] * 3))

            def number(value):
                return ir.Constant(index, value)

            def place(base, step, k, offset=0):
                address = builder.add(base, builder.mul(step, number(k)))
                return builder.add(address, number(offset))

            starts = [place(left, left_step, i) for i in range(rows)]
            entry = builder.block
            loop = builder.append_basic_block("depth")
            done = builder.append_basic_block("stored")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(index)
            k.add_incoming(number(0), entry)
            zero = ir.Constant(vector, [0] * lanes)
            sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(rows)]
            for row in sums:
                for s in row:
                    s.add_incoming(zero, entry)
            base = builder.add(right, builder.mul(right_step, k))
            line = [
                builder.load(
                    builder.inttoptr(
                        builder.add(base, number(4 * lanes * v)), ir.PointerType(vector)
                    ),
                    align=4,
                    typ=vector,
                )
                for v in range(vectors)
            ]
            far = builder.mul(k, number(4))
            totals = []
            for i in range(rows):
                address = builder.inttoptr(builder.add(starts[i], far), ir.PointerType(integer))
                one = builder.insert_element(
                    ir.Constant(vector, ir.Undefined),
                    builder.load(address, align=1, typ=integer),
                    ir.Constant(integer, 0),
                )
                spread = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)
                for v in range(vectors):
                    factors = [line[v], spread] if signed_rows else [spread, line[v]]
                    total = builder.call(dot, [sums[i][v], *factors])
                    sums[i][v].add_incoming(total, loop)
                    totals.append(total)
            following = builder.add(k, number(1))
            k.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
            builder.position_at_end(done)
            for i in range(rows):
                for v in range(vectors):
                    address = place(result, result_step, i, 4 * lanes * v)
                    target = builder.inttoptr(address, ir.PointerType(vector))
                    builder.store(totals[i * vectors + v], target, align=4)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 7), build

    return tile


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
