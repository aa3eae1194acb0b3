"""3 by 3 convolutions by Winograd's algorithm: fewer multiplications, exact in the same bound.

Tiles of the image are transformed block by block, so that a block's values stay in the second-level
cache; 16 matrix products follow, tile by tile in registers (``tiles.py``); the results are
transformed back and finished by the layer's epilogue. Images lie in HWC or in CHW16: a transform
reads and writes vectors of channels, wherever the next one lies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import Array, Body, Node
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.formats import CHW16, HWC, Format
from workbench.operators.windows import Window, window_of
from workbench.records import Refusal
from workbench.tactics.numba.attention import Tile, tile_for
from workbench.tactics.numba.cache import KernelCache, KernelText
from workbench.tactics.numba.calls import on_a_line, operand_arrays, packed_constants, part, raw
from workbench.tactics.numba.expressions import IMPORTS, Operand, Translator
from workbench.tactics.numba.nests import Stream, indented, load_lines
from workbench.tactics.numba.pointwise import input_layout
from workbench.tactics.numba.product_shapes import SUMMED
from workbench.tactics.numba.scalars import STORAGE, loaded
from workbench.tactics.numba.threads import pieces, together
from workbench.tactics.numba.windows import epilogue
from workbench.tactics.numba.winograd_transforms import F2, LANES
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.scalar_text import Untranslatable

OUTPUT = len(F2.result)
SIDE = len(F2.source)
POINTS = SIDE * SIDE
"""Results a side of a tile, what they read a side, and products of each channel."""

BLOCK_BYTES = 11 << 16
"""Transformed tiles of one block and their results: they stay in a second-level cache of 1 MB."""

MOST_WEIGHT_BYTES = 8 << 20
"""Transformed weights, 16/9 of the given ones: each block reads all of them."""

MOST_FILTERS = 128
"""Filters whose results are kept before they are transformed back."""


@dataclass(frozen=True, eq=False)
class WinogradPlan:
    """A convolution at fixed sizes, and the code of its epilogue.

    kinds: how each operand is read: "full" as the output lies, "channel", or "number".
    layout: of the image and of the output; layouts: of all dynamic inputs.
    moved: whether results are finished where they were transformed, and then moved to the output.
    """

    node: Node
    window: Window
    shape: tuple[int, ...]
    output: tuple[int, ...]
    tile: Tile
    operands: tuple[Operand, ...]
    kinds: tuple[str, ...]
    after: tuple[str, ...]
    layout: Format
    layouts: tuple[Format, ...]
    moved: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles down and across an image."""
        height, width = self.output[2:]
        return -(-height // OUTPUT), -(-width // OUTPUT)

    @property
    def tiles(self) -> int:
        """Tiles of all images."""
        return self.shape[0] * math.prod(self.grid)

    @property
    def elements(self) -> int:
        """Multiply-adds."""
        return POINTS * self.tiles * self.shape[1] * self.output[1]

    @property
    def filters(self) -> int:
        """Filters whose results are kept at once; they divide all."""
        whole = self.output[1] // self.tile.columns
        most = max(1, MOST_FILTERS // self.tile.columns)
        return self.tile.columns * max(k for k in range(1, most + 1) if whole % k == 0)


# -- plan ---------------------------------------------------------------------------------
def plan_winograd(body: Body, layout: Format = HWC) -> WinogradPlan | Refusal:
    """How to run a Body anchored at a Conv with 3 by 3 filters, or why not in this way.

    layout: of its images, HWC or CHW16.
    """
    node = body.anchor_node
    if node is None or node.op != "Conv":
        return Refusal("no Conv anchors it", code="not_convolution")
    found = _fitting(node, body)
    if isinstance(found, Refusal):
        return found
    x, w = body.types[node.inputs[0]].shape, body.types[node.inputs[1]].shape
    output = (x[0], w[0], *found.output)
    if len(body.outputs) != 1 or body.output_types[0].shape != output:
        return Refusal("an output has another shape than the windows", code="output_shapes")
    operands: list[Operand] = []
    after = Translator(body, operands)
    try:
        lines = epilogue(node, body, after, lanes=False)
    except Untranslatable as e:
        return Refusal(str(e), code="epilogue")
    layouts = tuple(
        layout if i.name == node.inputs[0] else input_layout(i.type.shape, output, layout)
        for i in body.dynamic_inputs
    )
    kinds = [_kind(o, output) for o in operands]
    for o, kind in zip(operands, kinds, strict=True):
        if not kind:
            return Refusal(f"'{o.name}' {o.shape} lies across the channels", code="operand")
    tile = tile_for(w[0], w[0])
    if w[0] % tile.columns:
        return Refusal(f"{w[0]} filters are no multiple of {tile.columns}", code="filters")
    moved = "full" not in kinds and body.output_types[0].dtype is DataType.FLOAT
    if layout == CHW16 and not moved:
        return Refusal("it has a residual, or an output that is not FP32: HWC only", code="layout")
    code = (tuple(operands), tuple(kinds), tuple(lines))
    return WinogradPlan(node, found, x, output, tile, *code, layout, layouts, moved)


def _fitting(node: Node, body: Body) -> Window | Refusal:
    x, w = body.types[node.inputs[0]], body.types[node.inputs[1]]
    dynamic = {i.name for i in body.dynamic_inputs}
    if node.inputs[0] not in dynamic or node.inputs[1] not in {
        i.name for i in body.inputs if i.constant
    }:
        return Refusal("its image or its weights are computed inside", code="input")
    if x.dtype is not DataType.FLOAT or w.dtype is not DataType.FLOAT or len(x.shape) != 4:
        return Refusal(f"Winograd's transforms are for FP32 images, this is {x}", code="type")
    window = window_of(node.attributes, x.shape[2:], w.shape[2:])
    plain = set(window.strides) | set(window.dilations) | {node.attributes.get("group") or 1}
    if window.kernel != (3, 3) or plain != {1}:
        return Refusal("it is not 3 by 3 of stride 1 in one group", code="window")
    if POINTS * 4 * math.prod(w.shape[:2]) > MOST_WEIGHT_BYTES:
        return Refusal(
            "its transformed weights would be read from memory for each block", code="weights"
        )
    if x.shape[1] % LANES:
        return Refusal(f"{x.shape[1]} channels are no multiple of {LANES}", code="channels")
    return window


def _kind(operand: Operand, output: tuple[int, ...]) -> str:
    shape = (1,) * (4 - len(operand.shape)) + tuple(operand.shape)
    if shape == (1, output[1], 1, 1):
        return "channel"
    if shape == output:
        return "full"
    return "number" if math.prod(shape) == 1 else ""


# -- code ---------------------------------------------------------------------------------
_TEXT = """\
def kernel({arguments}):
    h, w, oh, ow, th, tw = g[0], g[1], g[2], g[3], g[4], g[5]
    c, o, ph, pw, tb, tiles, group = g[6], g[7], g[8], g[9], g[10], g[11], g[12]
    pixel, step, out_pixel, out_step = g[13], g[14], g[15], g[16]
    at_m = {points} * tb * c
    at_y = at_m + {points} * tb * group
    at_p = at_y + {results} * group
    address, image_address, u_address = t.ctypes.data, image.ctypes.data, u.ctypes.data
    for b in range(start, stop):
        first = b * tb
        count = min(tb, tiles - first)
        for k in range(count):
            n, r = (first + k) // (th * tw), (first + k) % (th * tw)
            top, left = {output} * (r // tw) - ph, {output} * (r % tw) - pw
            place = address + 4 * k * c
            if top >= 0 and left >= 0 and top + {side} <= h and left + {side} <= w:
                p = image_address + 4 * (n * h * w * c + (top * w + left) * pixel)
                input_f2(p, 4 * w * pixel, 4 * pixel, 4 * step, place, 4 * tb * c, c // {lanes})
            else:
                for i in range({side}):
                    for j in range({side}):
                        q = at_p + (i * {side} + j) * c
                        if 0 <= top + i < h and 0 <= left + j < w:
                            p = n * h * w * c + ((top + i) * w + left + j) * pixel
                            move(
                                image_address + 4 * p, 4 * step,
                                address + 4 * q, 4 * {lanes}, c // {lanes},
                            )
                        else:
                            for s in range(c):
                                t[q + s] = float32(0.0)
                p = address + 4 * at_p
                input_f2(
                    p, 4 * {side} * c, 4 * c, 4 * {lanes}, place, 4 * tb * c, c // {lanes}
                )
        rows = (count + {rows} - 1) // {rows} * {rows}
        panel = u_address
        for lead in range(0, o, group):
            for point in range({points}):
                for s in range(0, group, {columns}):
                    for k in range(0, c, {summed}):
                        many = min({summed}, c - k)
                        for m in range(0, rows, {rows}):
                            {tile}(
                                address + 4 * ((point * tb + m) * c + k), 4 * c,
                                panel, 4 * {columns},
                                address + 4 * (at_m + (point * tb + m) * group + s), 4 * group,
                                many, k,
                            )
                        panel += 4 * many * {columns}
            for k in range(count):
                n, r = (first + k) // (th * tw), (first + k) % (th * tw)
                top, left = {output} * (r // tw), {output} * (r % tw)
                far = 4 * tb * group
                p = address + 4 * (at_m + k * group)
                output_f2(
                    p, {side} * far, far, 4 * {lanes},
                    address + 4 * at_y, 4 * group, group // {lanes},
                )
                for i in range(min({output}, oh - top)):
                    for l in range(min({output}, ow - left)):
                        d = at_y + (i * {output} + l) * group
                        f = t[d : d + group]
"""

_DIRECT = """\
e = ((n * oh + top + i) * ow + left + l) * o + lead
q0 = o0[e : e + group]
"""

_IN_PLACE = "q0 = f\n"
_MOVE = """\
e = n * oh * ow * o + ((top + i) * ow + left + l) * out_pixel + lead // {lanes} * out_step
move(
    address + 4 * d, 4 * {lanes},
    o0.ctypes.data + 4 * e, 4 * out_step, group // {lanes},
)
"""

_ROW = {"full": "r{k} = a{k}[e : e + group]", "channel": "r{k} = a{k}[lead : lead + group]"}


def _text(plan: WinogradPlan, body: Body) -> KernelText:
    names = [f"a{k}" for k in range(len(plan.operands))]
    head = _TEXT.format(
        arguments=", ".join(["start", "stop", "g", *names, "o0", "image", "u", "t"]),
        points=POINTS,
        results=OUTPUT * OUTPUT,
        output=OUTPUT,
        side=SIDE,
        lanes=LANES,
        summed=SUMMED,
        rows=plan.tile.rows,
        columns=plan.tile.columns,
        tile=plan.tile.name,
    )
    streams = [
        Stream(o.dtype, kind != "number") for o, kind in zip(plan.operands, plan.kinds, strict=True)
    ]
    rows = [
        _ROW[kind].format(k=k) if kind in _ROW else f"s{k} = {loaded(s.dtype, f'a{k}[0]')}"
        for k, (kind, s) in enumerate(zip(plan.kinds, streams, strict=True))
    ]
    inner = [*load_lines(range(len(streams)), streams), "y = f[j]", *plan.after]
    lines = [*rows, "for j in range(group):", *indented(inner, 1)]
    if plan.moved:
        lines = [*_IN_PLACE.splitlines(), *lines, *_MOVE.format(lanes=LANES).splitlines()]
    else:
        lines = [*_DIRECT.splitlines(), *lines]
    imports = (
        f"from workbench.tactics.numba.tiles import {plan.tile.name}\n"
        "from workbench.tactics.numba.winograd_tiles import input_f2, move, output_f2\n"
    )
    source = IMPORTS + imports + "\n\n" + head + "\n".join(indented(lines, 6)) + "\n"
    kinds = [f"{STORAGE[s.dtype]}[::1]" for s in streams]
    kinds += [f"{STORAGE[body.output_types[0].dtype]}[::1]", *["float32[::1]"] * 3]
    return KernelText(source, f"void({', '.join(['int64', 'int64', 'int64[::1]', *kinds])})")


# -- call ---------------------------------------------------------------------------------
def _block(plan: WinogradPlan, threads: int) -> int:
    """Tiles of one block: as many as the cache holds, in equal shares of all threads."""
    rows = plan.tile.rows
    each = 4 * POINTS * (plan.shape[1] + plan.filters)
    most = max(rows, BLOCK_BYTES // each // rows * rows)
    blocks = -(-plan.tiles // most)
    blocks = -(-blocks // threads) * threads
    return math.ceil(math.ceil(plan.tiles / blocks) / rows) * rows


def _steps(layout: Format, shape: tuple[int, ...]) -> tuple[int, int]:
    """Elements from a pixel to the next, and from its first LANES channels to the next ones."""
    _, channels, height, width = shape
    return (LANES, height * width * LANES) if layout == CHW16 else (channels, LANES)


def _weights(plan: WinogradPlan, problem: Problem) -> Array:
    """G·w·Gᵀ: by groups of filters, points, panels of the tile's columns, channels."""
    w = np.asarray(problem.constants[plan.node.inputs[1]]).astype(np.float64)
    g = np.array(F2.kernel)
    points = np.matmul(np.matmul(g, w), g.T).astype(np.float32)
    filters, channels = w.shape[:2]
    columns, group = plan.tile.columns, plan.filters
    parted = points.reshape(filters // group, group // columns, columns, channels, POINTS)
    return on_a_line(parted.transpose(0, 4, 1, 3, 2)).reshape(-1)


def winograd_call(
    plan: WinogradPlan, problem: Problem, cache: KernelCache, threads: int
) -> Call | Refusal:
    """Compile a plan and give its Call."""
    body, block = problem.body, _block(plan, threads)
    channels, group = plan.shape[1], plan.filters
    length = POINTS * block * (channels + group) + OUTPUT * OUTPUT * group + POINTS * channels
    length = -(-length // 16) * 16
    ranges = pieces(-(-plan.tiles // block), threads)
    nbytes = len(ranges) * length * 4
    if nbytes > problem.workspace_limit:
        return Refusal(
            f"needs {nbytes} bytes of workspace, {problem.workspace_limit} are allowed",
            remedy="raise the workspace limit",
            code="workspace",
        )
    kernel = cache.compile(_text(plan, body))
    sizes = (*plan.shape[2:], *plan.output[2:], *plan.grid, channels, plan.output[1])
    numbers = (*sizes, *plan.window.begin, block, plan.tiles, group)
    lying = (*_steps(plan.layout, plan.shape), *_steps(plan.layout, plan.output))
    g = np.array([*numbers, *lying], np.int64)
    constants = packed_constants(plan.operands, problem, 4, plan.layout)
    key = f"weights of Winograd {OUTPUT} {plan.tile.columns} {group}"
    stored = problem.prepacked.get(key)
    weights = _weights(plan, problem) if stored is None else stored.view(np.float32)
    position = [i.name for i in body.dynamic_inputs].index(plan.node.inputs[0])

    def bind(
        inputs: Sequence[Buffer], results: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        assert workspace is not None
        arrays = operand_arrays(plan.operands, constants, body, inputs)
        arrays += [raw(results[0], body.output_types[0].dtype)]
        arrays += [raw(inputs[position], DataType.FLOAT), weights]
        scratch = raw(workspace, DataType.FLOAT)
        return together(
            [
                part(kernel, a, b, g, *arrays, scratch[k * length : (k + 1) * length])
                for k, (a, b) in enumerate(ranges)
            ]
        )

    name = f"numba Winograd F({OUTPUT}x{OUTPUT}, 3x3) {'+'.join(body.operator_names)}"
    return Call(
        name, bind, nbytes, packed={"weights": weights}, prepacked={key: weights.view(np.uint8)}
    )
