"""Sliding windows with one result a channel: pooling and depthwise convolution, with epilogue.

Where channels are stored together (HWC, CHW16) the innermost loop runs over channels; where they
are not (LINEAR), along an image row. Sums and maxima are kept in a float32 scratch row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import CONSTANT, Array, Body, Node
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.formats import LINEAR, Format
from workbench.operators.windows import Window, window_of
from workbench.records import Refusal
from workbench.tactics.arithmetic import is_reduced
from workbench.tactics.native import in_order, nothing
from workbench.tactics.numba.cache import KernelCache
from workbench.tactics.numba.calls import (
    channels_of,
    cleared_outputs,
    constant_layout,
    operand_arrays,
    packed_constants,
    part,
    raw,
)
from workbench.tactics.numba.expressions import Operand, Translator
from workbench.tactics.numba.loops import Nest, contiguous, layout_strides
from workbench.tactics.numba.nests import LANES, Stream, geometry, nest_text, store_line, units
from workbench.tactics.numba.pointwise import input_layout
from workbench.tactics.numba.scalars import STORAGE
from workbench.tactics.numba.threads import pieces, together
from workbench.tactics.numba.window_code import WindowCode, head_code, row_code
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.scalar_text import Untranslatable

ANCHORS = frozenset(
    {"AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean"}
)
"""Operators that anchor a window kernel (Conv: depthwise; ReduceMean: over the image)."""


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """A window operator at fixed sizes, and the code of its epilogue.

    operands: what the epilogue reads. layouts: of the dynamic inputs.
    """

    node: Node
    window: Window
    shape: tuple[int, ...]
    output: tuple[int, ...]
    operands: tuple[Operand, ...]
    after: tuple[str, ...]
    layouts: tuple[Format, ...]
    layout: Format

    @property
    def elements(self) -> int:
        """Multiply-adds or comparisons."""
        return math.prod(self.output) * math.prod(self.window.kernel)


# -- plan ---------------------------------------------------------------------------------
def plan_windows(body: Body, layout: Format) -> WindowPlan | Refusal:
    """How to run a Body anchored at a window operator, with its images in ``layout``."""
    node = body.anchor_node
    if node is None or node.op not in ANCHORS:
        return Refusal("no window operator anchors it", code="not_windows")
    x = body.types[node.inputs[0]]
    if len(x.shape) != 4 or node.inputs[0] not in {i.name for i in body.dynamic_inputs}:
        return Refusal(f"{node.op} of {x} that is no input of rank 4", code="input")
    window = _window(node, body)
    if isinstance(window, Refusal):
        return window
    output = (x.shape[0], x.shape[1], *window.output)
    refusal = _unfit(node, body, layout, output)
    if refusal is not None:
        return refusal
    operands: list[Operand] = []
    after = Translator(body, operands)
    try:
        lines = epilogue(node, body, after, lanes=layout.block == LANES)
    except Untranslatable as e:
        return Refusal(str(e), code="epilogue")
    layouts = tuple(input_layout(i.type.shape, output, layout) for i in body.dynamic_inputs)
    names = [i.name for i in body.dynamic_inputs]
    layouts = tuple(
        layout if n == node.inputs[0] else f for n, f in zip(names, layouts, strict=True)
    )
    dynamic = dict(zip(names, layouts, strict=True))
    for o in operands:
        kept = dynamic.get(o.name, constant_layout(o.shape, 4, layout))
        if kept == LINEAR and layout.block and channels_of(o.shape, 4) > 1:
            return Refusal(f"'{o.name}' {o.shape} cannot lie in {layout}", code="format_operand")
    return WindowPlan(node, window, x.shape, output, tuple(operands), tuple(lines), layouts, layout)


def _window(node: Node, body: Body) -> Window | Refusal:
    sizes = body.types[node.inputs[0]].shape[2:]
    if node.op == "Conv":
        w = body.types[node.inputs[1]]
        if w.shape[1] != 1 or w.shape[0] != body.types[node.inputs[0]].shape[1]:
            return Refusal("Conv is not depthwise, one filter a channel", code="not_depthwise")
        if node.inputs[1] not in {i.name for i in body.inputs if i.constant}:
            return Refusal("the weights of the depthwise Conv are not constant", code="weights")
        return window_of(node.attributes, sizes, w.shape[2:])
    if node.op in ("MaxPool", "AveragePool"):
        return window_of(node.attributes, sizes, node.attributes["kernel_shape"])
    if node.op == "ReduceMean" and not _reduces_images(node, body):
        return Refusal("ReduceMean is not over images, sizes kept", code="axes")
    return Window(tuple(sizes), (1, 1), (1, 1), (0, 0), (0, 0), (1, 1))


def _reduces_images(node: Node, body: Body) -> bool:
    axes = next((n for n in body.nodes if node.inputs[1:2] == n.outputs), None)
    if axes is None or axes.operator is not CONSTANT or not node.attributes["keepdims"]:
        return False
    return sorted(int(a) % 4 for a in axes.attributes["value"].values) == [2, 3]


def _unfit(node: Node, body: Body, layout: Format, output: tuple[int, ...]) -> Refusal | None:
    """Why types, outputs or padding rule this layout out."""
    x = body.types[node.inputs[0]].dtype
    narrow = x.is_integer and x.itemsize == 1 and node.op in ("MaxPool", "GlobalMaxPool")
    if x not in STORAGE or not (x is DataType.FLOAT or is_reduced(x) or narrow):
        return Refusal(f"{node.op} of {x} is not computed in float32", code="type")
    if any(t.shape != output for t in body.output_types):
        return Refusal("an output has another shape than the windows", code="output_shapes")
    if len(node.outputs) > 1 and any(node.outputs[1:]):
        return Refusal(f"{node.op} also gives indices", code="outputs")
    if layout.block and output[1] == 1:
        return Refusal(f"one channel would be {layout.block} lanes wide", code="format_channels")
    if layout == LINEAR and node.op == "AveragePool" and any(node.attributes["pads"] or ()):
        return Refusal("averages beside the padding differ along a row", code="padding")
    if layout == LINEAR and node.op == "AveragePool" and node.attributes["ceil_mode"]:
        return Refusal("averages at the end differ along a row", code="padding")
    if layout == LINEAR and node.op in ("ReduceMean", "GlobalAveragePool", "GlobalMaxPool"):
        return Refusal("whole images are rows: see the row kernels", code="rows")
    return None


def epilogue(node: Node, body: Body, after: Translator, *, lanes: bool) -> list[str]:
    """Code from y, the window's result, to every stored output."""
    y = "y"
    if node.op == "Conv" and len(node.inputs) > 2 and node.inputs[2]:
        (filters,) = body.types[node.inputs[2]].shape
        y = f"y + {after.operand(node.inputs[2], (filters, 1, 1)).text}"
    after.lines.append(f"y = float32({y})")
    after.define(node.outputs[0], "y")
    stores = [
        store_line(k, t.dtype, after.value(o).text, lanes=lanes)
        for k, (o, t) in enumerate(zip(body.outputs, body.output_types, strict=True))
    ]
    return [*after.lines, *stores]


# -- call ---------------------------------------------------------------------------------
def _nest(plan: WindowPlan, body: Body) -> Nest:
    """Loops (output rows, images, groups, columns, innermost); arrays: operands, outputs.

    LINEAR: groups are channels, there is one column, and the innermost loop is the row.
    """
    layout = plan.layout
    dynamic = dict(zip((i.name for i in body.dynamic_inputs), plan.layouts, strict=True))
    arrays = [
        (o.shape, dynamic.get(o.name, constant_layout(o.shape, 4, layout))) for o in plan.operands
    ]
    arrays += [(plan.output, layout)] * len(body.outputs)
    strides = [_ordered(layout_strides(s, 4, kept, layout), layout) for s, kept in arrays]
    batch, channels, height, width = plan.output
    if layout == LINEAR:
        sizes = (height, batch, channels, 1, width)
    elif layout.channels_last:
        sizes = (height, batch, 1, width, channels)
    else:
        sizes = (height, batch, -(-channels // layout.block), width, layout.block)
    inner = [1 if k >= len(plan.operands) else s[-1] for k, s in enumerate(strides)]
    return Nest(sizes, tuple((*s[:-1], k) for s, k in zip(strides, inner, strict=True)))


def _ordered(strides: tuple[int, ...], layout: Format) -> tuple[int, ...]:
    if layout == LINEAR:
        n, c, h, w = strides
        return h, n, c, 0, w
    if layout.channels_last:
        n, h, w, c = strides
        return h, n, 0, w, c
    n, g, h, w, c = strides
    return h, n, g, w, c


def _numbers(plan: WindowPlan) -> list[int]:
    """What the code reads beside the nest, in the order of ``window_code.NUMBERS``."""
    w, sizes = plan.window, plan.shape[2:]
    steps = _ordered(tuple(contiguous(plan.layout.physical_shape(plan.shape))), plan.layout)
    row, image, group, column, inner = steps
    return [
        *sizes,
        *w.begin,
        *w.kernel,
        image,
        group,
        row,
        inner if plan.layout == LINEAR else column,
        *(n + e for n, e in zip(sizes, w.end, strict=True)),
    ]


def _weights(plan: WindowPlan, problem: Problem) -> Array:
    """Filters as float32: taps by channel groups, each tap's channels together."""
    if plan.node.op != "Conv":
        return np.zeros(1, np.float32)
    w = np.asarray(problem.constants[plan.node.inputs[1]]).astype(np.float32)
    channels = w.shape[0]
    taps = w.reshape(channels, -1)
    if plan.layout == LINEAR:
        return taps.reshape(-1).copy()
    block = plan.layout.block or channels
    groups = -(-channels // block)
    padded = np.zeros((groups * block, taps.shape[1]), np.float32)
    padded[:channels] = taps
    return np.ascontiguousarray(padded.reshape(groups, block, -1).swapaxes(1, 2)).reshape(-1)


def windows_call(
    plan: WindowPlan, problem: Problem, cache: KernelCache, threads: int
) -> Call | Refusal:
    """Compile a plan and give its Call."""
    body, nest = problem.body, _nest(plan, problem.body)
    unit = units(nest)
    if unit is None:
        return Refusal("an operand is neither contiguous nor broadcast", code="strides")
    count = len(plan.operands)
    lanes = plan.layout.block == LANES
    streams = [Stream(o.dtype, u, lanes) for o, u in zip(plan.operands, unit[:count], strict=True)]
    outputs = [Stream(t.dtype, True, lanes) for t in body.output_types]
    x = body.types[plan.node.inputs[0]].dtype
    base = nest.depth * (1 + count + len(outputs))
    code = WindowCode(plan.node, x, plan.window, plan.layout == LINEAR, lanes, base)
    extra = (("image", f"{STORAGE[x]}[::1]"), ("weights", "float32[::1]"))
    row = row_code(code, plan.after, streams)
    text = nest_text(
        nest.depth, streams, outputs, row, head=head_code(code), extra=extra, scratch=True
    )
    kernel = cache.compile(text)
    g = np.concatenate([geometry(nest), np.array(_numbers(plan), np.int64)])
    constants = packed_constants(plan.operands, problem, 4, plan.layout)
    weights = _weights(plan, problem)
    ranges = pieces(nest.sizes[0], threads)
    length = -(-nest.sizes[-1] // 16) * 16
    position = [i.name for i in body.dynamic_inputs].index(plan.node.inputs[0])

    def bind(
        inputs: Sequence[Buffer], results: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        if nest.count == 0:
            return nothing
        assert workspace is not None
        arrays = operand_arrays(plan.operands, constants, body, inputs)
        arrays += [raw(b, t.dtype) for b, t in zip(results, body.output_types, strict=True)]
        arrays += [raw(inputs[position], x), weights]
        scratch = raw(workspace, DataType.FLOAT)
        launches = [
            part(kernel, a, b, g, *arrays, scratch[k * length : (k + 1) * length])
            for k, (a, b) in enumerate(ranges)
        ]
        return in_order([together(launches), *cleared_outputs(body, plan.layout, results)])

    return Call(
        f"numba window {'+'.join(body.operator_names)}",
        bind,
        max(1, len(ranges) * length) * 4,
        packed={"weights": weights} if plan.node.op == "Conv" else {},
    )
