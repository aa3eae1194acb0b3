"""Loops over rows: of elements that are kept in registers, or of a block's part, read each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from workbench.body import Body, Node
from workbench.formats import LINEAR
from workbench.tactics.nvrtc.elements import Elements, Index, offset, split
from workbench.tactics.nvrtc.frame import (
    declare_vector,
    load_vector,
    store_element,
    store_vector,
)
from workbench.tactics.nvrtc.scalars import stored
from workbench.tactics.scalar_text import Untranslatable

PER_CHANNEL = frozenset({"InstanceNormalization", "GroupNormalization"})
"""Normalizations whose scale and bias are one number a channel."""
Each = Callable[[Index], list[str]]
"""Statements on an element, at its full coordinates."""


@dataclass(frozen=True)
class Shape:
    """The rows of a Body. axes: reduced ones. lanes: threads a row. vector: elements at once.

    parts: blocks that share a row, each reading its part for every value of the whole row; 0 where
    a row's threads read it once, into registers.
    """

    axes: tuple[int, ...]
    length: int
    rows: int
    trailing: bool
    lanes: int = 32
    vector: int = 1
    parts: int = 0

    @property
    def chunks(self) -> int:
        """Vectors of a row that a thread takes."""
        return -(-self.length // (self.lanes * self.vector))

    @property
    def span(self) -> int:
        """Elements of a row that each of several blocks reads; the last ones may find fewer."""
        step = self.lanes * self.vector
        return -(-self.length // (max(1, self.parts) * step)) * step

    @property
    def loop(self) -> list[str]:
        """The head of a thread's loop over its vectors of a row, of which ``j0`` is the first."""
        if self.parts:
            return [
                '_Pragma("unroll 4")',
                f"for (idx k = lane; k < {self.span // self.vector}; k += {self.lanes}) {{",
                f"const idx j0 = (idx)part * {self.span} + k * {self.vector};",
            ]
        return [
            '_Pragma("unroll")',
            f"for (int k = 0; k < {self.chunks}; ++k) {{",
            f"const idx j0 = (k * {self.lanes} + lane) * {self.vector};",
        ]

    @property
    def number(self) -> str:
        """Which of the elements that a thread holds is number ``t`` of the vector at hand."""
        return "t" if self.parts else f"k * {self.vector} + t"


def seen_shape(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The operand's shape, in which groups of channels have an axis."""
    groups = node.attributes["num_groups"] if node.op == "GroupNormalization" else 0
    return (shape[0], groups, shape[1] // groups, *shape[2:]) if groups else shape


def held(s: Shape, kind: str) -> list[str]:
    """Room for the elements of one vector, where they are not kept."""
    return [f"{kind} a[{s.vector}];"] if s.parts else []


def pass_over(
    e: Elements,
    s: Shape,
    node: Node,
    outer: dict[int, str],
    element: Each,
    after: Sequence[str] = (),
    before: Sequence[str] = (),
) -> list[str]:
    """A loop over the row: ``element`` is written for each, at its full coordinates."""
    own = e.body.types[node.inputs[0]].shape
    shape = seen_shape(node, own)
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
        *s.loop,
        f"if (j0 < {s.length}) {{",
        *loads,
        *before,
        '_Pragma("unroll")',
        f"for (int t = 0; t < {s.vector}; ++t) {{",
        f"const int u = {s.number}; const idx j = j0 + t;",
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


def written(
    e: Elements,
    node: Node,
    s: Shape,
    outer: dict[int, str],
    kind: str,
    result: str,
    outputs: Sequence[int],
    load: Each = lambda full: [],
) -> list[str]:
    """The anchor's result element by element, and what follows; ``outputs``: of the rows' shape.

    load: what makes ``a[u]`` where it is not kept.
    """
    body, shape = e.body, e.body.types[node.inputs[0]].shape
    if any(body.output_types[k].shape != shape for k in outputs):
        raise Untranslatable("an output has another shape than the rows")

    def element(full: Index) -> list[str]:
        e.lines += load(full)
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
    return pass_over(
        e,
        s,
        node,
        outer,
        element,
        [store_vector(body, k, at, s.vector) for k in outputs] if s.trailing else (),
        [*held(s, kind), *(declare_vector(body, k, s.vector) for k in outputs)],
    )


def reduced(
    e: Elements, node: Node, s: Shape, outer: dict[int, str], kind: str, result: str, rank: int
) -> list[str]:
    """The anchor's result of a row, and what follows, by one of its threads."""
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
