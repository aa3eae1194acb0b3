"""Kernels that work on rows: softmax, normalization, reduction; with what comes before and after.

A row is what the anchor reduces over: the innermost axes. It is kept in float32 scratch, so that
a pointwise prologue (scale, mask, residual) is computed once and an epilogue costs no pass of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.body import CONSTANT, Body, Node
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.arithmetic import is_reduced
from workbench.tactics.native import in_order, nothing
from workbench.tactics.numba.cache import KernelCache
from workbench.tactics.numba.calls import operand_arrays, packed_constants, part, raw
from workbench.tactics.numba.expressions import Operand, Translator
from workbench.tactics.numba.lookups import (
    Lookup,
    RowTranslator,
    checked_index,
    row_streams,
)
from workbench.tactics.numba.loops import Nest, broadcast_strides, collapse
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


@dataclass(frozen=True, eq=False)
class RowPlan:
    """The code of one row, and the loops around it."""

    operands: tuple[Operand, ...]
    row: tuple[str, ...]
    nest: Nest
    reduces: bool
    lookups: tuple[Lookup, ...]


@dataclass(frozen=True)
class _Row:
    """What a family's code sees: how to write a loop before and after the reduction."""

    node: Node
    body: Body
    before: Translator
    after: Translator

    def reading(self) -> list[str]:
        """The loop that fills the scratch row t."""
        x = self.before.value(self.node.inputs[0]).text
        return _loop(self.before, [f"t[j] = {x}"])

    def reducing(self, element: str, before: Sequence[str], result: str) -> list[str]:
        """The code of a reduction: ``element`` of each x is kept, then finished once a row."""
        x = self.before.value(self.node.inputs[0]).text
        self.after.lines.append(f"y = float32({result})")
        self.after.define(self.node.outputs[0], "y")
        stores = [
            store_line(k, t.dtype, self.after.value(o).text).replace(f"q{k}[j]", f"o{k}[p_o{k}]")
            for k, (o, t) in enumerate(zip(self.body.outputs, self.body.output_types, strict=True))
        ]
        reads = " ".join(map(str, self.after.reads))
        loop = _loop(self.before, [f"t[j] = {element.format(x=x)}"])
        return [*loop, *before, f"<loads {reads}>", *self.after.lines, *stores]

    def writing(self, y: str, extra: Sequence[str] = ()) -> list[str]:
        """The loop that stores every output, where y is the anchor's result at j."""
        self.after.lines.append(f"y = float32({y})")
        self.after.define(self.node.outputs[0], "y")
        stores = [
            store_line(k, t.dtype, self.after.value(o).text)
            for k, (o, t) in enumerate(zip(self.body.outputs, self.body.output_types, strict=True))
        ]
        return _loop(self.after, [*extra, *stores])


def _loop(section: Translator, last: Sequence[str]) -> list[str]:
    # Loads are written when the kernel's streams are known.
    reads = " ".join(map(str, section.reads))
    return ["for j in range(n):", f"    <loads {reads}>", *indented([*section.lines, *last], 1)]


# -- families -----------------------------------------------------------------------------
def _softmax(r: _Row) -> list[str]:
    return [
        *r.reading(),
        "m = row_max(t, n)",
        "for j in range(n):",
        "    t[j] = exp_f32(t[j] - m)",
        "c = float32(1.0) / row_sum(t, n)",
        *r.writing("t[j] * c"),
    ]


def _log_softmax(r: _Row) -> list[str]:
    return [
        *r.reading(),
        "m = row_max(t, n)",
        "c = m + float32(math.log(row_exp_sum(t, n, m)))",
        *r.writing("t[j] - c"),
    ]


def _layer_norm(r: _Row) -> list[str]:
    inputs = r.node.inputs
    epsilon = f"float32({float(r.node.attributes['epsilon'])!r})"
    scale = r.after.value(inputs[1]).text
    bias = f" + {r.after.value(inputs[2]).text}" if len(inputs) > 2 and inputs[2] else ""
    return [
        *r.reading(),
        "m = row_sum(t, n) / float32(n)",
        "v = row_centered_square_sum(t, n, m) / float32(n)",
        f"c = float32(1.0) / sqrt(v + {epsilon})",
        *r.writing(f"(t[j] - m) * c * {scale}{bias}"),
    ]


def _rms_norm(r: _Row) -> list[str]:
    epsilon = f"float32({float(r.node.attributes['epsilon'])!r})"
    scale = r.after.value(r.node.inputs[1]).text
    return [
        *r.reading(),
        "v = row_centered_square_sum(t, n, float32(0.0)) / float32(n)",
        f"c = float32(1.0) / sqrt(v + {epsilon})",
        *r.writing(f"t[j] * c * {scale}"),
    ]


@dataclass(frozen=True)
class _Reduction:
    """What is kept of each element x, what is computed of the row t[0:n], and its result."""

    result: str
    element: str = "{x}"
    before: tuple[str, ...] = ()


REDUCTIONS: dict[str, _Reduction] = {
    "ReduceL1": _Reduction("row_sum(t, n)", "abs({x})"),
    "ReduceL2": _Reduction("sqrt(row_centered_square_sum(t, n, float32(0.0)))"),
    "ReduceLogSumExp": _Reduction(
        "c + math.log(row_exp_sum(t, n, c))",
        before=("m = row_max(t, n)", "c = m if abs(m) < float32(inf) else float32(0.0)"),
    ),
    "ReduceMax": _Reduction("row_max(t, n)"),
    "ReduceMean": _Reduction("row_sum(t, n) / float32(n)"),
    "ReduceMin": _Reduction("-row_max(t, n)", "-{x}"),
    "ReduceSum": _Reduction("row_sum(t, n)"),
    "ReduceSumSquare": _Reduction("row_centered_square_sum(t, n, float32(0.0))"),
}


class _PerRow(Translator):
    """Code that runs once a row: its operands have no extent along the row's ``axes``."""

    def __init__(self, body: Body, operands: list[Operand], axes: int) -> None:
        super().__init__(body, operands)
        self.axes = axes

    def operand(self, name: str, shape: tuple[int, ...]) -> Value:
        return super().operand(name, (*shape, *(1,) * self.axes))


FAMILIES: dict[str, Callable[[_Row], list[str]]] = {
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
}

ANCHORS = frozenset({*FAMILIES, *REDUCTIONS})
"""Operators that anchor a row kernel."""


# -- plan ---------------------------------------------------------------------------------
def plan_rows(body: Body) -> RowPlan | Refusal:
    """How to run a Body anchored at a row operator, on linear tensors."""
    node = body.anchor_node
    if node is None or node.op not in ANCHORS:
        return Refusal("no row operator anchors it", code="not_rows")
    x = body.types[node.inputs[0]]
    if x.dtype not in STORAGE or not (x.dtype is DataType.FLOAT or is_reduced(x.dtype)):
        return Refusal(f"{node.op} of {x.dtype} is not computed in float32", code="type")
    axis = _first_axis(node, body)
    if axis is None:
        return Refusal(f"{node.op} does not reduce over the innermost axes", code="axes")
    reduces = node.op in REDUCTIONS
    if any(t.shape != x.shape for t in body.output_types) and not reduces:
        return Refusal("an output has another shape than the rows", code="output_shapes")
    written = body.types[node.outputs[0]].shape
    if reduces and any(t.shape != written for t in body.output_types):
        return Refusal("an output has another shape than the reduction's", code="output_shapes")
    if reduces and 0 in x.shape[axis:]:
        return Refusal("its rows are empty", code="empty")
    if any(o in _all_reads(body) or o in body.outputs for o in node.outputs[1:]):
        return Refusal(f"{node.op} gives {len(node.outputs)} outputs", code="outputs")
    operands: list[Operand] = []
    kept = len(written) == len(x.shape)
    inner = x.shape[axis:]
    before, after = (RowTranslator(body, operands, inner) for _ in range(2))
    once = _PerRow(body, operands, 0 if kept else len(inner)) if reduces else None
    row = _Row(node, body, before, once or after)
    try:
        lines = _reduction(row) if reduces else FAMILIES[node.op](row)
    except Untranslatable as e:
        return Refusal(str(e), code="not_pointwise")
    nest = _row_nest(body, operands, x.shape, axis, reduces=reduces)
    if isinstance(nest, Refusal):
        return nest
    lookups = tuple({**before.lookups, **after.lookups})
    return RowPlan(tuple(operands), tuple(lines), nest, reduces, lookups)


def _all_reads(body: Body) -> set[str]:
    return {v for n in body.nodes for v in n.inputs}


def _reduction(r: _Row) -> list[str]:
    how = REDUCTIONS[r.node.op]
    return r.reducing(how.element, how.before, how.result)


def _first_axis(node: Node, body: Body) -> int | None:
    """First of the innermost axes that the node reduces over; None for other axes."""
    rank = len(body.types[node.inputs[0]].shape)
    if node.op not in REDUCTIONS:
        axis = node.attributes["axis"] % rank
        return axis if node.op.endswith("Normalization") or axis == rank - 1 else None
    axes = _axes_of(node, body, rank)
    if axes is None or sorted(axes) != list(range(rank - len(axes), rank)):
        return None
    return rank - len(axes)


def _axes_of(node: Node, body: Body, rank: int) -> list[int] | None:
    if len(node.inputs) < 2 or not node.inputs[1]:
        return list(range(rank)) if not node.attributes.get("noop_with_empty_axes") else None
    producer = next((n for n in body.nodes if node.inputs[1] in n.outputs), None)
    if producer is None or producer.operator is not CONSTANT:
        return None
    return [int(a) % rank for a in producer.attributes["value"].values] or None


def _row_nest(
    body: Body, operands: Sequence[Operand], shape: tuple[int, ...], axis: int, *, reduces: bool
) -> Nest | Refusal:
    rank = len(shape)
    strides = [broadcast_strides(o.shape, rank) for o in operands]
    full = broadcast_strides(shape, rank)
    for _ in body.outputs:
        if reduces:
            strides.append((*broadcast_strides(shape[:axis], axis), *(0,) * (rank - axis)))
        else:
            strides.append(full)
    outer = collapse(shape[:axis], [s[:axis] for s in strides])
    inner = collapse(shape[axis:], [s[axis:] for s in strides])
    if inner.depth != 1:
        return Refusal("an operand is broadcast within the rows", code="strides")
    steps = [s[0] for s in inner.strides]
    if inner.sizes[0] == 1 and not reduces:
        count = len(body.outputs)
        steps = [0] * (len(steps) - count) + [1] * count
    return Nest(
        (*outer.sizes, *inner.sizes),
        tuple((*o, s) for o, s in zip(outer.strides, steps, strict=True)),
    )


# -- call ---------------------------------------------------------------------------------
def rows_call(plan: RowPlan, problem: Problem, cache: KernelCache, threads: int) -> Call | Refusal:
    """Compile a plan and give its Call."""
    body, nest = problem.body, plan.nest
    unit = units(nest)
    if unit is None:
        return Refusal("an operand is neither contiguous nor broadcast", code="strides")
    count = len(plan.operands)
    streams = row_streams(plan.operands, plan.lookups, unit[:count])
    outputs = [Stream(t.dtype, u) for t, u in zip(body.output_types, unit[count:], strict=True)]
    row = _with_loads(plan.row, streams)
    kernel = cache.compile(nest_text(nest.depth, streams, outputs, row, scratch=True))
    g = geometry(nest)
    constants = packed_constants(plan.operands, problem, 0, LINEAR)
    ranges = pieces(nest.sizes[0], threads)
    length = -(-nest.sizes[-1] // 16) * 16

    def bind(
        inputs: Sequence[Buffer], results: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        if nest.count == 0:
            return nothing
        assert workspace is not None
        arrays = operand_arrays(plan.operands, constants, body, inputs)
        looked_up = [checked_index(plan.operands, x, arrays) for x in plan.lookups]
        arrays += [raw(b, t.dtype) for b, t in zip(results, body.output_types, strict=True)]
        scratch = raw(workspace, DataType.FLOAT)
        computed = together(
            [
                part(kernel, a, b, g, *arrays, scratch[k * length : (k + 1) * length])
                for k, (a, b) in enumerate(ranges)
            ]
        )
        return in_order([*looked_up, computed])

    return Call(
        f"numba rows {'+'.join(body.operator_names)}",
        bind,
        max(1, len(ranges) * length) * 4,
        packed={plan.operands[k].name: v for k, v in constants.items()},
    )


def _with_loads(row: Sequence[str], streams: Sequence[Stream]) -> list[str]:
    lines: list[str] = []
    for line in row:
        text = line.strip()
        if text.startswith("<loads"):
            reads = [int(k) for k in text[6:-1].split()]
            lines += indented(load_lines(reads, streams), (len(line) - len(text)) // 4)
        else:
            lines.append(line)
    return lines
