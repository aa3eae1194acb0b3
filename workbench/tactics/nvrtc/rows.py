"""Kernels that reduce rows: softmax, normalization, reduction, with what comes before and after.

A row is what the anchor reduces over. Its elements stay in registers, spread over the threads of a
warp or a block; sums are made in a fixed order, so every kernel here is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from workbench.body import Body, Node
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.nvrtc.element_rules import elements_of
from workbench.tactics.nvrtc.elements import Elements, Index, offset, split
from workbench.tactics.nvrtc.frame import (
    KernelText,
    declare_vector,
    kernel_text,
    load_vector,
    store_element,
    store_vector,
    vector_widths,
)
from workbench.tactics.nvrtc.row_families import FAMILIES, HELPERS
from workbench.tactics.nvrtc.scalars import INTEGERS, stored, working
from workbench.tactics.scalar_text import Untranslatable

KEPT = 64
"""Elements of a row that a thread keeps in registers."""
BLOCK = 128
PER_CHANNEL = frozenset({"InstanceNormalization", "GroupNormalization"})
"""Normalizations whose scale and bias are one number a channel."""


@dataclass(frozen=True)
class Shape:
    """The rows of a Body. axes: reduced ones. lanes: threads a row. vector: elements at once."""

    axes: tuple[int, ...]
    length: int
    rows: int
    trailing: bool
    lanes: int = 32
    vector: int = 1

    @property
    def chunks(self) -> int:
        """Vectors of a row that a thread takes."""
        return -(-self.length // (self.lanes * self.vector))


def row_shapes(body: Body) -> tuple[Shape, ...] | Refusal:
    """The ways to spread the rows of a Body over threads, best guess first."""
    node = body.anchor_node
    assert node is not None
    shape = _seen(node, body.types[node.inputs[0]].shape)
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
    if not found:
        return Refusal(f"a row has {length} elements, {1024 * KEPT} are the most", code="length")
    # As many threads as leave each a few elements.
    wanted = max(1, length // 16)
    return tuple(sorted(found, key=lambda s: (abs(_log(s.lanes) - _log(wanted)), -s.vector)))


def _log(n: int) -> float:
    return float(n.bit_length())


def _seen(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The operand's shape, in which groups of channels have an axis."""
    groups = node.attributes["num_groups"] if node.op == "GroupNormalization" else 0
    return (shape[0], groups, shape[1] // groups, *shape[2:]) if groups else shape


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
        return _rows(body, shape)
    except Untranslatable as problem:
        return Refusal(str(problem), code="operator")


def _rows(body: Body, s: Shape) -> KernelText:
    node = body.anchor_node
    assert node is not None
    family = FAMILIES[node.op]
    x = body.types[node.inputs[0]]
    moments = dict(zip(node.outputs[1:], ("mean", "spread"), strict=False))
    if any(o and (_is_read(body, o) or node.op != "LayerNormalization") for o in moments):
        raise Untranslatable(f"{node.op} gives {len(node.outputs)} outputs")
    kind = working(x.dtype)
    if kind == "bool" and node.op in ("ReduceMax", "ReduceMin"):
        kind = "i64"
    if kind == "bool" or (kind in INTEGERS and not family.reduces):
        raise Untranslatable(f"{node.op} of {x.dtype.value}")
    e = elements_of(body, {})
    seen = _seen(node, x.shape)
    kept = [a for a in range(len(seen)) if a not in s.axes]
    outer = dict(zip(kept, split(e, "row", [seen[a] for a in kept]), strict=True))
    group = max(1, BLOCK // s.lanes)
    lines = [
        f"const int lane = threadIdx.x % {s.lanes};",
        f"const idx row = (idx)blockIdx.x * {group} + threadIdx.x / {s.lanes};",
        f"if (row >= {s.rows}) return;",
        *e.lines,
        f"{kind} a[{s.chunks * s.vector}];",
        *_pass(e, s, node, outer, lambda full: [f"a[u] = {e.at(node.inputs[0], full)};"]),
        *_expanded(family.prepare(node, kind, s.length), s),
    ]
    for k, o in enumerate(body.outputs):
        if o in moments:
            value = stored(body.output_types[k].dtype, moments[o])
            lines.append(f"if (lane == 0) out{k}[row] = {value};")
    result = family.result.format(n=s.length)
    if family.reduces:
        lines += _reduced(e, node, s, outer, family.kind or kind, result, len(x.shape))
    else:
        written = [k for k, o in enumerate(body.outputs) if o not in moments]
        lines += _written(e, node, s, outer, kind, result, written)
    return kernel_text(
        body,
        lines,
        e.tables,
        blocks=-(-s.rows // group),
        threads=s.lanes * group,
        vector=s.vector,
        helpers=HELPERS,
    )


def _is_read(body: Body, name: str) -> bool:
    return any(name in n.inputs for n in body.nodes)


def _expanded(lines: Sequence[str], s: Shape) -> list[str]:
    """Loops over what a thread keeps: vectors beyond the row are left out."""
    loop = (
        f"for (int k = 0; k < {s.chunks}; ++k) "
        f"if ((k * {s.lanes} + lane) * {s.vector} < {s.length}) "
        f"for (int t = 0; t < {s.vector}; ++t)"
    )
    return [
        f'_Pragma("unroll") {line}'.replace(
            "FOR_KEPT {", f"{loop} {{ const int u = k * {s.vector} + t; "
        )
        if "FOR_KEPT" in line
        else line
        for line in (
            t.replace("LANES", str(s.lanes)).replace("VECTOR", str(s.vector)) for t in lines
        )
    ]


def _pass(
    e: Elements,
    s: Shape,
    node: Node,
    outer: dict[int, str],
    element: Callable[[Index], list[str]],
    after: Sequence[str] = (),
    before: Sequence[str] = (),
) -> list[str]:
    """A loop over the row: ``element`` is written for each, at its full coordinates."""
    own = e.body.types[node.inputs[0]].shape
    shape = _seen(node, own)
    kept_lines = e.lines
    e.begin()
    inner = split(e, "j", [shape[a] for a in s.axes])
    if len(s.axes) == 1:
        inner = ("j",)
    where = dict(zip(s.axes, inner, strict=True))
    full = tuple("0" if d == 1 else {**outer, **where}[a] for a, d in enumerate(shape))
    if shape != own:
        channel = e.variable("const idx", f"({full[1]}) * {shape[2]} + ({full[2]})")
        full = (full[0], channel, *full[3:])
        loads = list[str]()
    else:
        loads = [_vector(e, s, name, full, shape) for name in _vectors(e.body, s, shape)]
    ready = dict(e.ready)
    body = element(full)
    text = [
        '_Pragma("unroll")',
        f"for (int k = 0; k < {s.chunks}; ++k) {{",
        f"const idx j0 = (k * {s.lanes} + lane) * {s.vector};",
        f"if (j0 < {s.length}) {{",
        *loads,
        *before,
        '_Pragma("unroll")',
        f"for (int t = 0; t < {s.vector}; ++t) {{",
        f"const int u = k * {s.vector} + t; const idx j = j0 + t;",
        *e.lines,
        *body,
        "}",
        *after,
        "} }",
    ]
    for name in ready:
        e.ready.pop(name, None)
    e.lines = kept_lines
    return text


def _vectors(body: Body, s: Shape, shape: tuple[int, ...]) -> list[str]:
    """Body inputs of which a whole vector lies side by side: they have all of a row's axes."""
    if s.vector == 1:
        return []
    own = shape[min(s.axes) :]
    return [i.name for i in body.inputs if i.type.shape[-len(own) :] == own and prod(own) > 1]


def _vector(e: Elements, s: Shape, name: str, full: Index, shape: tuple[int, ...]) -> str:
    type_ = e.body.types[name]
    rank, inner = len(type_.shape), len(s.axes)
    aligned = full[len(full) - rank :]
    index = tuple("0" if d == 1 else i for d, i in zip(type_.shape, aligned, strict=True))
    flat = (*type_.shape[: rank - inner], s.length)
    at = offset(flat, LINEAR, (*index[: rank - inner], "j0"))
    return load_vector(e, name, at, s.vector, index)


def _written(
    e: Elements,
    node: Node,
    s: Shape,
    outer: dict[int, str],
    kind: str,
    result: str,
    outputs: Sequence[int],
) -> list[str]:
    """The anchor's result element by element, and what follows; ``outputs``: of the rows' shape."""
    body, shape = e.body, e.body.types[node.inputs[0]].shape
    if any(body.output_types[k].shape != shape for k in outputs):
        raise Untranslatable("an output has another shape than the rows")

    def element(full: Index) -> list[str]:
        y = f"({kind})({result})"
        if node.op.endswith("Normalization"):
            own = [
                e.at(v, (full[1],)) if node.op in PER_CHANNEL else e.broadcast(v, full)
                for v in node.inputs[1:]
                if v
            ]
            if own:
                y = f"({y} * {own[0]}{f' + {own[1]}' if len(own) > 1 else ''})"
        y = e.variable(kind, y)
        e.ready[node.outputs[0]] = lambda asked: y if asked == full else None
        lines = [store_element(body, k, e.at(body.outputs[k], full)) for k in outputs]
        if not s.trailing:
            lines += [f"out{k}[{offset(shape, LINEAR, full)}] = y{k}.v[t];" for k in outputs]
        return lines

    at = f"(idx)row * {s.length} + j0"
    return _pass(
        e,
        s,
        node,
        outer,
        element,
        [store_vector(body, k, at, s.vector) for k in outputs] if s.trailing else (),
        [declare_vector(body, k, s.vector) for k in outputs],
    )


def _reduced(
    e: Elements, node: Node, s: Shape, outer: dict[int, str], kind: str, result: str, rank: int
) -> list[str]:
    body = e.body
    written = body.types[node.outputs[0]].shape
    if len(written) == rank:
        index = tuple(outer.get(a, "0") for a in range(rank))
    else:
        index = tuple(outer[a] for a in range(rank) if a in outer)
    if any(t.shape != written for t in body.output_types):
        raise Untranslatable("an output has another shape than the reduction's")
    kept_lines = e.lines
    e.begin()
    y = e.variable(kind, f"({kind})({result})")
    e.ready[node.outputs[0]] = lambda asked: y if asked == index else None
    for k, o in enumerate(body.outputs):
        value = stored(body.output_types[k].dtype, e.at(o, index))
        e.lines.append(f"out{k}[{offset(written, LINEAR, index)}] = {value};")
    text = ["if (lane == 0) {", *e.lines, "}"]
    e.lines = kept_lines
    return text
