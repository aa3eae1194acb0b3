"""Pooling of channels-last images: a thread makes neighbouring outputs of several channels.

It loads a pixel's channels at once (up to 16 bytes) and uses each pixel for all of its outputs.
Extremes are taken of packed elements: two halves or two bytes an instruction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from workbench.body import Body, Node
from workbench.datatypes import DataType
from workbench.formats import HWC
from workbench.operators.windows import Window, window_of
from workbench.records import Refusal
from workbench.tactics.nvrtc.element_rules import elements_of
from workbench.tactics.nvrtc.elements import Index
from workbench.tactics.nvrtc.frame import (
    LANE_BYTES,
    KernelText,
    declare_vector,
    kernel_text,
    store_element,
    store_vector,
)
from workbench.tactics.nvrtc.pointwise import THREADS, followed_layouts
from workbench.tactics.nvrtc.scalars import STORAGE, loaded
from workbench.tactics.scalar_text import Untranslatable

POOLINGS = ("MaxPool", "AveragePool")
TILES = ((2, 2), (1, 2), (1, 1))
"""Outputs a thread: rows and columns."""
MOST_PIXELS = 64
"""Pixels a thread: what reads them is written out, one after the other."""

_LARGEST = r"""
struct Largest { enum { PARTS = %(parts)d };
  static INLINE unsigned part(unsigned w, int k) { %(part)s }
  static INLINE unsigned larger(unsigned a, unsigned b) { %(larger)s }
  static INLINE unsigned word(const unsigned* p) { %(word)s } };
"""
"""Elements of a stored word, in registers that hold one or two; PARTS registers hold a word's."""

_MAX = r"""
#ifndef HOST_SHIM
INLINE unsigned larger_%(name)s(unsigned a, unsigned b) {
  unsigned m; asm("max.NaN.%(name)s %%0, %%1, %%2;" : "=r"(m) : "r"(a), "r"(b)); return m; }
#endif
"""
"""NaN where either is. Source: PTX ISA 8.5, max: compute capability 8.0."""
_MAX_SINCE = 80


def _plain(name: str) -> str:
    """Words that are compared as they are."""
    compared = {"part": "return w;", "larger": f"return larger_{name}(a, b);"}
    return _MAX % {"name": name} + _LARGEST % {"parts": 1, "word": "return *p;", **compared}


def _bytes(function: str, upper: str, lower: str) -> str:
    """Two bytes a register, each the upper one of 16 bits, which compare as it does.

    upper, lower: a word's bytes 1 and 3, or 0 and 2, brought there.
    """
    return _LARGEST % {
        "parts": 2,
        "part": f"return k ? {lower} : {upper};",
        "larger": f"return {function}(a, b);",
        "word": "return __byte_perm(p[1], p[0], 0x7351);",
    }


def _above(byte: str, function: str) -> str:
    """Each byte above another one."""
    return _bytes(function, *(f"__byte_perm(w, 0x{byte * 4}u, 0x{s})" for s in ("3414", "2404")))


_EXTREMES: dict[DataType, str] = {
    DataType.FLOAT: _plain("f32"),
    DataType.HALF: _plain("f16x2"),
    DataType.BF16: _plain("bf16x2"),
    # Whatever is below an integer's byte decides between equal ones only.
    DataType.INT8: _bytes("__vmaxs2", "w", "w << 8"),
    DataType.UINT8: _bytes("__vmaxu2", "w", "w << 8"),
    # E4M3 above FF is ordered as BF16: 7E, its largest, is finite there, and 7F is a NaN in both.
    DataType.FP8: _MAX % {"name": "bf16x2"} + _above("FF", "larger_bf16x2"),
    # E5M2 is the upper byte of a half.
    DataType.FP8E5M2: _MAX % {"name": "f16x2"} + _above("00", "larger_f16x2"),
}
"""By the type of the elements."""
_SUMMED = (DataType.FLOAT, DataType.HALF, DataType.BF16, DataType.FP8, DataType.FP8E5M2)


@dataclass(frozen=True)
class PoolShape:
    """What a thread makes. vector: channels; down, across: outputs."""

    vector: int
    down: int
    across: int


def pool_shapes(body: Body) -> tuple[PoolShape, ...]:
    """Shapes that fit a Body, best guess first; none where it is no pooling of images."""
    node = body.anchor_node
    if node is None or node.op not in POOLINGS:
        return ()
    x, out = body.types[node.inputs[0]], body.types[node.outputs[0]].shape
    widest = LANE_BYTES // x.dtype.itemsize
    vectors = [v for v in (widest, widest // 2, widest // 4) if v and x.shape[1] % v == 0][:2]
    shapes = [
        PoolShape(v, down, across)
        for k, v in enumerate(vectors)
        for down, across in (TILES if not k else TILES[:1])
        if len(out) == 4 and down <= out[2] and across <= out[3]
    ]
    return tuple(s for s in shapes if _misfit(body, node, s) is None)


def pool_kernel(body: Body, shape: PoolShape) -> KernelText | Refusal:
    """The kernel of a Body anchored at a pooling, all tensors channels last."""
    node = body.anchor_node
    assert node is not None
    if (problem := _misfit(body, node, shape)) is not None:
        return problem
    pool = _Pool(body, node, shape)
    try:
        body_lines, tables = pool.finished()
    except Untranslatable as failure:
        return Refusal(str(failure), code="operator")
    largest = node.op == "MaxPool"
    helpers = _EXTREMES[pool.kind] if largest else ""
    lines = [*pool.place(), *(pool.extremes() if largest else pool.sums()), *body_lines]
    text = kernel_text(
        body,
        lines,
        tables,
        blocks=-(-pool.threads // THREADS),
        threads=THREADS,
        vector=shape.vector,
        helpers=f"{helpers}typedef Pack<unsigned, {pool.words}> Held;\n",
    )
    packed = largest and "max.NaN" in helpers
    return replace(text, since=max(text.since, _MAX_SINCE)) if packed else text


def _misfit(body: Body, node: Node, shape: PoolShape) -> Refusal | None:
    """Why these kernels do not pool so, or None."""
    x, out = body.types[node.inputs[0]], body.types[node.outputs[0]]
    kinds = _EXTREMES if node.op == "MaxPool" else _SUMMED
    if x.dtype not in kinds:
        return Refusal(f"{node.op} of {x.dtype.value} vectors", code="type")
    if node.inputs[0] not in [i.name for i in body.dynamic_inputs]:
        return Refusal("what is pooled is computed first", code="operator")
    if any(o and o in (*body.outputs, *_read(body)) for o in node.outputs[1:]):
        return Refusal("the places of the largest elements", code="operator")
    if any(t.shape != out.shape for t in body.output_types):
        return Refusal("an output has another shape than the anchor's", code="operator")
    if len(x.shape) != 4 or x.shape[1] % shape.vector or shape.vector * x.dtype.itemsize < 4:
        return Refusal(f"{x} is no image of {shape.vector} channels at once", code="operator")
    if node.op == "AveragePool":
        a = node.attributes
        if a["count_include_pad"] and a["ceil_mode"]:
            return Refusal("count_include_pad with ceil_mode", code="operator")
    g = window_of(node.attributes, x.shape[2:], node.attributes["kernel_shape"])
    # A window without a pixel has no nearest pixel inside either; nor has a dilated one always.
    beyond = [max(b, e) >= k for b, e, k in zip(g.begin, g.end, g.kernel, strict=True)]
    if any(d != 1 for d in g.dilations) or any(beyond):
        return Refusal("windows with holes, or wholly in the padding", code="operator")
    if prod(_patch(g, shape)) > MOST_PIXELS or max(prod(x.shape), prod(out.shape)) >= 2**31:
        return Refusal("too many pixels for a thread, or for 32 bits", code="size")
    return None


def _read(body: Body) -> tuple[str, ...]:
    return tuple(v for n in body.nodes for v in n.inputs)


def _patch(g: Window, shape: PoolShape) -> tuple[int, int]:
    """Rows and columns of the pixels that a thread reads."""
    tile = (shape.down, shape.across)
    rows, columns = ((t - 1) * s + k for t, s, k in zip(tile, g.strides, g.kernel, strict=True))
    return rows, columns


class _Pool:
    """The statements of one kernel, section by section."""

    def __init__(self, body: Body, node: Node, shape: PoolShape) -> None:
        self.body, self.node, self.shape = body, node, shape
        x, self.out = body.types[node.inputs[0]], body.types[node.outputs[0]].shape
        self.kind, self.x = x.dtype, x.shape
        self.g = window_of(node.attributes, x.shape[2:], node.attributes["kernel_shape"])
        self.words = shape.vector * x.dtype.itemsize // 4
        self.groups = x.shape[1] // shape.vector
        self.tiles = (-(-self.out[2] // shape.down), -(-self.out[3] // shape.across))
        self.threads = self.out[0] * prod(self.tiles) * self.groups
        self.patch = _patch(self.g, shape)

    def place(self) -> list[str]:
        """Where a thread is, and where its pixels lie, those of the padding at the nearest one."""
        (down, across), g = self.tiles, self.g
        pixels = prod(self.x[2:]) * self.groups
        source = [i.name for i in self.body.inputs].index(self.node.inputs[0])
        return [
            f"const unsigned i = blockIdx.x * {THREADS}u + threadIdx.x;",
            f"if (i >= {self.threads}u) return;",
            f"const unsigned group = i % {self.groups}u, tile = i / {self.groups}u;",
            f"const unsigned column = tile % {across}u, strip = tile / {across}u;",
            f"const unsigned row = strip % {down}u, n = strip / {down}u;",
            f"const int y0 = (int)row * {self.shape.down * g.strides[0]} - {g.begin[0]};",
            f"const int x0 = (int)column * {self.shape.across * g.strides[1]} - {g.begin[1]};",
            f"const Held* image = reinterpret_cast<const Held*>(in{source})",
            f"  + (n * {pixels}u + group);",
            f"int at[{self.patch[1]}];",
            *self._each("k", self.patch[1]),
            f"at[k] = {self._inside('x0 + k', 1)} * {self.groups};",
        ]

    def _inside(self, text: str, axis: int) -> str:
        size = self.x[2 + axis]
        if self.g.begin[axis]:
            text = f"max({text}, 0)"
        return f"min({text}, {size - 1})" if self._beyond(axis) else f"({text})"

    def _beyond(self, axis: int) -> bool:
        """Whether the last tile reaches beyond the image."""
        tile = (self.shape.down, self.shape.across)[axis]
        last = (self.tiles[axis] - 1) * tile * self.g.strides[axis] - self.g.begin[axis]
        return last + self.patch[axis] > self.x[2 + axis]

    @staticmethod
    def _each(name: str, count: int | str, first: int = 0) -> list[str]:
        return ["#pragma unroll", f"for (int {name} = {first}; {name} < {count}; ++{name})"]

    def extremes(self) -> list[str]:
        """``best``: of each row the largest within each window, then of those rows."""
        s, (high, wide), (step, along) = self.shape, self.g.kernel, self.g.strides
        rows, columns = self.patch
        parts = f"{self.words} * Largest::PARTS"
        return [
            f"unsigned best[{s.down}][{s.across}][{parts}];",
            *self._each("r", rows),
            "{",
            f"const Held* line = image + {self._line()};",
            f"unsigned seen[{columns}][{parts}];",
            *self._each("k", columns),
            "{ const Held held = line[at[k]];",
            *self._each("p", parts),
            "seen[k][p] = Largest::part(held.v[p / Largest::PARTS], p % Largest::PARTS); }",
            *self._each("b", s.across),
            *self._each("p", parts),
            f"{{ unsigned most = seen[b * {along}][p];",
            *self._each("k", wide, 1),
            f"most = Largest::larger(most, seen[b * {along} + k][p]);",
            *self._each("a", s.down),
            f"if (r >= a * {step} && r < a * {step} + {high})",
            f"best[a][b][p] = r == a * {step} ? most : Largest::larger(best[a][b][p], most);",
            "} }",
        ]

    def _line(self) -> str:
        return f"{self._inside('y0 + r', 0)} * {self.x[3] * self.groups}"

    def sums(self) -> list[str]:
        """``total``: the sum of each window's pixels, in float32."""
        s, (high, wide), (step, along) = self.shape, self.g.kernel, self.g.strides
        rows, columns = self.patch
        stored_as = f"Pack<{STORAGE[self.kind]}, {s.vector}>"
        return [
            f"float total[{s.down}][{s.across}][{s.vector}] = {{}};",
            *self._each("r", rows),
            "{",
            f"const Held* line = image + {self._line()};",
            *self._each("k", columns),
            "{",
            f"const {stored_as} held = *reinterpret_cast<const {stored_as}*>(line + at[k]);",
            f"const bool inside = {self._within('y0 + r', 0)} && {self._within('x0 + k', 1)};",
            *self._each("t", s.vector),
            f"{{ const float x = inside ? {loaded(self.kind, 'held.v[t]')} : 0.0f;",
            *self._each("a", s.down),
            *self._each("b", s.across),
            f"if (r >= a * {step} && r < a * {step} + {high} && k >= b * {along}"
            f" && k < b * {along} + {wide}) total[a][b][t] += x; }}",
            "} }",
        ]

    def _within(self, text: str, axis: int) -> str:
        if not self.g.begin[axis] and not self._beyond(axis):
            return "true"
        return f"(unsigned)({text}) < {self.x[2 + axis]}u"

    def finished(self) -> tuple[list[str], list[str]]:
        """What stores every output of a thread, after what follows the pooling; and its tables."""
        s, out = self.shape, self.out
        copied = self.node.op == "MaxPool" and self.body.outputs == (self.node.outputs[0],)
        lines, tables = (self._copied(), []) if copied else self._computed()
        ragged = [
            f"{name} < {size}u"
            for name, size, tile in (("oy", out[2], s.down), ("ox", out[3], s.across))
            if size % tile
        ]
        frame = [
            *self._each("a", s.down),
            *self._each("b", s.across),
            "{",
            f"const unsigned oy = row * {s.down}u + a, ox = column * {s.across}u + b;",
            f"if ({' && '.join(ragged) or 'true'}) {{",
            f"const unsigned spot = ((n * {out[2]}u + oy) * {out[3]}u + ox) * {self.groups}u"
            " + group;",
            *lines,
            "} }",
        ]
        return frame, tables

    def _gathered(self) -> list[str]:
        return [
            "Held made;",
            *self._each("w", self.words),
            "made.v[w] = Largest::word(best[a][b] + w * Largest::PARTS);",
        ]

    def _copied(self) -> list[str]:
        return [*self._gathered(), "reinterpret_cast<Held*>(out0)[spot] = made;"]

    def _computed(self) -> tuple[list[str], list[str]]:
        """Element by element, where other nodes follow, or where a sum is divided."""
        body, s, name = self.body, self.shape, self.node.outputs[0]
        full: Index = tuple(
            "0" if d == 1 else text
            for d, text in zip(self.out, ("(idx)n", "c", "(idx)oy", "(idx)ox"), strict=True)
        )
        stored_as = f"Pack<{STORAGE[self.kind]}, {s.vector}>"
        if self.node.op == "MaxPool":
            value = loaded(self.kind, "elements.v[t]")
            before = [
                *self._gathered(),
                f"const {stored_as} elements = *reinterpret_cast<const {stored_as}*>(&made);",
            ]
        else:
            value, before = "(total[a][b][t] * share)", [f"const float share = {self._share()};"]
        e = elements_of(body, followed_layouts(body, HWC))
        e.ready[name] = lambda asked: value if asked == full else None
        for k, o in enumerate(body.outputs):
            e.lines.append(store_element(body, k, e.at(o, full)))
        outputs = range(len(body.outputs))
        return [
            *before,
            *(declare_vector(body, k, s.vector) for k in outputs),
            *self._each("t", s.vector),
            f"{{ const idx c = (idx)group * {s.vector} + t;",
            *e.lines,
            "}",
            *(store_vector(body, k, f"(idx)spot * {s.vector}", s.vector) for k in outputs),
        ], e.tables

    def _share(self) -> str:
        if self.node.attributes["count_include_pad"]:
            return f"1.0f / {prod(self.g.kernel)}.0f"
        spans: list[str] = []
        for axis, (start, tile) in enumerate((("y0", "a"), ("x0", "b"))):
            first = f"{start} + {tile} * {self.g.strides[axis]}"
            end = f"min({first} + {self.g.kernel[axis]}, {self.x[2 + axis]})"
            spans.append(f"({end} - max({first}, 0))")
        return f"1.0f / (float)({' * '.join(spans)})"
