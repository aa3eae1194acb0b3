"""What NVRTC offers for a Body: variants of generated kernels, best guess first."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from workbench.body import CONSTANT, Body
from workbench.formats import CHW32, HWC, LINEAR, Format, format_named
from workbench.records import Refusal
from workbench.tactics.nvrtc import direct
from workbench.tactics.nvrtc.direct import computed_types, direct_kernel
from workbench.tactics.nvrtc.element_rules import ELEMENT_RULES, LOOPING
from workbench.tactics.nvrtc.frame import KernelText, kernel_text, unstorable, vector_widths
from workbench.tactics.nvrtc.pointwise import THREADS, followed_layouts, pointwise_kernel
from workbench.tactics.nvrtc.pooling import PoolShape, pool_kernel, pool_shapes
from workbench.tactics.nvrtc.programs import PROGRAMS, program_kernel
from workbench.tactics.nvrtc.recurrence import BLOCKS, RECURRENT, recurrent_kernel
from workbench.tactics.nvrtc.row_families import FAMILIES
from workbench.tactics.nvrtc.row_loops import Shape
from workbench.tactics.nvrtc.rows import row_shapes, rows_kernel
from workbench.tactics.nvrtc.scalars import STORAGE
from workbench.tactics.nvrtc.spectra import split_dft
from workbench.tactics.nvrtc.weight_only import COLUMNS, dequantizer, weight_only_kernel

KEPT = frozenset("tile lanes vector parts split program threads columns pixels down across".split())
"""Names of the parameters that decide a kernel's text; see ``kernel``."""


@dataclass(frozen=True)
class Variant:
    """One way to write a kernel. parameters: JSON values that, with the Body, decide its text."""

    name: str
    layout: Format
    parameters: tuple[tuple[str, Any], ...]


def variants(body: Body) -> tuple[Variant, ...] | Refusal:
    """What these kernels offer for a Body, or why nothing."""
    if (problem := unstorable(body)) is not None:
        return problem
    anchor = body.anchor_node
    rank = len(body.output_types[0].shape)
    layouts = (HWC, LINEAR) if rank >= 3 else (LINEAR,)
    if anchor is not None and anchor.op in PROGRAMS:
        return (Variant("program", LINEAR, (("program", anchor.op),)),)
    if anchor is not None and anchor.op in RECURRENT:
        return tuple(Variant(f"recurrent t{t}", LINEAR, (("threads", t),)) for t in BLOCKS)
    offered: tuple[Variant, ...] = ()
    if anchor is not None and anchor.op in direct.ANCHORS:
        if (problem := computed_types(body)) is not None:
            return problem
        both = layouts if anchor.op in direct.WINDOWS else (LINEAR,)
        offered = tuple(
            Variant(f"direct k{t}", f, (("tile", t),)) for f in both for t in direct.TILES
        )
        offered = (*map(_pool, pool_shapes(body)), *offered)
    if anchor is not None and anchor.op in FAMILIES:
        shapes = row_shapes(body)
        if isinstance(shapes, Refusal) and anchor.op not in ELEMENT_RULES:
            return shapes
        offered = () if isinstance(shapes, Refusal) else tuple(map(_spread, shapes))
        if _summed_images(body):
            offered = (*offered[:1], Variant("pixels", HWC, (("pixels", True),)), *offered[1:])
    if anchor is not None and anchor.op == "DFT" and isinstance(split_dft(body), KernelText):
        offered = (Variant("split sums", LINEAR, (("split", True),)),)
    if dequantizer(body) is not None:
        narrow = (Variant(f"int4 c{c}", LINEAR, (("columns", c),)) for c in COLUMNS)
        offered = (*narrow, *offered)
    if any(not isinstance(kernel(body, v), Refusal) for v in offered):
        return offered
    return (*offered, *_elements(body, (*layouts, CHW32) if _in_blocks(body) else layouts))


def _spread(s: Shape) -> Variant:
    given = (("lanes", s.lanes), ("vector", s.vector))
    if not s.parts:
        return Variant(f"rows {s.lanes}x{s.vector}", LINEAR, given)
    name = f"long rows {s.lanes}x{s.vector} in {s.parts}"
    return Variant(name, LINEAR, (*given, ("parts", s.parts)))


def _pool(s: PoolShape) -> Variant:
    given = (("vector", s.vector), ("down", s.down), ("across", s.across))
    return Variant(f"pool k{s.vector} {s.down}x{s.across}", HWC, given)


def layouts_of(body: Body, variant: Variant) -> tuple[dict[str, Format], Format]:
    """Layouts of a variant's inputs by name, and that of all its outputs."""
    if "pixels" not in dict(variant.parameters):
        return followed_layouts(body, variant.layout), variant.layout
    images = _summed_images(body) or _unrolled_images(body)
    return {i.name: variant.layout if i.name in images else LINEAR for i in body.inputs}, LINEAR


def _summed_images(body: Body) -> frozenset[str]:
    """The inputs, if they are images and the anchor reduces each of their channels to one number.

    Channels last, neighbouring threads then read neighbouring channels, and nothing is reformatted.
    """
    anchor, none = body.anchor_node, frozenset[str]()
    if anchor is None or not anchor.op.startswith("Reduce"):
        return none
    shape = body.types[anchor.inputs[0]].shape
    rank = len(shape)
    given = next((n for n in body.nodes if anchor.inputs[1:2] == n.outputs), None)
    if given is None or given.operator is not CONSTANT or rank < 3 or shape[1] == 1:
        return none
    axes = {int(a) % rank for a in given.attributes["value"].values}
    images = {i.name: i.type.shape for i in body.dynamic_inputs if len(i.type.shape) > 2}
    reduced = all(prod(t.shape) == prod(shape[:2]) for t in body.output_types)
    alike = axes == set(range(2, rank)) and set(images.values()) == {shape}
    return frozenset(images) if alike and reduced else none


def _unrolled_images(body: Body) -> frozenset[str]:
    """Inputs whose pixels become rows: their channels are the innermost axis of all outputs.

    Channels last, what a thread's neighbours write lies side by side where they read it.
    """
    inner = {t.shape[-1] for t in body.output_types if t.shape}
    ranks = {len(t.shape) for t in body.output_types}
    return frozenset(
        i.name
        for i in body.dynamic_inputs
        if len(i.type.shape) > 3 and len(i.type.shape) not in ranks
        if {i.type.shape[1]} == inner != {1}
    )


def _in_blocks(body: Body) -> bool:
    """Whether CHW32 holds all that is written, and all that is read in the outputs' layout."""
    followed = followed_layouts(body, CHW32)
    types = [i.type for i in body.inputs if followed[i.name] == CHW32]
    return all(CHW32.holds(t.dtype, t.shape) for t in (*types, *body.output_types))


def generates(op: str) -> bool:
    """Whether there is a rule for an operator; whether it fits, a Body decides."""
    return any(
        op in rules for rules in (ELEMENT_RULES, FAMILIES, PROGRAMS, RECURRENT, direct.ANCHORS)
    )


def _elements(body: Body, layouts: tuple[Format, ...]) -> tuple[Variant, ...]:
    """Each thread makes some elements of the result, whatever the operators."""
    if any(not layout.fits(len(t.shape)) for t in body.output_types for layout in layouts):
        layouts = (LINEAR,)
    loops = any(n.op in LOOPING for n in body.nodes)
    unrolled = (
        Variant(f"pixels v{v}", HWC, (("vector", v), ("pixels", True)))
        for v in _widths(body, LINEAR)
        if _unrolled_images(body) and not loops
    )
    return (
        *unrolled,
        *(
            Variant(f"elements v{v}", f, (("vector", v),))
            for f in layouts
            for v in _widths(body, f)
            if v == 1 or not loops
        ),
    )


def _widths(body: Body, layout: Format) -> tuple[int, ...]:
    """Elements that a thread may store at once, most first."""
    kinds = [i.type.dtype for i in body.inputs] + [t.dtype for t in body.output_types]
    lengths = [layout.physical_shape(t.shape)[-1] if t.shape else 1 for t in body.output_types]
    common = min(lengths)
    found = vector_widths(kinds, common) if common else (1,)
    return tuple(v for v in found if all(n % v == 0 for n in lengths))


def kernel(body: Body, variant: Variant) -> KernelText | Refusal:
    """The kernel of a variant."""
    given = dict(variant.parameters)
    if "program" in given:
        return program_kernel(body)
    if "columns" in given:
        return weight_only_kernel(body, given["columns"])
    if "threads" in given:
        return recurrent_kernel(body, given["threads"])
    if "tile" in given:
        return direct_kernel(body, variant.layout, given["tile"])
    if "down" in given:
        return pool_kernel(body, PoolShape(given["vector"], given["down"], given["across"]))
    if "split" in given:
        return _split(body)
    if "lanes" in given:
        return _rows(body, given["lanes"], given["vector"], given.get("parts", 0))
    # Chosen at another size, perhaps: as wide as this one allows.
    layouts, written = layouts_of(body, variant)
    fitting = [v for v in _widths(body, written) if v <= given.get("vector", 1)]
    return pointwise_kernel(body, written, max(fitting, default=1), layouts)


def _rows(body: Body, lanes: int, vector: int, parts: int) -> KernelText | Refusal:
    """Rows spread so, or, where rows of this size cannot be, in the way that suits them best."""
    shapes, anchor = row_shapes(body), body.anchor_node
    if isinstance(shapes, Refusal):
        by_one = anchor is not None and anchor.op in ELEMENT_RULES
        return pointwise_kernel(body, LINEAR, 1) if by_one else shapes
    asked = (lanes, vector, parts)
    shape = next((s for s in shapes if (s.lanes, s.vector, s.parts) == asked), shapes[0])
    return rows_kernel(body, shape)


def _split(body: Body) -> KernelText | Refusal:
    """A DFT in two sums, or, where its length of another size has no factors, in one."""
    made = split_dft(body)
    return pointwise_kernel(body, LINEAR, 1) if isinstance(made, Refusal) else made


def variant_of(name: str, layout: str, parameters: Any) -> Variant:
    """The variant that a tactic stores."""
    return Variant(name, format_named(layout), tuple((k, v) for k, v in parameters if k in KEPT))


def reformat_kernel(body: Body, source: Format, target: Format) -> KernelText | Refusal:
    """Copy a tensor from one layout to another: a square of 32 x 32 elements a block.

    It goes by way of shared memory, so that both reads and writes run along memory. Where channels
    lie together in both layouts, or nothing has to be copied, elements are read where they lie.
    """
    shape = body.inputs[0].type.shape
    if LINEAR not in (source, target) or not prod(shape):
        widest, *_ = _widths(body, target)
        return pointwise_kernel(body, target, widest, {body.inputs[0].name: source})
    other = source if target == LINEAR else target
    channels = other.block or shape[1]
    batch, inner = shape[0] * (shape[1] // channels), prod(shape[2:])
    rows_, columns = (channels, inner) if source == LINEAR else (inner, channels)
    across, down = -(-columns // 32), -(-rows_ // 32)
    lines = [
        f"__shared__ {STORAGE[body.inputs[0].type.dtype]} square[32][33];",
        f"const idx n = blockIdx.x / {across * down};",
        f"const int tile = blockIdx.x % {across * down};",
        f"const int x0 = tile % {across} * 32, y0 = tile / {across} * 32;",
        "const int x = threadIdx.x % 32, y = threadIdx.x / 32;",
        f"for (int k = y; k < 32; k += {THREADS // 32})",
        f"  if (x0 + x < {columns} && y0 + k < {rows_})",
        f"    square[k][x] = in0[(n * {rows_} + y0 + k) * {columns} + x0 + x];",
        "__syncthreads();",
        f"for (int k = y; k < 32; k += {THREADS // 32})",
        f"  if (y0 + x < {rows_} && x0 + k < {columns})",
        f"    out0[(n * {columns} + x0 + k) * {rows_} + y0 + x] = square[x][k];",
    ]
    return kernel_text(body, lines, (), blocks=batch * across * down, threads=THREADS)
