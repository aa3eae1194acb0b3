"""What follows the sums, a few columns of a row at once: scales, bias, the Body's nodes, stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from workbench.body import Node
from workbench.datatypes import DataType
from workbench.tactics.nvrtc.element_rules import ELEMENT_RULES
from workbench.tactics.nvrtc.elements import Elements, Index, operand, split
from workbench.tactics.nvrtc.scalars import STORAGE, loaded, number, stored
from workbench.tactics.product import Factor, scale_axis
from workbench.tactics.scalar_text import Untranslatable, short_gelu_terms
from workbench.tactics.wgmma.matrices import OWN, Matrices

HELPERS = (
    f"""
INLINE float short_gelu(float x) {{
  const float y = x < -4.25f ? -4.25f : x, z = fminf(y, 4.25f), s = z * z;
  float {"; ".join(short_gelu_terms("f"))};
  return y * (z * q + 0.5f); }}
"""
    + r"""INLINE unsigned pair_HALF(float a, float b) {
  unsigned r; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a)); return r; }
INLINE unsigned pair_BF16(float a, float b) {
  unsigned r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a)); return r; }
INLINE u16 pair_FP8(float a, float b) {
  u16 r; asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(b), "f"(a)); return r; }
INLINE int rounded(float v, float least) {
  return __float_as_int(fminf(fmaxf(v, least), 127.0f) + 12582912.0f) - 0x4B400000; }
"""
)
"""Adding 1.5 · 2**23 leaves no bits for a fraction: rounds to nearest, ties to even, and the lowest
bits are the integer (of numbers below 2**22)."""

PAIRS = {DataType.HALF: "unsigned", DataType.BF16: "unsigned", DataType.FP8: "u16"}
"""Types of which two are converted at once, and what holds two."""


@dataclass(frozen=True)
class Finish:
    """What is done with a thread's sums.

    before: lines for all of its tiles. columns: lines for the columns from ``col`` on, the first of
    OWN. row: lines for ``row``, which read ``SUM(t)``, what the matrix units summed for column
    ``col + t``. beside: by position among the Body's inputs, the type of OWN elements that a row
    reads as ``h{k}[HELD].v[t]``, fetched ahead. tables: lines ahead of the kernel.
    """

    before: tuple[str, ...]
    columns: tuple[str, ...]
    row: tuple[str, ...]
    beside: Mapping[int, str]
    tables: tuple[str, ...]


def finish(matrices: Matrices) -> Finish:
    """What follows the sums. Raises Untranslatable."""
    e = Epilogue(matrices)
    body = matrices.body
    rows: list[str] = []
    after: list[str] = []
    for k, name in enumerate(body.outputs):
        kind = body.output_types[k].dtype
        text = e.at(name, e.index)
        if kind in PAIRS and (kind is not DataType.FP8 or e.saturates(name)):
            rows.append(f"Pack<{PAIRS[kind]}, {OWN // 2}> y{k}; float f{k}[{OWN}];")
            e.lines.append(f"f{k}[t] = {text};")
            pair = f"pair_{kind.name}(f{k}[2 * t], f{k}[2 * t + 1])"
            after.append(f"for (int t = 0; t < {OWN // 2}; ++t) y{k}.v[t] = {pair};")
        else:
            rows.append(f"Pack<{STORAGE[kind]}, {OWN}> y{k};")
            e.lines.append(f"y{k}.v[t] = {stored(kind, text)};")
        after.append(f"*reinterpret_cast<decltype(y{k})*>(out{k} + at) = y{k};")
    lines = [
        *e.where,
        f"const idx at = row * {matrices.columns} + col;",
        *rows,
        f"for (int t = 0; t < {OWN}; ++t) {{",
        "const idx c = col + t;",
        *e.lines,
        "}",
        *after,
    ]
    return Finish(tuple(e.before), tuple(e.columns), tuple(lines), e.beside, tuple(e.tables))


class Epilogue(Elements):
    """Elements of a row, fast where results have few bits.

    Scales divide once, and are taken into what they are multiplied with: a requantized sum of
    scaled integers is one multiplication and addition an element for each of them, a unit of
    roundoff more.
    """

    def __init__(self, matrices: Matrices) -> None:
        super().__init__(matrices.body, matrices.layouts, ELEMENT_RULES)
        self.matrices, self.product = matrices, matrices.product
        self.before: list[str] = []
        self.columns: list[str] = []
        self.beside: dict[int, str] = {}
        self.index = matrices.index(split(self, "row", matrices.lead), "c")
        self.where, self.lines = self.lines, []
        self._load()
        self._result = self.product.anchor.outputs[0]
        self._total = ""

    def at(self, name: str, index: Index) -> str:
        if name == self._result and index == self.index:
            self._total = self._total or self.variable("const float", self._sum(""))
            return self._total
        return super().at(name, index)

    def saturates(self, name: str) -> bool:
        """Whether a value is quantized, with what lies beyond its range clipped."""
        node = self._producers.get(name)
        if node is None or node.op != "QuantizeLinear":
            return False
        return bool(node.attributes["saturate"]) and not node.attributes["block_size"]

    # -- what is loaded -------------------------------------------------------------------
    def _load(self) -> None:
        """Numbers once, what lies along the columns for some at once, what lies beside the rows."""
        body, shape, matrices = self.body, self.product.out, self.matrices
        factors = {self.product.left.value, self.product.right.value}
        for k, i in enumerate(body.inputs):
            kind, own = i.type.dtype, i.type.shape
            if i.name in factors or kind not in STORAGE:
                continue
            pack = f"Pack<{STORAGE[kind]}, {OWN}>"
            axis = len(own) - 1 if len(own) < len(shape) else matrices.column_axis
            if prod(own) == 1 and kind.is_float:
                self.before.append(f"const float n{k} = {loaded(kind, f'in{k}[0]')};")
                self.ready[i.name] = _everywhere(f"n{k}")
            elif prod(own) == matrices.columns and own[axis : axis + 1] == (matrices.columns,):
                place = f"*reinterpret_cast<const {pack}*>(in{k} + col)"
                self.columns.append(f"const {pack} x{k} = {place};")
                asked = tuple("c" if a == axis else "0" for a in range(len(own)))
                self.ready[i.name] = _at(asked, loaded(kind, f"x{k}.v[t]"))
            elif own == shape and self.layouts.get(i.name) == matrices.out_layout:
                self.beside[k] = pack
                self.ready[i.name] = _at(self.index, loaded(kind, f"h{k}[HELD].v[t]"))

    def _once(self, text: str) -> str:
        """A number that all tiles share."""
        name = self.fresh()
        self.before.append(f"const float {name} = {text};")
        return name

    def _number(self, name: str) -> str:
        """The text of a value that is one number, ready before the first tile; else empty."""
        given = self.ready.get(name)
        shape = self.body.types[name].shape
        return (given(("0",) * len(shape)) or "") if given and prod(shape) == 1 else ""

    # -- the sums -------------------------------------------------------------------------
    def _sum(self, factor: str) -> str:
        """The anchor's result times a number (empty for 1): scales and bias made for a column."""
        anchor, a = self.product.anchor, self.product.anchor.attributes
        gemm = anchor.op == "Gemm"
        by = [factor] if factor else []
        name = self.fresh()
        lines, self.lines = self.lines, []
        with self.within(f"for (int t = 0; t < {OWN}; ++t)"):
            self.lines.append("const idx c = col + t;")
            scales = [self._scale(f) for f in (self.product.left, self.product.right) if f.scale]
            if gemm and a["alpha"] != 1.0:
                scales.append(number(a["alpha"], DataType.FLOAT))
            along = self._bias() if self.product.bias and self._bias_along() else ""
            if scales or by:
                self.lines.append(f"{name}k[t] = {' * '.join([*scales, *by])};")
            if along:
                self.lines.append(f"{name}b[t] = {' * '.join([along, *by])};")
        self.columns.append(f"float {name}k[{OWN}], {name}b[{OWN}];")
        self.columns += self.lines
        self.lines = lines
        text = "(float)SUM(t)" if self.product.exact else "SUM(t)"
        if scales or by:
            text = f"{text} * {name}k[t]"
        if along:
            text = f"{text} + {name}b[t]"
        elif self.product.bias:
            text = f"{text} + {' * '.join([self._bias(), *by])}"
        return text

    def _bias_along(self) -> bool:
        """Whether the bias has one number a column."""
        shape = self.body.types[self.product.bias].shape
        return prod(shape) == self.matrices.columns and shape[-1:] == (self.matrices.columns,)

    def _bias(self) -> str:
        anchor, name = self.product.anchor, self.product.bias
        if anchor.op != "Gemm":
            return self.at(name, ("c",))
        text = self.broadcast(name, self.index)
        beta = anchor.attributes["beta"]
        return text if beta == 1.0 else f"{number(beta, DataType.FLOAT)} * {text}"

    def _scale(self, factor: Factor) -> str:
        """The scale of a factor, on a column."""
        assert factor.scale is not None
        name = factor.scale.inputs[1]
        axis = scale_axis(self.product, factor)
        shape = self.body.types[name].shape
        if axis is None:
            return f"(float){self.at(name, ('0',) * len(shape))}"
        first = self.matrices.filters_first
        filters = 0 if first else len(self.body.types[factor.value].shape) - 1
        if factor is self.product.left or axis != filters:
            raise Untranslatable("a factor has a scale for each of its rows")
        return f"(float){self.at(name, ('c',))}"

    # -- nodes ----------------------------------------------------------------------------
    def _pointwise(self, node: Node, index: Index) -> str:
        if node.op == "Gelu" and node.attributes["approximate"] != "tanh" and self._is_short(node):
            return f"short_gelu({self.broadcast(node.inputs[0], index)})"
        return super()._pointwise(node, index)

    def _is_short(self, node: Node) -> bool:
        """Whether a result is kept in 16 bits or fewer, or only quantized to them."""
        name = node.outputs[0]
        if self.body.types[name].dtype.info.bits <= 16:
            return True
        readers = [n for n in self.body.nodes if name in n.inputs]
        return name not in self.body.outputs and all(n.op == "QuantizeLinear" for n in readers)

    def _affine(self, node: Node, index: Index) -> str:
        out = self.body.types[node.outputs[0]].dtype
        scale = self._number(node.inputs[1])
        fast = node.op == "QuantizeLinear" and out in (DataType.INT8, DataType.FP8) and scale
        if not fast or not self.saturates(node.outputs[0]):
            return super()._affine(node, index)
        inverse = self._once(f"1.0f / {scale}")
        point = operand(node, 2)
        zero = "" if not point or point in self.product.zeros else self._point(point)
        source = self._producers.get(node.inputs[0])
        bare, least = node.inputs[0], "-128.0f"
        if source is not None and source.op == "Relu" and not zero and self._is_alone(bare):
            bare, least = source.inputs[0], "0.0f"
        text = self._times(bare, index, inverse)
        if out is DataType.FP8:
            text = f"max_nan({text}, 0.0f)" if bare != node.inputs[0] else text
            return f"{text} + {zero}" if zero else text
        return f"rounded({f'rintf({text}) + {zero}' if zero else text}, {least})"

    def _point(self, name: str) -> str:
        """A zero point, which is one number."""
        return f"(float){self.at(name, ('0',) * len(self.body.types[name].shape))}"

    def _times(self, name: str, index: Index, factor: str) -> str:
        """A value times a number, which constants on the way take in."""
        node = self._producers.get(name)
        if not self.product.positive or not self._is_alone(name):
            return f"(float){self.at(name, index)} * {factor}"
        if name == self._result and index == self.index:
            return self._sum(factor)
        match node.op if node is not None else "":
            case "Relu" if node is not None:
                return f"max_nan({self._times(node.inputs[0], index, factor)}, 0.0f)"
            case "Add" if node is not None:
                shape = self.body.types[name].shape
                if all(self.body.types[v].shape == shape for v in node.inputs):
                    parts = [self._times(v, index, factor) for v in node.inputs]
                    return f"({' + '.join(parts)})"
            case "Cast" if node is not None and self.body.types[node.inputs[0]].dtype.is_float:
                return self._times(node.inputs[0], index, factor)
            case "DequantizeLinear" if node is not None:
                point, scale = operand(node, 2), self._number(node.inputs[1])
                if scale and (not point or point in self.product.zeros):
                    by = self._once(f"{scale} * {factor}")
                    return f"(float){self.at(node.inputs[0], index)} * {by}"
            case _:
                pass
        return f"(float){self.at(name, index)} * {factor}"

    def _is_alone(self, name: str) -> bool:
        """Whether a value has one reader, and is no output."""
        readers = sum(v == name for n in self.body.nodes for v in n.inputs)
        return readers == 1 and name not in self.body.outputs


def _at(index: Index, text: str) -> Callable[[Index], str | None]:
    return lambda asked: text if asked == index else None


def _everywhere(text: str) -> Callable[[Index], str | None]:
    return lambda asked: text
