"""Pointwise Bodies in one pass: any chain or graph of elementwise nodes, in one layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from workbench.body import Body
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.formats import LINEAR, Format
from workbench.records import Refusal
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
from workbench.tactics.numba.loops import Nest, collapse, layout_strides
from workbench.tactics.numba.nests import (
    LANES,
    Stream,
    geometry,
    indented,
    load_lines,
    nest_text,
    store_line,
    units,
)
from workbench.tactics.numba.threads import pieces, together
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.scalar_text import Untranslatable


@dataclass(frozen=True, eq=False)
class PointwisePlan:
    """The code of one element, and the loops around it, in one layout.

    layouts: of the Body's dynamic inputs, in order.
    """

    operands: tuple[Operand, ...]
    lines: tuple[str, ...]
    results: tuple[tuple[str, DataType], ...]
    nest: Nest
    layouts: tuple[Format, ...]
    layout: Format
    shape: tuple[int, ...]


def plan_pointwise(body: Body, layout: Format) -> PointwisePlan | Refusal:
    """How to run a Body whose nodes are all pointwise, with every full tensor in ``layout``."""
    shapes = {t.shape for t in body.output_types}
    if len(shapes) != 1:
        text = " and ".join(map(str, shapes))
        return Refusal(f"outputs have different shapes {text}", code="output_shapes")
    (shape,) = shapes
    if not layout.fits(len(shape)):
        return Refusal(f"rank {len(shape)} has no layout {layout}", code="format_rank")
    if layout.block and shape[1] == 1:
        return Refusal(f"one channel would be {layout.block} lanes wide", code="format_channels")
    operands: list[Operand] = []
    translator = Translator(body, operands)
    try:
        values = [translator.value(o) for o in body.outputs]
    except Untranslatable as e:
        return Refusal(str(e), code="not_pointwise")
    results = tuple((v.text, t.dtype) for v, t in zip(values, body.output_types, strict=True))
    layouts = tuple(input_layout(i.type.shape, shape, layout) for i in body.dynamic_inputs)
    dynamic = dict(zip((i.name for i in body.dynamic_inputs), layouts, strict=True))
    strides: list[tuple[int, ...]] = []
    for o in operands:
        kept = dynamic.get(o.name, constant_layout(o.shape, len(shape), layout))
        if kept == LINEAR and layout.block and channels_of(o.shape, len(shape)) > 1:
            return Refusal(f"'{o.name}' {o.shape} cannot lie in {layout}", code="format_operand")
        if kept != LINEAR and o.name in dynamic and len(o.shape) != len(body.types[o.name].shape):
            return Refusal(f"'{o.name}' is read along another axis", code="format_operand")
        strides.append(layout_strides(o.shape, len(shape), kept, layout))
    space = layout.physical_shape(shape)
    strides += [layout_strides(shape, len(shape), layout, layout)] * len(body.outputs)
    # A size of 1 has step 0 in layout_strides; collapse drops such axes.
    nest = collapse(space, strides)
    return PointwisePlan(
        tuple(operands), tuple(translator.lines), results, nest, layouts, layout, shape
    )


def input_layout(shape: Sequence[int], space: Sequence[int], layout: Format) -> Format:
    """The layout in which a dynamic input is wanted: linear where it has no channels of its own."""
    if layout == LINEAR or len(shape) != len(space) or not layout.fits(len(shape)):
        return LINEAR
    return layout if shape[1] == space[1] and space[1] > 1 else LINEAR


def pointwise_call(
    plan: PointwisePlan, problem: Problem, cache: KernelCache, threads: int
) -> Call | Refusal:
    """Compile a plan and give its Call."""
    body = problem.body
    unit = units(plan.nest)
    if unit is None:
        return Refusal("an operand is neither contiguous nor broadcast", code="strides")
    count = len(plan.operands)
    lanes = plan.nest.depth > 1 and plan.nest.sizes[-1] == LANES
    streams = [Stream(o.dtype, u, lanes) for o, u in zip(plan.operands, unit[:count], strict=True)]
    outputs = [Stream(t.dtype, True, lanes) for t in body.output_types]
    nest = plan.nest
    if not all(unit[count:]):
        # A single element: its step does not matter.
        inner = tuple((*s[:-1], 1) for s in nest.strides[count:])
        nest = replace(nest, strides=(*nest.strides[:count], *inner))
    reads = range(count)
    row = [
        "for j in range(n):",
        *indented(load_lines(reads, streams), 1),
        *indented(plan.lines, 1),
        *indented([store_line(k, t, v, lanes=lanes) for k, (v, t) in enumerate(plan.results)], 1),
    ]
    kernel = cache.compile(nest_text(nest.depth, streams, outputs, row))
    g = geometry(nest)
    constants = packed_constants(plan.operands, problem, len(plan.shape), plan.layout)

    def bind(
        inputs: Sequence[Buffer], results: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        if nest.count == 0:
            return nothing
        arrays = operand_arrays(plan.operands, constants, body, inputs)
        arrays += [raw(b, t.dtype) for b, t in zip(results, body.output_types, strict=True)]
        ranges = pieces(nest.sizes[0], threads)
        launches = [part(kernel, a, b, g, *arrays) for a, b in ranges]
        return in_order([together(launches), *cleared_outputs(body, plan.layout, results)])

    packed = {plan.operands[k].name: v for k, v in constants.items()}
    return Call(f"numba pointwise {'+'.join(body.operator_names)}", bind, packed=packed)
