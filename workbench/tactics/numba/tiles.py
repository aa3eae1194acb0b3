"""Small matrix products in vector registers: what attention's two products are tiled into."""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def register_tile(rows, vectors, lanes, element, align, accumulating):
    """An intrinsic (a, a_step, b, b_step, c, c_step, depth, more): addresses, steps in bytes.

    C[i, j] = Σ A[i, k]·B[k, j] for ``rows`` by ``vectors·lanes`` elements of 4 bytes and k < depth,
    which is at least 1. A's rows and B's are a_step and b_step apart, elements within a row side by
    side. The sums stay in registers; each runs over k in order; with ``more`` they are then added
    to what C holds. align: of A's elements, in bytes.
    accumulating: (builder, vector type) -> (sums, A's element in each lane, B's elements) -> sums.
    """
    index = ir.IntType(64)
    vector = ir.VectorType(element, lanes)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)

    @intrinsic
    def tile(typing, a, a_step, b, b_step, c, c_step, depth, more):
        def build(context, builder, signature, arguments):
            left, left_step, right, right_step, result, result_step, count, adding = arguments
            accumulate = accumulating(builder, vector)

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
            zero = ir.Constant(vector, None)
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
                address = builder.inttoptr(builder.add(starts[i], far), ir.PointerType(element))
                one = builder.insert_element(
                    ir.Constant(vector, ir.Undefined),
                    builder.load(address, align=align, typ=element),
                    ir.Constant(ir.IntType(32), 0),
                )
                spread = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)
                for v in range(vectors):
                    total = accumulate(sums[i][v], spread, line[v])
                    sums[i][v].add_incoming(total, loop)
                    totals.append(total)
            following = builder.add(k, number(1))
            k.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
            builder.position_at_end(done)
            targets = [
                place(result, result_step, i, 4 * lanes * v)
                for i in range(rows)
                for v in range(vectors)
            ]
            store_sums(builder, totals, targets, adding)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 8), build

    return tile


def store_sums(builder, totals, addresses, adding):
    """Vectors written to addresses; where ``adding`` is not 0, added to what lies there."""
    vector = totals[0].type
    integers = isinstance(vector.element, ir.IntType)
    more, first, end = (builder.append_basic_block(n) for n in ("more", "first", "end"))
    builder.cbranch(builder.icmp_signed("!=", adding, ir.Constant(adding.type, 0)), more, first)
    for block in (more, first):
        builder.position_at_end(block)
        for total, address in zip(totals, addresses, strict=True):
            target = builder.inttoptr(address, ir.PointerType(vector))
            if block is more:
                before = builder.load(target, align=4, typ=vector)
                total = (builder.add if integers else builder.fadd)(before, total)
            builder.store(total, target, align=4)
        builder.branch(end)
    builder.position_at_end(end)


def fused(lanes):
    """Float32's ``accumulating``: a product and its sum, rounded once."""

    def accumulating(builder, vector):
        kind = ir.FunctionType(vector, [vector] * 3)
        fma = builder.module.declare_intrinsic(f"llvm.fma.v{lanes}f32", (), kind)
        return lambda total, spread, line: builder.call(fma, [spread, line, total])

    return accumulating


def _tile(rows, vectors, lanes):
    """Of float32."""
    return register_tile(rows, vectors, lanes, ir.FloatType(), 4, fused(lanes))


tile_8x32 = _tile(8, 2, 16)
tile_8x16 = _tile(8, 1, 16)
tile_6x16 = _tile(6, 2, 8)
