"""From a Body to the plans of its product: matrices, windows, and copied images."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from workbench.body import Array, Body
from workbench.datatypes import DataType
from workbench.formats import CHW32, HWC, LINEAR, Format
from workbench.operators.windows import Window
from workbench.tactics.product import Product, product_of, windows
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.triton.copied import copied_image, copied_weights, folded_weights
from workbench.tactics.triton.epilogue import Packs
from workbench.tactics.triton.frame import Frame, Group, strides_of
from workbench.tactics.triton.kernel import Kernel
from workbench.tactics.triton.product_code import Plan
from workbench.tactics.triton.sides import (
    Image,
    Matrix,
    Packed,
    Side,
    WindowSide,
    packed_weights,
    steps_of,
)
from workbench.tactics.triton.tiles import ROUNDED, Tile, Work, tiles

BLOCKS = "blocks"
FORMS = (("copied linear", "folded linear"), ("copied", "folded"), ("",), (BLOCKS,))
"""Forms of a product: as it lies; a convolution's input copied first, from either layout; INT8
images in blocks of channels (CHW32).

Those that read one layout are offered in turns."""
TILES_IN_BLOCKS = 4
"""Tiles offered in blocks of channels: the layout is one more to choose, not one more algorithm."""


def layouts_of(body: Body, form: str) -> dict[str, Format]:
    """The layout of each dynamic input and each output that is not linear."""
    anchor = body.anchor_node
    if anchor is None or anchor.op != "Conv":
        return {}
    rank = len(body.types[anchor.outputs[0]].shape)
    shapes = {i.name: i.type.shape for i in body.dynamic_inputs}
    images = CHW32 if form == BLOCKS else HWC
    found = {n: images for n, s in shapes.items() if len(s) == rank and s[1] != 1}
    if form.endswith(" linear"):
        found = {n: f for n, f in found.items() if not _leads_to_window(body, n)}
    return {**found, **dict.fromkeys(body.outputs, images)}


def _leads_to_window(body: Body, name: str) -> bool:
    """Whether an input is the image that the convolution reads."""
    assert body.anchor_node is not None
    todo, seen = [body.anchor_node.inputs[0]], set[str]()
    while todo:
        value = todo.pop()
        seen.add(value)
        todo += [v for n in body.nodes if value in n.outputs for v in n.inputs if v]
    return name in seen


def plan_of(body: Body, constants: Mapping[str, Array], form: str = "") -> Plan:
    """The plan of a form. Raises Untranslatable with the reason."""
    product = product_of(body, constants)
    if product.anchor.op == "Conv":
        return _convolution(product, form)
    if form:
        raise Untranslatable("only convolutions are copied")
    return _matrices(product)


def work_of(plan: Plan, body: Body) -> Work:
    """What the model of tiles needs to know."""
    types = [i.type for i in body.inputs] + list(body.output_types)
    moved = sum(prod(t.shape) * t.dtype.itemsize for t in types)
    side = plan.left
    if isinstance(side, WindowSide):
        taps, depth = prod(side.kernel), side.image.channels
    else:
        assert isinstance(side, Matrix)
        taps, depth = 1, side.depth
    return Work(plan.rows, plan.columns, depth, taps, plan.batches, plan.product.kind, moved)


def offered_tiles(
    plan: Plan, body: Body, capability: int, *, tf32: bool = False
) -> tuple[Tile, ...]:
    """Tiles worth timing, best guess first. tf32: whether float32 factors may be rounded to it."""
    # FLOAT: three products of TF32 halves, or the scalar units; one TF32 product is not float32.
    multiply = ("tf32x3", "ieee") if plan.product.kind is DataType.FLOAT else ("",)
    found = tiles(work_of(plan, body), capability, multiply=multiply)
    if CHW32 in plan.layouts.values():
        found = tuple(t for t in found if t.depth % CHW32.block == 0)[:TILES_IN_BLOCKS]
    if tf32 and plan.product.kind is DataType.FLOAT:
        return (*tiles(work_of(plan, body), capability, multiply=(ROUNDED,)), *found)
    return found


# -- Gemm and MatMul ----------------------------------------------------------------------
def _matrices(product: Product) -> Plan:
    body, anchor = product.body, product.anchor
    a, b = (body.types[f.value].shape for f in (product.left, product.right))
    if len(a) < 2 or len(b) < 2:
        raise Untranslatable("a factor is a vector")
    turned = [anchor.op == "Gemm" and bool(anchor.attributes[k]) for k in ("transA", "transB")]
    depth = a[-2] if turned[0] else a[-1]
    out = product.out
    flat = prod(b[:-2]) == 1 and not turned[0]
    batch_axes = () if flat else tuple(range(len(out) - 2))
    batches = prod(out[i] for i in batch_axes)
    rows = prod(out[:-1]) if flat else out[-2]
    steps_a, steps_b = steps_of(a), steps_of(b)
    along_a, step_a = (steps_a[-2], steps_a[-1]) if turned[0] else (steps_a[-1], steps_a[-2])
    step_b, along_b = (steps_b[-2], steps_b[-1]) if turned[1] else (steps_b[-1], steps_b[-2])
    if flat:
        step_a = depth
    own_axes = tuple(range(len(a) - 1)) if flat else (len(a) - (1 if turned[0] else 2),)
    left = Matrix(
        product,
        product.left,
        "a",
        rows,
        depth,
        step_a,
        along_a,
        _batch_offset(out, a, batch_axes),
        {},
        (() if flat else tuple(range(len(a) - 2)), own_axes, (len(a) - (2 if turned[0] else 1),)),
    )

    def right(tile: Tile) -> tuple[Side, Packs]:
        constant = product.right.constant and prod(b[:-2]) == 1
        if constant:
            deep = -(-depth // tile.depth) * tile.depth
            pack = packed_weights(
                product,
                tile,
                batches=1,
                columns=out[-1],
                taps=1,
                depth=depth,
                axes="nk" if turned[1] else "kn",
            )
            return Packed(product.kind, out[-1], deep), {"weights": pack}
        last = len(b) - 1
        axes = (last - 1, last) if turned[1] else (last, last - 1)
        batch = tuple(range(len(b) - 2))
        offset = _batch_offset(out, b, batch_axes)
        side = Matrix(
            product,
            product.right,
            "b",
            out[-1],
            depth,
            step_b,
            along_b,
            offset,
            {},
            (batch, (axes[0],), (axes[1],)),
        )
        return side, {}

    def frame(row: Group, column: Group) -> Frame:
        rank = len(out)
        groups = [
            Group(tuple(range(rank - 1)) if flat else (rank - 2,), row.text, row.mask),
            Group((rank - 1,), column.text, column.mask),
        ]
        if batch_axes:
            groups.insert(0, Group(batch_axes, "batch" if batches > 1 else "0"))
        return Frame(out, tuple(groups))

    if batches > 1 and not _same_batches(product, batch_axes):
        raise Untranslatable("a prologue whose batches are broadcast")
    if batches > 65535:
        raise Untranslatable(f"{batches} products side by side")
    return Plan(
        product,
        left,
        right,
        rows,
        out[-1],
        batches,
        lambda tile: -(-depth // tile.depth),
        frame,
        len(out) - 1,
        {},
        "gemm" if batches == 1 else "batched gemm",
    )


def _batch_offset(out: tuple[int, ...], own: tuple[int, ...], axes: tuple[int, ...]) -> str:
    """Text of where a program's batch begins in a factor."""
    if not axes or prod(own[:-2]) == 1:
        return "0"
    strides = strides_of(own, len(out), LINEAR)
    return Frame(out, (Group(axes, "batch"),)).offset(strides)[0]


def _same_batches(product: Product, axes: tuple[int, ...]) -> bool:
    """Whether factors that a prologue computes have the output's own batches."""
    inputs = {i.name for i in product.body.inputs}
    computed = [f for f in (product.left, product.right) if f.value not in inputs]
    wanted = tuple(product.out[i] for i in axes)
    return all(product.body.types[f.value].shape[:-2] == wanted or f.constant for f in computed)


# -- Conv ---------------------------------------------------------------------------------
def _convolution(product: Product, form: str) -> Plan:
    body, anchor = product.body, product.anchor
    if not product.right.constant:
        raise Untranslatable("the kernel of the convolution is no constant")
    window = windows(product)
    layouts = layouts_of(body, form)
    x, out = body.types[product.left.value].shape, product.out
    batch, channels = x[:2]
    height, width = (x[2], x[3]) if len(x) == 4 else (1, x[2])
    groups = int(anchor.attributes["group"])
    held = all(layout.holds(*_stored(body, n)) for n, layout in layouts.items())
    if form == BLOCKS and (groups > 1 or not held):
        raise Untranslatable("blocks of channels hold INT8 images of one group that fill them")
    own, filters = channels // groups, out[1] // groups
    positions = (batch, int(window.output[0]), int(window.output[1]))
    taps = prod(window.kernel)
    before: tuple[Kernel, ...] = ()
    workspace: dict[str, int] = {}
    moved = form not in ("", BLOCKS)
    if moved:
        copied, before, workspace = copied_image(
            product, window, layouts, positions, folded=form.startswith("folded")
        )
        side: Side = copied
        taps, own_depth, pixel = copied.kernel[0], copied.image.channels, copied.image.pixel
    else:
        side = _side(product, window, layouts, positions, (height, width, channels), groups)
        own_depth, pixel = own, 0
    rank = len(out)
    row_axes = (0, *range(2, rank))

    def right(tile: Tile) -> tuple[Side, Packs]:
        deep = -(-own_depth // tile.depth) * tile.depth
        if moved:
            arranged = folded_weights if form.startswith("folded") else copied_weights
            pack = arranged(product, tile, window, pixel)
        else:
            pack = packed_weights(
                product,
                tile,
                batches=groups,
                columns=filters,
                taps=taps,
                depth=own,
                axes="nkt",
            )
        return Packed(product.kind, filters, taps * deep, groups), {"weights": pack}

    def frame(row: Group, column: Group) -> Frame:
        text = column.text
        if groups > 1:
            text = f"(batch * {filters} + {text})"
        return Frame(out, (Group(row_axes, row.text, row.mask), Group((1,), text, column.mask)))

    if groups > 65535:
        raise Untranslatable(f"{groups} groups")
    return Plan(
        product,
        side,
        right,
        prod(positions),
        filters,
        groups,
        lambda tile: taps * -(-own_depth // tile.depth),
        frame,
        1,
        layouts,
        " ".join(w for w in ("grouped" if groups > 1 else "", "convolution", form) if w),
        before,
        workspace,
    )


def _side(
    product: Product,
    window: Window,
    layouts: Mapping[str, Format],
    positions: tuple[int, int, int],
    sizes: tuple[int, int, int],
    groups: int,
) -> Side:
    height, width, channels = sizes
    plain = prod(window.kernel) == 1 and window.strides == (1, 1)
    blocks = CHW32 in layouts.values()
    if plain and not any((*window.begin, *window.end)) and groups == 1 and not blocks:
        rank = len(product.out)
        axes = ((), (0, *range(2, rank)), (1,))
        return Matrix(
            product, product.left, "a", prod(positions), channels, channels, 1, "0", layouts, axes
        )
    pixel = CHW32.block if blocks else channels
    image = Image(
        height,
        width,
        channels // groups,
        pixel,
        width * pixel,
        height * width * channels,
        _reaches_out(window, (height, width)),
        CHW32.block if blocks else 0,
        height * width * pixel,
    )
    return WindowSide(
        product,
        image,
        positions,
        (window.kernel[0], window.kernel[1]),
        (window.strides[0], window.strides[1]),
        (window.dilations[0], window.dilations[1]),
        (int(window.begin[0]), int(window.begin[1])),
        layouts,
        grouped=channels // groups if groups > 1 else 0,
    )


def _stored(body: Body, name: str) -> tuple[DataType, tuple[int, ...]]:
    """Type and shape of an input or output."""
    return body.types[name].dtype, body.types[name].shape


def _reaches_out(window: Window, sizes: tuple[int, int]) -> bool:
    """Whether some tap of some position lies outside of the image."""
    return any(
        b > 0 or (o - 1) * s + e - b > n
        for b, o, s, e, n in zip(
            window.begin, window.output, window.strides, window.extent, sizes, strict=True
        )
    )
