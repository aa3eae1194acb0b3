"""Means over rows whose channels lie side by side, in float64: as exact as float32 can be.

One chain of float32 over SqueezeNet's last 13 by 13 image had most of its output's error. What is
read decides the time, not what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import CONSTANT, Body, Node
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.formats import HWC, LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.arithmetic import is_reduced
from workbench.tactics.native import nothing
from workbench.tactics.numba.cache import KernelCache, KernelText
from workbench.tactics.numba.calls import operand_arrays, packed_constants, part, raw
from workbench.tactics.numba.expressions import Operand, Translator
from workbench.tactics.numba.loops import Nest
from workbench.tactics.numba.nests import Stream, geometry, indented, load_lines, nest_text
from workbench.tactics.numba.scalars import STORAGE, loaded
from workbench.tactics.numba.threads import pieces, together
from workbench.tactics.numba.windows import epilogue
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.workspace import over_limit

ANCHORS = frozenset({"GlobalAveragePool", "ReduceMean"})
"""Operators that anchor a kernel of means."""
MOST_AT_ONCE = 256
"""Channels whose sums are kept at once, in 2 KB."""

AT_ONCE = 4
"""Rows that are added before a sum is stored."""


@dataclass(frozen=True, eq=False)
class MeanPlan:
    """Means of ``rows`` rows of ``channels``, ``before`` times; what becomes of them.

    layout: of the input; outputs are linear. operands: what the epilogue reads, one element each.
    """

    before: int
    rows: int
    channels: int
    layout: Format
    source: str
    operands: tuple[Operand, ...]
    after: tuple[str, ...]

    @property
    def elements(self) -> int:
        """Elements that are read."""
        return self.before * self.rows * self.channels

    @property
    def nest(self) -> Nest:
        """Loops over groups of channels, over what is before the rows, and over a group."""
        most = max(1, -(-self.channels // MOST_AT_ONCE))
        groups = next(k for k in range(most, 0, -1) if self.channels % k == 0)
        length = self.channels // groups
        one, all_ = (0, 0, 0), (length, self.channels, 1)
        return Nest((groups, self.before, length), (*[one] * len(self.operands), all_))


def plan_means(body: Body) -> MeanPlan | Refusal:
    """How to run a Body anchored at a mean, or why not in this way."""
    node = body.anchor_node
    if node is None or node.op not in ANCHORS:
        return Refusal("no mean anchors it", code="not_means")
    if node.inputs[0] not in {i.name for i in body.dynamic_inputs}:
        return Refusal(f"{node.op} reads no input of the layer", code="input")
    x = body.types[node.inputs[0]]
    if not (x.dtype is DataType.FLOAT or is_reduced(x.dtype)):
        return Refusal(f"{node.op} of {x.dtype} is not computed in float32", code="type")
    axes = _axes(node, body)
    if isinstance(axes, Refusal):
        return axes
    order = list(range(len(x.shape)))
    layout = HWC if len(order) == 4 and axes == [2, 3] else LINEAR
    if layout == HWC:
        order, axes = [0, 2, 3, 1], [1, 2]
    sizes = [x.shape[k] for k in order]
    first, last = axes[0], axes[-1]
    if axes != list(range(first, last + 1)) or last == len(sizes) - 1:
        return Refusal("its axes are not neighbours, or the innermost is one", code="axes")
    cut = (sizes[:first], sizes[first : last + 1], sizes[last + 1 :])
    before, rows, channels = (math.prod(s) for s in cut)
    if not before * rows * channels:
        return Refusal("it is empty", code="empty")
    if any(math.prod(t.shape) != before * channels for t in body.output_types):
        return Refusal("an output has another size than the means", code="output_shapes")
    operands: list[Operand] = []
    after = Translator(body, operands)
    try:
        lines = epilogue(node, body, after, lanes=False)
    except Untranslatable as e:
        return Refusal(str(e), code="epilogue")
    if any(math.prod(o.shape) != 1 for o in operands):
        return Refusal("what follows the mean reads more than one number", code="operand")
    source = node.inputs[0]
    return MeanPlan(before, rows, channels, layout, source, tuple(operands), tuple(lines))


def _axes(node: Node, body: Body) -> list[int] | Refusal:
    """The axes of the mean, in order, counted from 0."""
    rank = len(body.types[node.inputs[0]].shape)
    if node.op == "GlobalAveragePool":
        return list(range(2, rank))
    given = next((n for n in body.nodes if node.inputs[1:2] == n.outputs), None)
    if given is None or given.operator is not CONSTANT:
        return Refusal("its axes are no constant of the layer", code="axes")
    axes = sorted(int(a) % rank for a in given.attributes["value"].values)
    return axes or Refusal("it has no axes", code="axes")


def _text(plan: MeanPlan, dtype: DataType, streams: Sequence[Stream], body: Body) -> KernelText:
    base = plan.nest.depth * (1 + len(streams) + len(body.outputs))
    terms = [f"float64(float32({loaded(dtype, f'e{k}[j]')}))" for k in range(AT_ONCE)]
    row = [
        "for j in range(n):",
        "    t[j] = 0.0",
        "at = i1 * rows * channels + i0 * n",
        f"for k in range(rows // {AT_ONCE}):",
        *(
            f"    e{k} = image[at + {k} * channels : at + {k} * channels + n]"
            for k in range(AT_ONCE)
        ),
        "    for j in range(n):",
        f"        t[j] += {' + '.join(terms)}",
        f"    at += {AT_ONCE} * channels",
        f"for k in range(rows % {AT_ONCE}):",
        "    e0 = image[at : at + n]",
        "    for j in range(n):",
        f"        t[j] += {terms[0]}",
        "    at += channels",
        "for j in range(n):",
        "    y = t[j] / rows",
        *indented([*load_lines(range(len(streams)), streams), *plan.after], 1),
    ]
    return nest_text(
        plan.nest.depth,
        streams,
        [Stream(t.dtype, unit=True) for t in body.output_types],
        row,
        head=[f"rows = g[{base}]", f"channels = g[{base + 1}]"],
        extra=(("image", f"{STORAGE[dtype]}[::1]"), ("t", "float64[::1]")),
    )


def means_call(
    plan: MeanPlan, problem: Problem, cache: KernelCache, threads: int
) -> Call | Refusal:
    """Compile a plan and give its Call."""
    body, nest = problem.body, plan.nest
    dtype = body.types[plan.source].dtype
    streams = [Stream(o.dtype, unit=False) for o in plan.operands]
    kernel = cache.compile(_text(plan, dtype, streams, body))
    strides = (*nest.strides, *[nest.strides[-1]] * (len(body.outputs) - 1))
    numbers = geometry(Nest(nest.sizes, strides))
    g = np.concatenate([numbers, np.array([plan.rows, plan.channels], np.int64)])
    constants = packed_constants(plan.operands, problem, 4, LINEAR)
    ranges = pieces(nest.sizes[0], threads)
    length = 8 * -(-nest.sizes[-1] // 8)  # a whole number of cache lines
    nbytes = len(ranges) * length * 8
    hungry = over_limit(nbytes, problem.workspace_limit)
    if hungry is not None:
        return hungry
    position = [i.name for i in body.dynamic_inputs].index(plan.source)

    def bind(
        inputs: Sequence[Buffer], results: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        if not nest.count:
            return nothing
        assert workspace is not None
        arrays = operand_arrays(plan.operands, constants, body, inputs)
        arrays += [raw(b, t.dtype) for b, t in zip(results, body.output_types, strict=True)]
        arrays.append(raw(inputs[position], dtype))
        sums = raw(workspace, DataType.DOUBLE)
        return together(
            [
                part(kernel, a, b, g, *arrays, sums[k * length : (k + 1) * length])
                for k, (a, b) in enumerate(ranges)
            ]
        )

    return Call(f"numba means {'+'.join(body.operator_names)}", bind, nbytes)
