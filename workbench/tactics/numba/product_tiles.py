"""Tiles of a matrix product in vector registers: of bytes, and of float32."""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from workbench.tactics.numba.product_shapes import CHAIN, TILES, UNROLLED
from workbench.tactics.numba.tiles import fused, store_sums


def _loop(builder, start, stop, given, body):
    """The vectors that body(turn, vectors) -> (next turn, vectors) leaves, from start to stop.

    start is below stop; given: vectors in rows, at the start.
    """
    entry = builder.block
    inside, done = (builder.append_basic_block(n) for n in ("depth", "stored"))
    builder.branch(inside)
    builder.position_at_end(inside)
    turn = builder.phi(start.type)
    turn.add_incoming(start, entry)
    carried = [[builder.phi(x.type) for x in row] for row in given]
    following, found = body(turn, [list(row) for row in carried])
    turn.add_incoming(following, builder.block)
    for row, before, after in zip(carried, given, found, strict=True):
        for phi, a, b in zip(row, before, after, strict=True):
            phi.add_incoming(a, entry)
            phi.add_incoming(b, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, stop), inside, done)
    builder.position_at_end(done)
    return found


def _tile(rows, vectors, lanes, word, accumulating, chain=0):
    """An intrinsic (a, a_step, b, c, depth, more, ahead, stride): addresses, steps, counts.

    C[i, j] = Σ A[i, k]·B[k, j] for ``rows`` by ``vectors·lanes`` sums, k < UNROLLED times
    ``depth``, which is at least 1; elements are words of 4 bytes. A's rows are a_step bytes apart;
    B and C lie without gaps. The sums stay in registers; with ``more`` they are then added to what
    C holds. Meanwhile the cache lines from ``ahead`` on, ``stride`` apart, begin to be read, one a
    turn: what later tiles need.
    accumulating: (builder, vector type) -> (sums, A's word in each lane, B's words) -> sums.
    chain: so many turns are summed at once, and their sums then; 0: all turns.
    """
    index, byte, number_type = ir.IntType(64), ir.IntType(8), ir.IntType(32)
    vector = ir.VectorType(word, lanes)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    line_bytes = 4 * lanes

    @intrinsic
    def tile(typing, a, a_step, b, c, depth, more, ahead, stride):
        def build(context, builder, signature, arguments):
            left, step, right, result, count, adding, later, apart = arguments
            module = builder.module
            accumulate = accumulating(builder, vector)
            kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(byte), *[number_type] * 3])
            prefetch = cgutils.get_or_insert_function(module, kind, "llvm.prefetch.p0")

            def number(value):
                return ir.Constant(index, value)

            def read(address, typ):
                return builder.load(
                    builder.inttoptr(address, ir.PointerType(typ)), align=1, typ=typ
                )

            starts = [builder.add(left, builder.mul(step, number(i))) for i in range(rows)]
            nothing = [[ir.Constant(vector, None)] * vectors for _ in range(rows)]

            def added(turn, sums):
                """The sums with one more turn."""
                totals = [list(row) for row in sums]
                base = builder.add(
                    right, builder.mul(turn, number(UNROLLED * vectors * line_bytes))
                )
                far = builder.mul(turn, number(4 * UNROLLED))
                where = builder.add(later, builder.mul(turn, apart))
                # To be read, into the second-level cache, as data.
                builder.call(
                    prefetch,
                    [
                        builder.inttoptr(where, ir.PointerType(byte)),
                        *(ir.Constant(number_type, k) for k in (0, 2, 1)),
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
                            ir.Constant(number_type, 0),
                        )
                        undefined = ir.Constant(vector, ir.Undefined)
                        spread = builder.shuffle_vector(one, undefined, zeros)
                        for v in range(vectors):
                            totals[i][v] = accumulate(totals[i][v], spread, line[v])
                return builder.add(turn, number(1)), totals

            def chained(turn, totals):
                """The totals with the sums of one chain."""
                end = builder.add(turn, number(chain))
                end = builder.select(builder.icmp_signed("<", end, count), end, count)
                sums = _loop(builder, turn, end, nothing, added)
                return end, [
                    [builder.fadd(a, b) for a, b in zip(*pair, strict=True)]
                    for pair in zip(totals, sums, strict=True)
                ]

            totals = _loop(builder, number(0), count, nothing, chained if chain else added)
            flat = [t for row in totals for t in row]
            targets = [builder.add(result, number(k * line_bytes)) for k in range(len(flat))]
            store_sums(builder, flat, targets, adding)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 8), build

    return tile


def _bytes_tile(rows, vectors, lanes):
    """Of words of 4 bytes, uint8 by int8. The sums are exact modulo 2**32."""

    def accumulating(builder, vector):
        # LLVM 22 reads bytes; it takes this form, which all versions know, for its own.
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        kind = ir.FunctionType(vector, [vector] * 3)
        dot = builder.module.declare_intrinsic(name, (), kind)
        return lambda total, spread, line: builder.call(dot, [total, spread, line])

    return _tile(rows, vectors, lanes, ir.IntType(32), accumulating)


def _float_tile(rows, vectors, lanes):
    """Of float32, each product and sum rounded once."""
    chain = CHAIN if rows == 1 else 0  # more rows leave no registers for a second set of sums
    return _tile(rows, vectors, lanes, ir.FloatType(), fused(lanes), chain)


BYTES_TILE = {t.name: _bytes_tile(t.rows, t.vectors, t.lanes) for t in TILES}
FLOAT_TILE = {t.name: _float_tile(t.rows, t.vectors, t.lanes) for t in TILES}
