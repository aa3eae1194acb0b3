"""Kernels without an anchor: pointwise nodes, shuffles, gathers and joins; a vector a thread."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from workbench.body import Body
from workbench.formats import LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.nvrtc.element_rules import elements_of
from workbench.tactics.nvrtc.elements import Elements, split
from workbench.tactics.nvrtc.frame import (
    KernelText,
    declare_vector,
    kernel_text,
    load_vector,
    logical,
    store_element,
    store_vector,
)
from workbench.tactics.scalar_text import Untranslatable

THREADS = 128


def followed_layouts(body: Body, layout: Format) -> dict[str, Format]:
    """Layouts of the inputs: the kernel's for those of the outputs' rank, else linear.

    Constants are linear; so is what has one channel or a rank without layouts.
    """
    rank = len(body.output_types[0].shape)
    return {
        i.name: layout
        if not i.constant and len(i.type.shape) == rank and i.type.shape[1:2] != (1,)
        else LINEAR
        for i in body.inputs
    }


def pointwise_kernel(
    body: Body, layout: Format, vector: int, layouts: Mapping[str, Format] | None = None
) -> KernelText | Refusal:
    """One kernel for all outputs; those of one shape are computed together.

    layouts: of the inputs, where they do not follow the outputs'.
    """
    if not all(layout.fits(len(t.shape)) for t in body.output_types):
        return Refusal(f"an output has no layout {layout}", code="format")
    layouts = layouts or followed_layouts(body, layout)
    e = elements_of(body, layouts)
    groups: dict[tuple[int, ...], list[int]] = {}
    for k, t in enumerate(body.output_types):
        groups.setdefault(t.shape, []).append(k)
    lines: list[str] = []
    blocks = 0
    try:
        for shape, outputs in groups.items():
            count = prod(shape) // vector
            own = -(-count // THREADS)
            lines.append(f"if (blockIdx.x >= {blocks} && blockIdx.x < {blocks + own}) {{")
            lines.append(f"const idx i = (idx)(blockIdx.x - {blocks}) * {THREADS} + threadIdx.x;")
            lines.append(f"if (i < {count}) {{")
            lines += _group(e, shape, outputs, layout, vector)
            lines.append("} }")
            blocks += own
    except Untranslatable as problem:
        return Refusal(str(problem), code="operator")
    return kernel_text(body, lines, e.tables, blocks=blocks, threads=THREADS, vector=vector)


def _group(
    e: Elements, shape: tuple[int, ...], outputs: list[int], layout: Format, vector: int
) -> list[str]:
    body = e.body
    e.begin()
    e.ready.clear()
    stored = layout.physical_shape(shape)
    threads = (*stored[:-1], stored[-1] // vector) if stored else ()
    place = split(e, "i", threads)
    if vector > 1:
        place = (*place[:-1], "c")
    index = logical(place, layout) if stored else ()
    before, e.lines = e.lines, []
    if vector > 1:
        before.append(f"const idx first = {_last(threads)} * {vector};")
        before += [
            load_vector(e, i.name, f"i * {vector}", vector, index)
            for i in body.inputs
            if i.type.shape == shape and e.layouts[i.name] == layout
        ]
    before += [declare_vector(body, k, vector) for k in outputs]
    for k in outputs:
        e.lines.append(store_element(body, k, e.at(body.outputs[k], index)))
    return [
        *before,
        "#pragma unroll",
        f"for (int t = 0; t < {vector}; ++t) {{",
        *(["const idx c = first + t;"] if vector > 1 else []),
        *e.lines,
        "}",
        *(store_vector(body, k, f"i * {vector}", vector) for k in outputs),
    ]


def _last(threads: tuple[int, ...]) -> str:
    """The innermost coordinate of the thread, in vectors."""
    size = threads[-1]
    whole = all(d == 1 for d in threads[:-1])
    return "i" if whole else f"(i % {size})"
