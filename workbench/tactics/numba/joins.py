"""Concatenations of computed parts: a loop for each part, whose operands are views.

An element of the result lies in one part. What is computed of the whole there is read through the
window of that part; what the part is computed from is read where it lies (transposed, sliced,
split) by strides alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.body import CONSTANT, VIEWS, Body, Node
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.native import in_order
from workbench.tactics.numba.cache import KernelCache
from workbench.tactics.numba.calls import operand_arrays, packed_constants, part, raw
from workbench.tactics.numba.expressions import Operand, Translator
from workbench.tactics.numba.loops import Nest, Strides, collapse
from workbench.tactics.numba.nests import (
    Stream,
    geometry,
    indented,
    load_lines,
    nest_text,
    store_line,
    units,
)
from workbench.tactics.numba.scalars import STORAGE, Value
from workbench.tactics.numba.threads import pieces, together
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.strided import Strided, follow


@dataclass(frozen=True, eq=False)
class Segment:
    """One part of the result: the code of an element, the loops, and where each array begins."""

    operands: tuple[Operand, ...]
    lines: tuple[str, ...]
    results: tuple[tuple[str, DataType], ...]
    nest: Nest
    offsets: tuple[int, ...]


def plan_join(body: Body) -> tuple[Segment, ...] | Refusal:
    """How to run a Body anchored at a Concat, on linear tensors."""
    node = body.anchor_node
    if node is None or node.op != "Concat":
        return Refusal("no concatenation anchors it", code="not_join")
    shape = body.types[node.outputs[0]].shape
    if any(t.shape != shape for t in body.output_types):
        return Refusal("an output has another shape than the whole", code="output_shapes")
    axis, start = node.attributes["axis"] % len(shape), 0
    segments: list[Segment] = []
    try:
        for name in node.inputs:
            size = body.types[name].shape[axis]
            if size:
                segments.append(_segment(body, node, name, (axis, start, size)))
            start += size
    except Untranslatable as e:
        return Refusal(str(e), code="not_join")
    return tuple(segments)


class _Part(Translator):
    """Code of one element of one part.

    before: True while what the part is computed from is translated; the window of the whole is not
    looked through then.
    """

    def __init__(self, body: Body, node: Node, name: str, window: tuple[int, int, int]) -> None:
        self.found: list[Operand] = []
        super().__init__(body, self.found)
        self.node, self.name, self.window = node, name, window
        self.views: list[Strided] = []
        self.before = False
        self.parts: dict[str, Value] = {}
        self.shape = body.types[name].shape

    def value(self, name: str) -> Value:
        if name == self.node.outputs[0] and not self.before:
            self.before = True
            found = self._at(self.name)
            self.before = False
            return found
        return self._at(name)

    def _at(self, name: str) -> Value:
        """The value in the space that is being translated: the part's, or the whole's."""
        known = self.parts if self.before else self.values
        if name not in known:
            node = self.producer(name)
            shuffled = node is not None and node.op in VIEWS
            known[name] = self.operand(name, ()) if shuffled else self._make(name)
        return known[name]

    def operand(self, name: str, shape: tuple[int, ...]) -> Value:
        node = self.producer(name)
        t = self.body.types[name]
        if node is not None and node.operator is CONSTANT:
            literal = node.attributes["value"]
            if len(literal.values) == 1:
                return super().operand(name, t.shape)
            raise Untranslatable(f"'{name}' is a literal of {len(literal.values)} elements")
        source, view = self._view(name)
        if t.dtype not in STORAGE:
            raise Untranslatable(f"'{name}' is {t.dtype}, which generated kernels do not read")
        wide = view.broadcast(self._whole_shape())
        seen = wide.part(*self.window) if wide is not None and not self.before else wide
        if seen is None:
            raise Untranslatable(f"'{name}' does not broadcast to what is joined")
        self.found.append(Operand(source, t.dtype, self.body.types[source].shape))
        self.views.append(seen)
        k = len(self.found) - 1
        self.reads[k] = None
        return Value(f"x{k}", t.dtype, t.shape)

    def _whole_shape(self) -> tuple[int, ...]:
        return self.shape if self.before else self.body.types[self.node.outputs[0]].shape

    def _view(self, name: str) -> tuple[str, Strided]:
        """The input that a value is a view of, and the view."""
        node = self.producer(name)
        if node is None:
            return name, Strided.whole(self.body.types[name].shape)
        if node.op not in VIEWS:
            raise Untranslatable(f"{node.op} '{name}' is no view of an input")
        source, view = self._view(node.inputs[0])
        views = follow(node, view, self.body)
        if isinstance(views, Refusal):
            raise Untranslatable(views.reason)
        return source, views[node.outputs.index(name)]


def _segment(body: Body, node: Node, name: str, window: tuple[int, int, int]) -> Segment:
    translator = _Part(body, node, name, window)
    results = tuple(
        (translator.value(o).text, t.dtype)
        for o, t in zip(body.outputs, body.output_types, strict=True)
    )
    target = Strided.whole(body.types[node.outputs[0]].shape).part(*window)
    assert target is not None
    views = [*translator.views, *[target] * len(results)]
    nest = collapse(translator.shape, [_steps(v) for v in views])
    unit, results_from = units(nest), len(translator.views)
    if unit is None:
        raise Untranslatable("the elements of a part do not lie side by side")
    if not all(unit[results_from:]):
        # A single element: its step does not matter.
        inner = tuple((*x[:-1], 1) for x in nest.strides[results_from:])
        nest = Nest(nest.sizes, (*nest.strides[:results_from], *inner))
    operands, offsets = tuple(translator.found), tuple(v.offset for v in views)
    return Segment(operands, tuple(translator.lines), results, nest, offsets)


def _steps(view: Strided) -> Strides:
    steps = [view.step(a) for a in range(len(view.axes))]
    if any(s is None for s in steps):
        raise Untranslatable("the elements of a part are not evenly spaced")
    return tuple(s or 0 for s in steps)


# -- call ---------------------------------------------------------------------------------
def join_call(plan: Sequence[Segment], problem: Problem, cache: KernelCache, threads: int) -> Call:
    """Compile a loop for each part and give the Call."""
    body = problem.body
    compiled: list[Any] = []
    for s in plan:
        count, nest = len(s.operands), s.nest
        steps = [x[-1] for x in nest.strides]
        outputs = [Stream(t.dtype, True) for t in body.output_types]
        streams = [Stream(o.dtype, n == 1) for o, n in zip(s.operands, steps, strict=False)]
        row = [
            "for j in range(n):",
            *indented(load_lines(range(count), streams), 1),
            *indented(s.lines, 1),
            *indented([store_line(k, t, v) for k, (v, t) in enumerate(s.results)], 1),
        ]
        kernel = cache.compile(nest_text(nest.depth, streams, outputs, row))
        constants = packed_constants(s.operands, problem, 0, LINEAR)
        compiled.append((s, kernel, nest, geometry(nest), constants))

    def bind(
        inputs: Sequence[Buffer], results: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        launches: list[Launch] = []
        for s, kernel, nest, g, constants in compiled:
            if not nest.count:
                continue
            arrays = operand_arrays(s.operands, constants, body, inputs)
            arrays += [raw(b, t.dtype) for b, t in zip(results, body.output_types, strict=True)]
            arrays = [a[o:] for a, o in zip(arrays, s.offsets, strict=True)]
            ranges = pieces(nest.sizes[0], threads)
            launches.append(together([part(kernel, a, b, g, *arrays) for a, b in ranges]))
        return in_order(launches)

    return Call(f"numba join {'+'.join(body.operator_names)}", bind)
