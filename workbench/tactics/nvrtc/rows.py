"""Kernels that reduce rows: softmax, normalization, reduction, with what comes before and after.

A row is what the anchor reduces over. Its elements stay in registers, spread over the threads of a
warp or a block; a long row is read by one block or several, once for each value of the whole row.
Sums are made in a fixed order, so every kernel here is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from workbench.body import Body, Node
from workbench.records import Refusal
from workbench.tactics.nvrtc.element_rules import elements_of
from workbench.tactics.nvrtc.elements import Elements, Index, split
from workbench.tactics.nvrtc.frame import (
    KernelText,
    Stage,
    kernel_text,
    program_text,
    vector_widths,
)
from workbench.tactics.nvrtc.row_families import FAMILIES, HELPERS, Changed, Family, Joined, Step
from workbench.tactics.nvrtc.row_loops import (
    PER_CHANNEL,
    Shape,
    held,
    pass_over,
    reduced,
    seen_shape,
    written,
)
from workbench.tactics.nvrtc.scalars import INTEGERS, stored, working
from workbench.tactics.scalar_text import Untranslatable

KEPT = 64
"""Elements of a row that a thread keeps in registers."""
BLOCK = 128
LONG = 1 << 15
"""Elements from which on a row is also read by several blocks."""
LONG_BLOCK = 256
PARTS = (1, 4, 16, 64, 256, 1024)
"""Blocks that share a long row."""
LEAST_PART = 2048
"""Elements of a long row that a block has at least."""
BLOCKS_WANTED = 264
"""Two for each multiprocessor of a large GPU."""
PLACES = frozenset({"ArgMax", "ArgMin"})
"""They ask which element equals the largest: it has to be the very number that was the largest."""
PARTIAL_BYTES = 8


def row_shapes(body: Body) -> tuple[Shape, ...] | Refusal:
    """The ways to spread the rows of a Body over threads, best guess first."""
    node = body.anchor_node
    assert node is not None
    shape = seen_shape(node, body.types[node.inputs[0]].shape)
    rank = len(shape)
    axes = _axes(body, node, rank)
    if isinstance(axes, Refusal):
        return axes
    length = prod(shape[a] for a in axes)
    if not length:
        return Refusal("its rows are empty", code="empty")
    rows = prod(shape) // length
    trailing = axes == tuple(range(rank - len(axes), rank))
    kinds = [i.type.dtype for i in body.inputs] + [t.dtype for t in body.output_types]
    found: list[Shape] = []
    for lanes in (32, 128, 256, 1024, 8, 1):
        for vector in vector_widths(kinds, length) if trailing else (1,):
            s = Shape(axes, length, rows, trailing, lanes, vector)
            if s.chunks * vector <= KEPT and (lanes <= 32 or lanes * vector < 2 * length):
                found.append(s)
    # As many threads as leave each a few elements.
    wanted = max(1, length // 16)
    found.sort(key=lambda s: (abs(_log(s.lanes) - _log(wanted)), -s.vector))
    if length >= LONG and (node.op not in PLACES or node.inputs[0] in _given(body)):
        widest = vector_widths(kinds, length)[0] if trailing else 1
        long = [
            Shape(axes, length, rows, trailing, LONG_BLOCK, widest, parts)
            for parts in PARTS
            if parts == 1 or length >= parts * LEAST_PART
        ]
        long.sort(key=lambda s: abs(_log(s.parts) - _log(max(1, BLOCKS_WANTED // rows))))
        found = [*long, *found] if rows < BLOCKS_WANTED else [*found, *long]
    if not found:
        return Refusal(f"a row has {length} elements, {1024 * KEPT} are the most", code="length")
    return tuple(found)


def _given(body: Body) -> set[str]:
    return {i.name for i in body.inputs}


def _log(n: int) -> float:
    return float(n.bit_length())


def _axes(body: Body, node: Node, rank: int) -> tuple[int, ...] | Refusal:
    if node.op in ("Softmax", "LogSoftmax", "LpNormalization", "ArgMax", "ArgMin"):
        return (node.attributes["axis"] % rank,)
    if node.op in ("LayerNormalization", "RMSNormalization"):
        return tuple(range(node.attributes["axis"] % rank, rank))
    if node.op.startswith("Global") or node.op in PER_CHANNEL:
        return tuple(range(2, rank))
    if len(node.inputs) > 1 and node.inputs[1]:
        values = elements_of(body, {}).literal(node.inputs[1])
        if values is None:
            return Refusal("its axes are not known", code="operand")
        if values:
            return tuple(sorted(int(v) % rank for v in values))
    if node.attributes.get("noop_with_empty_axes"):
        return Refusal("it reduces nothing", code="axes")
    return tuple(range(rank))


def rows_kernel(body: Body, shape: Shape) -> KernelText | Refusal:
    """The kernel of one way to spread the rows."""
    try:
        rows = _rows_of(body, shape)
        return _long(rows) if shape.parts else _kept(rows)
    except Untranslatable as problem:
        return Refusal(str(problem), code="operator")


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of a Body: what is computed of them, and where they lie.

    kind: C type of the elements. outer: coordinates of a row along the axes that are not reduced.
    moments: LayerNormalization's further outputs, by what they are called here.
    """

    body: Body
    s: Shape
    node: Node
    family: Family
    kind: str
    e: Elements
    outer: dict[int, str]
    moments: dict[str, str]

    @property
    def steps(self) -> list[Step]:
        return self.family.prepare(self.node, self.kind, self.s.length)

    def load(self, full: Index) -> str:
        """The statement that reads an element."""
        return f"a[u] = {self.e.at(self.node.inputs[0], full)};"

    def results(self, changed: Sequence[str] = ()) -> list[str]:
        """What is written once all values of the whole row are known.

        changed: what makes another element of each that is read, where they are not kept.
        """
        body, s, node, e = self.body, self.s, self.node, self.e
        first = "lane == 0 && part == 0" if s.parts else "lane == 0"
        lines = [
            f"if ({first}) out{k}[row] = {stored(body.output_types[k].dtype, self.moments[o])};"
            for k, o in enumerate(body.outputs)
            if o in self.moments
        ]
        result = self.family.result.format(n=s.length)
        if self.family.reduces:
            kind, rank = self.family.kind or self.kind, len(body.types[node.inputs[0]].shape)
            return lines + reduced(e, node, s, self.outer, kind, result, rank)
        own = [k for k, o in enumerate(body.outputs) if o not in self.moments]
        if not s.parts:
            return lines + written(e, node, s, self.outer, self.kind, result, own)

        def load(full: Index) -> list[str]:
            return [self.load(full), *changed]

        return lines + written(e, node, s, self.outer, self.kind, result, own, load)


def _rows_of(body: Body, s: Shape) -> _Rows:
    node = body.anchor_node
    assert node is not None
    family = FAMILIES[node.op]
    x = body.types[node.inputs[0]]
    moments = dict[str, str](zip(node.outputs[1:], ("mean", "spread"), strict=False))
    if any(o and (_is_read(body, o) or node.op != "LayerNormalization") for o in moments):
        raise Untranslatable(f"{node.op} gives {len(node.outputs)} outputs")
    kind = working(x.dtype)
    if kind == "bool" and node.op in ("ReduceMax", "ReduceMin"):
        kind = "i64"
    if kind == "bool" or (kind in INTEGERS and not family.reduces):
        raise Untranslatable(f"{node.op} of {x.dtype.value}")
    e = elements_of(body, {})
    seen = seen_shape(node, x.shape)
    kept = [a for a in range(len(seen)) if a not in s.axes]
    outer = dict(zip(kept, split(e, "row", [seen[a] for a in kept]), strict=True))
    return _Rows(body, s, node, family, kind, e, outer, moments)


def _is_read(body: Body, name: str) -> bool:
    return any(name in n.inputs for n in body.nodes)


# -- rows in registers --------------------------------------------------------------------
def _kept(r: _Rows) -> KernelText:
    s, e = r.s, r.e
    group = max(1, BLOCK // s.lanes)
    lines = [
        f"const int lane = threadIdx.x % {s.lanes};",
        f"const idx row = (idx)blockIdx.x * {group} + threadIdx.x / {s.lanes};",
        f"if (row >= {s.rows}) return;",
        *e.lines,
        f"{r.kind} a[{s.chunks * s.vector}];",
        *pass_over(e, s, r.node, r.outer, lambda full: [r.load(full)]),
        *(line for step in r.steps for line in _over_kept(step, s)),
        *r.results(),
    ]
    return kernel_text(
        r.body,
        lines,
        e.tables,
        blocks=-(-s.rows // group),
        threads=s.lanes * group,
        vector=s.vector,
        helpers=HELPERS,
    )


def _over_kept(step: Step, s: Shape) -> list[str]:
    """A step over what a thread keeps: vectors beyond the row are left out."""
    if isinstance(step, str):
        return [step]
    text = step.text if isinstance(step, Changed) else f"{step.name} = {step.join};"
    loop = [
        f'_Pragma("unroll") for (int k = 0; k < {s.chunks}; ++k) '
        f"if ((k * {s.lanes} + lane) * {s.vector} < {s.length}) "
        f"for (int t = 0; t < {s.vector}; ++t) {{ const int u = {s.number}; "
        f"const idx j = (k * {s.lanes} + lane) * {s.vector} + t; {text} }}"
    ]
    if isinstance(step, Changed):
        return loop
    return [f"{step.kind} {step.name} = {step.start};", *loop, _across(step, s)]


def _across(step: Joined, s: Shape) -> str:
    """A value of each thread's elements made that of all."""
    return f"{step.name} = across<{s.lanes}, {step.how}>({step.name});"


# -- long rows ----------------------------------------------------------------------------
def _long(r: _Rows) -> KernelText:
    """A kernel for each value of the whole row, and one for the results.

    A block joins its part, and the kernels that follow join the parts, all in the same order. A
    block that has a row for itself needs one kernel.
    """
    s, steps = r.s, r.steps
    ends = [k for k, step in enumerate(steps) if isinstance(step, Joined)]
    if s.parts == 1:
        lines = [line for k in range(len(steps)) for line in _over_part(r, steps[: k + 1])]
        stages = [Stage([*_head(r, s.parts), *lines, *r.results(_changes(steps))], s.rows, s.lanes)]
        return program_text(r.body, stages, r.e.tables, vector=s.vector, helpers=HELPERS)
    stages = list[Stage]()
    for number, k in enumerate(ends):
        step = steps[k]
        assert isinstance(step, Joined)
        place = _partial(r, step.kind, number)
        lines = [
            *_head(r, s.parts),
            *_from_parts(r, steps[:k]),
            *_over_part(r, steps[: k + 1]),
            f"if (lane == 0) {place}[row * {s.parts} + part] = {step.name};",
        ]
        stages.append(Stage(lines, s.rows * s.parts, s.lanes))
    parts = 1 if r.family.reduces else s.parts
    lines = [*_head(r, parts), *_from_parts(r, steps), *r.results(_changes(steps))]
    stages.append(Stage(lines, s.rows * parts, s.lanes))
    space = len(ends) * s.rows * s.parts * PARTIAL_BYTES
    return program_text(
        r.body, stages, r.e.tables, vector=s.vector, helpers=HELPERS, workspace=space
    )


def _head(r: _Rows, parts: int) -> list[str]:
    """Which row a block is for, and which part of it. The block is as large as it has lanes."""
    return [
        "const int lane = threadIdx.x;",
        f"const idx row = blockIdx.x / {parts}; const int part = blockIdx.x % {parts};",
        *r.e.lines,
    ]


def _changes(steps: Sequence[Step]) -> list[str]:
    return [step.text for step in steps if isinstance(step, Changed)]


def _over_part(r: _Rows, steps: Sequence[Step]) -> list[str]:
    """The last of some steps over a block's part of the row, which it reads."""
    *before, step = steps
    if isinstance(step, str):
        return [step]
    if isinstance(step, Changed):
        return []

    def element(full: Index) -> list[str]:
        return [r.load(full), *_changes(before), f"{step.name} = {step.join};"]

    return [
        f"{step.kind} {step.name} = {step.start};",
        *pass_over(r.e, r.s, r.node, r.outer, element, before=held(r.s, r.kind)),
        _across(step, r.s),
    ]


def _from_parts(r: _Rows, steps: Sequence[Step]) -> list[str]:
    """What steps made of the whole row, from what earlier kernels left of its parts."""
    s, lines, number = r.s, list[str](), 0
    for step in steps:
        if isinstance(step, str):
            lines.append(step)
        elif isinstance(step, Joined):
            place = _partial(r, step.kind, number)
            number += 1
            other = f"{place}[row * {s.parts} + p]"
            lines += [
                f"{step.kind} {step.name} = {step.start};",
                f"for (int p = lane; p < {s.parts}; p += {s.lanes}) "
                f"{step.name} = {step.how}<{step.kind}>::join({step.name}, {other});",
                _across(step, s),
            ]
    return lines


def _partial(r: _Rows, kind: str, number: int) -> str:
    """Where the parts' values of one step lie."""
    offset = number * r.s.rows * r.s.parts * PARTIAL_BYTES
    return f"(({kind}*)((char*)workspace + {offset}))"
