"""Tiles of an 8-bit matrix product in vector registers, and how many cycles one takes."""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from workbench.tactics.numba.product_shapes import TILES, UNROLLED


def _tile(rows, vectors, lanes):
    """An intrinsic (a, a_step, b, c, depth, ahead, stride): addresses, steps in bytes, a count.

    C[i, j] = Σ A[i, k, r]·B[k, j, r] for ``rows`` by ``vectors·lanes`` int32, r < 4, k < UNROLLED
    times ``depth``, which is at least 1. A is uint8, its rows a_step apart; B is int8; B and C lie
    without gaps. The sums stay in registers and are exact modulo 2**32. Meanwhile the cache lines
    from ``ahead`` on, ``stride`` apart, begin to be read, one a turn: what later tiles need.
    """
    index, byte = ir.IntType(64), ir.IntType(8)
    word = ir.IntType(32)
    vector = ir.VectorType(word, lanes)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    line_bytes = 4 * lanes

    @intrinsic
    def tile(typing, a, a_step, b, c, depth, ahead, stride):
        def build(context, builder, signature, arguments):
            left, step, right, result, count, later, apart = arguments
            module = builder.module
            # LLVM 22 reads bytes; it takes this form, which all versions know, for its own.
            dot = module.declare_intrinsic(
                f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", (), ir.FunctionType(vector, [vector] * 3)
            )
            kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(byte), word, word, word])
            prefetch = cgutils.get_or_insert_function(module, kind, "llvm.prefetch.p0")

            def number(value):
                return ir.Constant(index, value)

            def read(address, typ):
                return builder.load(
                    builder.inttoptr(address, ir.PointerType(typ)), align=1, typ=typ
                )

            starts = [builder.add(left, builder.mul(step, number(i))) for i in range(rows)]
            entry = builder.block
            loop, done = (builder.append_basic_block(n) for n in ("depth", "stored"))
            builder.branch(loop)
            builder.position_at_end(loop)
            turn = builder.phi(index)
            turn.add_incoming(number(0), entry)
            sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(rows)]
            totals = [list(row) for row in sums]
            base = builder.add(right, builder.mul(turn, number(UNROLLED * vectors * line_bytes)))
            far = builder.mul(turn, number(4 * UNROLLED))
            where = builder.add(later, builder.mul(turn, apart))
            # To be read, into the second-level cache, as data.
            builder.call(
                prefetch,
                [
                    builder.inttoptr(where, ir.PointerType(byte)),
                    *(ir.Constant(word, k) for k in (0, 2, 1)),
                ],
            )
            for u in range(UNROLLED):
                line = [
                    read(builder.add(base, number((u * vectors + v) * line_bytes)), vector)
                    for v in range(vectors)
                ]
                for i in range(rows):
                    address = builder.add(builder.add(starts[i], far), number(4 * u))
                    one = builder.insert_element(
                        ir.Constant(vector, ir.Undefined),
                        read(address, word),
                        ir.Constant(word, 0),
                    )
                    spread = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)
                    for v in range(vectors):
                        totals[i][v] = builder.call(dot, [totals[i][v], spread, line[v]])
            for row, after in zip(sums, totals, strict=True):
                for s, total in zip(row, after, strict=True):
                    s.add_incoming(ir.Constant(vector, None), entry)
                    s.add_incoming(total, loop)
            following = builder.add(turn, number(1))
            turn.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
            builder.position_at_end(done)
            for k, total in enumerate(t for row in totals for t in row):
                target = builder.add(result, number(k * line_bytes))
                builder.store(total, builder.inttoptr(target, ir.PointerType(vector)), align=4)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 7), build

    return tile


TILE = {t.name: _tile(t.rows, t.vectors, t.lanes) for t in TILES}
