"""What becomes of a tile's sums: an epilogue in whole vector registers, written as LLVM's code.

An epilogue is data: steps, each a tuple of a name and of what it takes. The first value is the sum
in real units; each step adds one value, which later steps name by its number. Sums of bytes are
integers: a column's factor and what its sums lack make them real; float32's are so already.
"""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from workbench.tactics.numba.vector_rows import MAGIC, Vectors

ERF_ABOVE = (
    *(-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06),
    *(-5.69250639462346e-05, -7.34990630326855e-04, -2.95459980854025e-03),
    -1.60960333262415e-02,
)
ERF_BELOW = (
    *(-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03),
    *(-7.37332916720468e-03, -1.42647390514189e-02),
)
"""erf(x) = x · above(x²) / below(x²) for |x| <= 4, highest power first (Eigen's and XLA's erf)."""
ERF_END = 4.0
OUTPUTS, OPERANDS = 2, 4
"""Most outputs of a tile, and most operands beside its sums."""
WIDTHS = {"float32": 4, "int8": 1, "uint8": 1}


class _Epilogue(Vectors):
    """The code of one vector of sums."""

    def __init__(self, builder, lanes, mask, numbers):
        super().__init__(builder, lanes)
        self.mask, self.numbers = mask, numbers

    # -- memory ---------------------------------------------------------------------------
    def read(self, kind, address):
        """A vector of elements as float32; those outside the mask are 0."""
        element = ir.FloatType() if kind == "float32" else ir.IntType(8)
        vector = ir.VectorType(element, self.lanes)
        name = f"v{self.lanes}{'f32' if kind == 'float32' else 'i8'}"
        pointer = ir.PointerType(ir.IntType(8))
        whole = ir.FunctionType(vector, [pointer, ir.IntType(32), self.mask.type, vector])
        load = self.builder.module.declare_intrinsic(f"llvm.masked.load.{name}.p0", (), whole)
        where = self.builder.inttoptr(address, pointer)
        align = ir.Constant(ir.IntType(32), WIDTHS[kind])
        found = self.builder.call(load, [where, align, self.mask, ir.Constant(vector, None)])
        if kind == "float32":
            return found
        widen = self.builder.sext if kind == "int8" else self.builder.zext
        return self.builder.sitofp(widen(found, self.integer), self.real)

    def write(self, value, kind, address):
        """A vector's elements inside the mask, quantized where ``kind`` is a byte's."""
        name = f"v{self.lanes}{'f32' if kind == 'float32' else 'i8'}"
        if kind != "float32":
            clipped, magic = value
            bits = self.builder.bitcast(self.builder.fadd(clipped, magic), self.integer)
            value = self.builder.trunc(bits, ir.VectorType(ir.IntType(8), self.lanes))
        pointer = ir.PointerType(ir.IntType(8))
        kinds = [value.type, pointer, ir.IntType(32), self.mask.type]
        whole = ir.FunctionType(ir.VoidType(), kinds)
        store = self.builder.module.declare_intrinsic(f"llvm.masked.store.{name}.p0", (), whole)
        align = ir.Constant(ir.IntType(32), WIDTHS[kind])
        where = self.builder.inttoptr(address, pointer)
        self.builder.call(store, [value, where, align, self.mask])

    # -- steps ----------------------------------------------------------------------------
    def least(self, a, b):
        """b where it is smaller than a, else a: a NaN of a stays."""
        return self.builder.select(self.builder.fcmp_ordered("<", b, a), b, a)

    def most(self, a, b):
        """b where it is greater than a, else a."""
        return self.builder.select(self.builder.fcmp_ordered(">", b, a), b, a)

    def polynomial(self, x, factors):
        total = self.number(factors[0])
        for c in factors[1:]:
            total = self.multiplied(total, x, self.number(c))
        return total

    def divided(self, a, b):
        """a / b of ordinary numbers; a division keeps a port busy for 16 cycles."""
        if self.lanes != 16:
            return self.builder.fdiv(a, b)
        kind = ir.FunctionType(self.real, [self.real, self.real, ir.IntType(16)])
        name = "llvm.x86.avx512.rcp14.ps.512"
        estimate = self.builder.module.declare_intrinsic(name, (), kind)
        every = ir.Constant(ir.IntType(16), -1)
        first = self.builder.call(estimate, [b, self.number(0.0), every])
        lack = self.multiplied(self.builder.fneg(b), first, self.number(1.0))
        return self.builder.fmul(a, self.multiplied(first, lack, first))

    def gelu(self, x):
        """x/2 · (1 + erf(x / √2)); error 3·2**-24·|x|."""
        v = self.builder.fmul(x, self.number(0.70710678118654752))
        v = self.most(self.least(v, self.number(ERF_END)), self.number(-ERF_END))
        z = self.builder.fmul(v, v)
        above = self.builder.fmul(v, self.polynomial(z, ERF_ABOVE))
        erf = self.divided(above, self.polynomial(z, ERF_BELOW))
        half = self.builder.fmul(x, self.number(0.5))
        return self.multiplied(half, erf, half)

    def step(self, step, values):
        """The value of one step that reads no memory."""
        builder = self.builder
        name, *taken = step
        if name == "literal":
            return self.number(taken[0])
        if name == "number":
            return self.numbers[taken[0]]
        if name == "quantize":
            first = taken[1]
            inverse, low, high, magic = self.numbers[first : first + 4]
            y = builder.fmul(values[taken[0]], inverse)
            y = self.most(self.least(y, high), low)
            zero = builder.fsub(self.number(MAGIC), magic)
            return builder.select(builder.fcmp_ordered("ord", y, y), y, zero), magic
        if name == "requantized":
            y, magic = values[taken[0]]
            return builder.fsub(builder.fadd(y, magic), self.number(MAGIC))
        arguments = [values[k] for k in taken]
        match name:
            case "Add":
                return builder.fadd(*arguments)
            case "Sub":
                return builder.fsub(*arguments)
            case "Mul":
                return builder.fmul(*arguments)
            case "Div":
                return builder.fdiv(*arguments)
            case "Least":
                return self.least(*arguments)
            case "Most":
                return self.most(*arguments)
            case "Gelu":
                return self.gelu(*arguments)
        raise ValueError(f"no step of an epilogue is called '{name}'")


class _Column(_Epilogue):
    """The epilogue of the ``position``-th vector of a tile's rows; of all of them at once."""

    def __init__(self, builder, lanes, numbers, position, arguments, integers):
        Vectors.__init__(self, builder, lanes)
        _, _, wide, _, first, _, scale, correction, _ = arguments[:9]
        self.operands, self.outputs = arguments[9:13], arguments[13:]
        self.lane = ir.Constant(self.index, position * lanes)
        left = builder.trunc(builder.sub(wide, self.lane), ir.IntType(32))
        spread = self.spread(builder.bitcast(left, ir.FloatType()))
        order = ir.Constant(self.integer, list(range(lanes)))
        mask = builder.icmp_signed("<", order, builder.bitcast(spread, self.integer))
        super().__init__(builder, lanes, mask, numbers)
        self.beside = builder.add(first, self.lane)
        self.factors = self.lacking = None
        if integers:
            offset = self.times(self.beside, 4)
            self.factors = self.load(builder.add(scale, offset))
            self.lacking = builder.bitcast(self.load(builder.add(correction, offset)), self.integer)
        self.fixed, self.values = {}, []

    def times(self, value, factor):
        return self.builder.mul(value, ir.Constant(self.index, factor))

    def begin(self, steps, kinds):
        """Read what all rows share."""
        for k, (name, *taken) in enumerate(steps):
            if name == "row":
                self.fixed[k] = self.taken(taken[0], self.beside, kinds)

    def taken(self, operand, element, kinds):
        offset = self.times(element, WIDTHS[kinds[operand]])
        return self.read(kinds[operand], self.builder.add(self.operands[operand], offset))

    def start(self, sums, element):
        """A row's sums, in real units. element: the row's first in the result."""
        total = self.load(self.builder.add(sums, self.times(self.lane, 4)))
        if self.factors is not None:
            whole = self.builder.add(self.builder.bitcast(total, self.integer), self.lacking)
            total = self.builder.fmul(self.builder.sitofp(whole, self.real), self.factors)
        self.values = [total]
        self.element = self.builder.add(element, self.lane)

    def made(self, k, step, kinds):
        """The value of step k."""
        if k in self.fixed:
            return self.fixed[k]
        if step[0] == "full":
            return self.taken(step[1], self.element, kinds)
        return self.step(step, self.values)

    def end(self, results):
        """Write the outputs."""
        for (value, kind), output in zip(results, self.outputs, strict=False):
            offset = self.times(self.element, WIDTHS[kind])
            self.write(self.values[value], kind, self.builder.add(output, offset))


def tile_finish(vectors, lanes, integers, steps, results, kinds, numbers):
    """An intrinsic (sums, count, width, at, lead, columns, s, c, f, 4 operands, 2 outputs).

    sums: address of a tile, as its intrinsic leaves it. count, width: its rows and columns that
    there are. at: number of its first element in the result, lead: its first column; columns: of
    the result. s, c, f: addresses of the columns' factors and corrections and of ``numbers``
    numbers. steps, results: the epilogue, and (value, kind) of each output. kinds: of operands.
    """

    @intrinsic
    def finish(typing, t, count, width, at, lead, columns, s, c, f, a0, a1, a2, a3, o0, o1):
        def build(context, builder, signature, arguments):
            sums, rows, _, place, _, step, _, _, parameters = arguments[:9]
            index = ir.IntType(64)

            def number(value):
                return ir.Constant(index, value)

            v = Vectors(builder, lanes)
            single = ir.PointerType(ir.FloatType())
            known = []
            for k in range(numbers):
                where = builder.inttoptr(builder.add(parameters, number(4 * k)), single)
                known.append(v.spread(builder.load(where, typ=ir.FloatType())))
            columns = [
                _Column(builder, lanes, known, k, arguments, integers) for k in range(vectors)
            ]
            for c in columns:
                c.begin(steps, kinds)

            def row(i, nothing):
                own = builder.add(sums, builder.mul(i, number(4 * vectors * lanes)))
                element = builder.add(place, builder.mul(i, step))
                for c in columns:
                    c.start(own, element)
                # Step by step, not vector by vector: what waits for one another lies apart.
                for k, s in enumerate(steps):
                    for c in columns:
                        c.values.append(c.made(k, s, kinds))
                for c in columns:
                    c.end(results)
                return nothing

            v.loop(rows, number(0), row)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 15), build

    return finish
