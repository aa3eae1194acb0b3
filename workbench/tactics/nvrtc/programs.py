"""Operators that take several kernels, or a thread for a whole line: scans, top-k, determinants."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import prod

from workbench.body import Body, Node
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.nvrtc.element_rules import elements_of
from workbench.tactics.nvrtc.elements import offset, split
from workbench.tactics.nvrtc.frame import KernelText, program_text
from workbench.tactics.nvrtc.movements import known
from workbench.tactics.nvrtc.recurrence import linear_attention
from workbench.tactics.nvrtc.scalars import stored, working, wrapped
from workbench.tactics.nvrtc.scatter import SCATTERS, scattered
from workbench.tactics.nvrtc.stages import stage, written
from workbench.tactics.nvrtc.sums import BIGGER
from workbench.tactics.scalar_text import Untranslatable

Program = Callable[[Body, Node], KernelText]


def program_kernel(body: Body) -> KernelText | Refusal:
    """The kernels of a Body anchored at one of ``PROGRAMS``."""
    node = body.anchor_node
    assert node is not None
    try:
        return PROGRAMS[node.op](body, node)
    except Untranslatable as problem:
        return Refusal(str(problem), code="operator")


# -- sums so far --------------------------------------------------------------------------
LONG = 256
"""Elements of a line beyond which it is cut into pieces, summed side by side."""
MANY = 4096
"""Lines from which on a thread takes a whole one, however long."""


def _cumulative(body: Body, node: Node) -> KernelText:
    x = body.types[node.inputs[0]]
    axis = int(known(elements_of(body, {}), node, 1)[0]) % len(x.shape)
    length, kind = x.shape[axis], working(x.dtype)
    rest = [d for a, d in enumerate(x.shape) if a != axis]
    lines = prod(rest)
    if not lines * length:
        raise Untranslatable(f"{node.op} of nothing")
    pieces = 1 if length <= LONG or lines >= MANY else math.isqrt(length)
    piece = -(-length // pieces)
    pieces = -(-length // piece)
    first = "0" if node.op == "CumSum" else "1"
    step = "acc = acc + x;" if node.op == "CumSum" else "acc = acc * x;"

    tables: list[str] = []

    def run(start: str, *, store: bool) -> list[str]:
        e = elements_of(body, {})
        e.tables = tables
        places = iter(split(e, f"(i / {pieces})" if pieces > 1 else "i", rest))
        j = f"{length - 1} - q" if node.attributes["reverse"] else "q"
        full = tuple("j" if a == axis else next(places) for a in range(len(x.shape)))
        head, e.lines = e.lines, []
        e.lines.append(f"const {kind} x = {e.at(node.inputs[0], full)};")
        load, e.lines = e.lines, []
        y = e.variable(kind, wrapped(x.dtype, "acc"))
        out = [*e.lines, *written(e, body, node, y, full)] if store else []
        order = [*out, step] if node.attributes["exclusive"] else [step, *out]
        first_q = f"(i % {pieces}) * {piece}" if pieces > 1 else "0"
        return [
            *head,
            f"{kind} acc = {start};",
            f"const idx from = {first_q};",
            f"for (idx q = from; q < from + {piece} && q < {length}; ++q) {{",
            f"const idx j = {j};",
            *load,
            *order,
            "}",
        ]

    if pieces == 1:
        return program_text(body, (stage(lines, run(first, store=True)),), tables)
    part = f"(({kind}*)workspace)"
    total = [*run(first, store=False), f"{part}[i] = acc;"]
    before = [
        f"{kind} acc = {first};",
        f"for (idx p = i * {pieces}; p < (i + 1) * {pieces}; ++p) {{",
        f"const {kind} x = {part}[p]; {part}[p] = acc; {step} }}",
    ]
    stages = (
        stage(lines * pieces, total),
        stage(lines, before),
        stage(lines * pieces, run(f"{part}[i]", store=True)),
    )
    return program_text(body, stages, tables, workspace=8 * lines * pieces)


# -- top-k --------------------------------------------------------------------------------
def _top(body: Body, node: Node) -> KernelText:
    """Each element counts those before it: n comparisons an element, of which none waits."""
    x, kind = body.types[node.inputs[0]], working(body.types[node.inputs[0]].dtype)
    if set(body.outputs) - set(node.outputs):
        raise Untranslatable("something follows TopK")
    axis = node.attributes["axis"] % len(x.shape)
    count = body.types[node.outputs[0]].shape[axis]
    e = elements_of(body, {})
    full = split(e, "i", x.shape)
    e.lines.append(f"const {kind} own = {e.at(node.inputs[0], full)};")
    rank = e.variable("idx", "0")
    with e.loops([x.shape[axis]]) as (j,):
        other = e.at(node.inputs[0], tuple(j if a == axis else p for a, p in enumerate(full)))
        keys = other, "own"
        pair = keys if node.attributes["largest"] else keys[::-1]
        earlier = f"(!beats({pair[1]}, {pair[0]}) && {j} < {full[axis]})"
        e.lines.append(f"{rank} += beats({pair[0]}, {pair[1]}) || {earlier};")
    e.lines.append(f"if ({rank} >= {count}) return;")
    place = tuple(rank if a == axis else p for a, p in enumerate(full))
    for k, o in enumerate(body.outputs):
        t = body.types[o]
        value = "own" if o == node.outputs[0] else f"(i64)({full[axis]})"
        e.lines.append(f"out{k}[{offset(t.shape, LINEAR, place)}] = {stored(t.dtype, value)};")
    return program_text(body, (stage(prod(x.shape), e.lines),), e.tables, helpers=BIGGER)


# -- determinants -------------------------------------------------------------------------
LARGEST_MATRIX = 128
"""Rows of a matrix that a thread eliminates alone."""


def _determinant(body: Body, node: Node) -> KernelText:
    """Gaussian elimination with pivots, in double; a thread a matrix, side by side in workspace."""
    x, out = (body.types[v] for v in (node.inputs[0], node.outputs[0]))
    n, count = x.shape[-1], prod(out.shape)
    if n > LARGEST_MATRIX:
        raise Untranslatable(f"a matrix of {n} rows, {LARGEST_MATRIX} are the most")

    def a(row: str, column: str) -> str:
        return f"a[({row} * {n} + {column}) * {count}]"

    e = elements_of(body, {})
    full = split(e, "i", out.shape)
    head, e.lines = e.lines, []
    e.lines.append(f"{a('r', 'c')} = {e.at(node.inputs[0], (*full, 'r', 'c'))};")
    load, e.lines = e.lines, []
    kind = working(out.dtype)
    lines = [
        *head,
        "double* const a = (double*)workspace + i; double det = 1;",
        f"for (idx r = 0; r < {n}; ++r) for (idx c = 0; c < {n}; ++c) {{",
        *load,
        "}",
        f"for (idx p = 0; p < {n}; ++p) {{",
        "  idx best = p;",
        f"  for (idx r = p + 1; r < {n}; ++r)",
        f"    if (fabs({a('r', 'p')}) > fabs({a('best', 'p')})) best = r;",
        f"  if (best != p) {{ det = -det; for (idx c = p; c < {n}; ++c) {{",
        f"    const double t = {a('p', 'c')}; {a('p', 'c')} = {a('best', 'c')};",
        f"    {a('best', 'c')} = t; }} }}",
        f"  const double pivot = {a('p', 'p')}; det *= pivot;",
        "  if (pivot == 0) break;",
        f"  for (idx r = p + 1; r < {n}; ++r) {{",
        f"    const double f = {a('r', 'p')} / pivot;",
        f"    for (idx c = p + 1; c < {n}; ++c) {a('r', 'c')} -= f * {a('p', 'c')}; }} }}",
        f"const {kind} result = ({kind})det;",
    ]
    lines += written(e, body, node, "result", full)
    space = 8 * max(1, prod(x.shape))
    return program_text(body, (stage(count, lines, 32),), e.tables, workspace=space)


# -- dynamic quantization -----------------------------------------------------------------
WIDE, NARROW = 4096, 64
"""Threads that look for the range, and those that join what they found."""


def _dynamic(body: Body, node: Node) -> KernelText:
    """The range by two levels of threads, then scale and zero point, then every element."""
    if set(body.outputs) - set(node.outputs):
        raise Untranslatable("something follows DynamicQuantizeLinear")
    x = body.types[node.inputs[0]]
    count, part = prod(x.shape), "((float*)workspace)"
    e = elements_of(body, {})
    low, high = f"{part}[2 * i]", f"{part}[2 * i + 1]"
    full = split(e, "q", x.shape)
    value = e.at(node.inputs[0], full)
    load, e.lines = e.lines, []
    seek = [
        "float low = 0, high = 0;",
        f"for (idx q = i; q < {count}; q += {WIDE}) {{",
        *load,
        f"low = min_nan(low, {value}); high = max_nan(high, {value}); }}",
        f"{low} = low; {high} = high;",
    ]
    join = [
        "float low = 0, high = 0;",
        "for (int k = {first}; k < {last}; k += {step}) {{",
        f"low = min_nan(low, {part}[2 * k]); high = max_nan(high, {part}[2 * k + 1]); }}}}",
    ]
    middle = [t.format(first="i", last=WIDE, step=NARROW) for t in join]
    middle.append(f"{part}[{2 * WIDE} + 2 * i] = low; {part}[{2 * WIDE} + 2 * i + 1] = high;")
    last = [t.format(first=WIDE, last=WIDE + NARROW, step=1) for t in join]
    last += [
        "float scale = (high - low) / 255.0f; if (scale == 0) scale = 1;",
        "const float zero = rintf(fminf(fmaxf(-low / scale, 0.0f), 255.0f));",
        f"{part}[0] = scale; {part}[1] = zero;",
    ]
    make = [f"const float scale = {part}[0], zero = {part}[1];", "const idx q = i;", *load]
    for k, o in enumerate(body.outputs):
        where = node.outputs.index(o)
        if where == 0:
            q = f"fminf(fmaxf(rintf({value} / scale) + zero, 0.0f), 255.0f)"
            make.append(f"out{k}[q] = (u8)({q});")
        else:
            last.append(f"out{k}[0] = {('scale', '(u8)zero')[where - 1]};")
    stages = (stage(WIDE, seek), stage(NARROW, middle), stage(1, last), stage(count, make))
    return program_text(body, stages, e.tables, workspace=8 * (WIDE + NARROW))


PROGRAMS: dict[str, Program] = {
    **dict.fromkeys(("CumSum", "CumProd"), _cumulative),
    "TopK": _top,
    "Det": _determinant,
    "LinearAttention": linear_attention,
    "DynamicQuantizeLinear": _dynamic,
    **dict.fromkeys(SCATTERS, scattered),
}
"""By anchor."""
