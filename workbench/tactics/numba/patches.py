"""Runs of float32 from an image into a row of its patch, in whole vector registers."""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _copy_runs(lanes):
    """An intrinsic (source, apart, target, elements, runs): addresses, bytes and counts.

    The runs' beginnings lie ``apart`` in the source, one after the other in the target. Nothing
    beside them is read or written. A slice for each would take ten times as long as a copy.
    """
    index, number = ir.IntType(64), ir.IntType(32)
    vector = ir.VectorType(ir.FloatType(), lanes)
    pointer = ir.PointerType(ir.IntType(8))

    @intrinsic
    def copy_runs(typing, source, apart, target, elements, runs):
        def build(context, builder, signature, arguments):
            begin, step, end, count, rows = arguments
            whole = builder.udiv(count, index(lanes))
            left = builder.trunc(builder.urem(count, index(lanes)), number)
            kind = ir.VectorType(number, lanes)
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), left, number(0))
            spread = builder.shuffle_vector(one, one, ir.Constant(kind, [0] * lanes))
            places = ir.Constant(kind, list(range(lanes)))
            mask = builder.icmp_signed("<", places, spread)

            def masked(name, *kinds, returns):
                typ = ir.FunctionType(returns, [*kinds])
                text = f"llvm.masked.{name}.v{lanes}f32.p0"
                return builder.module.declare_intrinsic(text, (), typ)

            load = masked("load", pointer, number, mask.type, vector, returns=vector)
            store = masked("store", vector, pointer, number, mask.type, returns=ir.VoidType())
            length = builder.mul(count, index(4))
            with cgutils.for_range(builder, rows) as run:
                read = builder.add(begin, builder.mul(run.index, step))
                written = builder.add(end, builder.mul(run.index, length))
                with cgutils.for_range(builder, whole) as turn:
                    far = builder.mul(turn.index, index(4 * lanes))
                    where = builder.inttoptr(builder.add(read, far), ir.PointerType(vector))
                    found = builder.load(where, align=4, typ=vector)
                    where = builder.inttoptr(builder.add(written, far), ir.PointerType(vector))
                    builder.store(found, where, align=4)
                far = builder.mul(whole, index(4 * lanes))
                where = builder.inttoptr(builder.add(read, far), pointer)
                rest = builder.call(load, [where, number(4), mask, ir.Constant(vector, None)])
                where = builder.inttoptr(builder.add(written, far), pointer)
                builder.call(store, [rest, where, number(4), mask])
            return context.get_dummy_value()

        return types.none(*[types.int64] * 5), build

    return copy_runs


COPY_RUNS = {lanes: _copy_runs(lanes) for lanes in (8, 16)}
