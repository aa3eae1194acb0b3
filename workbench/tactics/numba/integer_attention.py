"""INT8 attention in one kernel: both products of integers, exact, and the softmax between them.

What the graph quantizes is quantized where it is packed: queries, keys and values on their way to
the products, probabilities after their softmax, the result as it is written. So scores and
probabilities never go to memory. Products run by vpdpbusd (``vnni_tiles.py``), which multiplies
unsigned by signed bytes: keys are packed plus 128, of which each score loses 128 times its query's
sum again; probabilities are not negative, they are the unsigned factor as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from workbench.body import Array, Body, Node
from workbench.datatypes import DataType
from workbench.devices import CpuDevice
from workbench.records import Refusal
from workbench.tactics.attention_body import Way, maps_by_one_scale, read_attention
from workbench.tactics.numba.attention_blocks import (
    MOST_QUERIES,
    Blocks,
    Heads,
    blocked_call,
    cut,
    of_one_element,
    placed,
    require_along,
)
from workbench.tactics.numba.attention_code import Factor, Tile
from workbench.tactics.numba.cache import KernelCache
from workbench.tactics.numba.expressions import Operand, Translator
from workbench.tactics.numba.integer_attention_code import (
    DEEPEST,
    F_MIX,
    F_PROBABILITIES,
    F_QUERIES,
    F_RESULT,
    F_SCORES,
    LEAST_UNIT,
    PARAMETERS,
    IntegerCode,
    integer_attention_text,
    quantized,
)
from workbench.tactics.protocol import Call, Problem
from workbench.tactics.scalar_text import Untranslatable

LARGEST_SUM = 1 << 15
"""Most products of one sum: 2**15 of 128 times 255 stay below 2**31, the correction included."""


@dataclass(frozen=True)
class Scale:
    """A scale of the Body by name; zero: its zero point's name, or empty."""

    name: str
    zero: str


@dataclass(frozen=True, eq=False)
class IntegerPlan(Heads):
    """The code, and where everything lies.

    read: by what queries, keys and values, and the probabilities, are dequantized. written: by what
    is quantized, place in f -> scale.
    """

    code: IntegerCode
    read: tuple[Scale, Scale, Scale, Scale]
    written: Mapping[int, Scale]


def is_integer_attention(body: Body) -> bool:
    """Whether an attention multiplies what it dequantizes."""
    return any(n.op == "DequantizeLinear" for n in body.nodes)


@functools.cache
def integer_tile() -> Tile | None:
    """The tile of this processor's dot products of bytes; None where it has none."""
    features = CpuDevice().fingerprint.features
    if "avx512_vnni" in features:
        return Tile("dot_12x32", 12, 32)
    return Tile("dot_6x16", 6, 16) if "avx_vnni" in features else None


def plan_integer_attention(body: Body) -> IntegerPlan | Refusal:
    """How to run a Body of two INT8 products with a softmax between them, on linear tensors."""
    tile = integer_tile()
    if tile is None:
        return Refusal(
            "this processor has no dot products of bytes (AVX-512 VNNI or AVX-VNNI)", code="vnni"
        )
    try:
        return _Reader(body, tile).plan()
    except Untranslatable as e:
        return Refusal(str(e), code="not_attention")


class _Reader:
    """What the kernel needs of an attention. Raises Untranslatable, naming what does not fit."""

    def __init__(self, body: Body, tile: Tile) -> None:
        self.body, self.tile = body, tile
        self.read = read_attention(body, integers=True)
        self.inputs = {i.name: i.type for i in body.inputs}
        self.producers = {o: n for n in body.nodes for o in n.outputs if o}
        self.written: dict[int, Scale] = {}

    def plan(self) -> IntegerPlan:
        body, read = self.body, self.read
        if max(read.sizes[1:3]) > LARGEST_SUM:
            raise Untranslatable(f"sums of more than {LARGEST_SUM} products leave 32 bits")
        ways = (read.queries, read.keys, read.values)
        shape = body.types[read.scores.outputs[0]].shape
        masks, scored, before, reads = self.before()
        table, steps, streams = placed(ways, read.result, masks, shape)
        factors: list[Factor] = []
        scales: list[Scale] = []
        for k, (way, step) in enumerate(zip(ways, steps, strict=False)):
            lines, value, scale = self.factor(way, F_QUERIES + k)
            dtype = self.inputs[way.source].dtype
            factors.append(Factor(dtype, step[1] == 1, lines, value))
            scales.append(scale)
        high, stored = self.probabilities()
        scales.append(stored)
        dtype = body.output_types[0].dtype
        result = Factor(dtype, steps[-1][1] == 1, *self.result())
        code = IntegerCode(self.tile, tuple(factors), result, high, streams, scored, before, reads)
        sources = [
            Operand(w.source, t.dtype, t.shape) for w in ways for t in [self.inputs[w.source]]
        ]
        q, k, v, p = scales
        operands = (*sources, *masks)
        return IntegerPlan(operands, table, read.sizes, steps, code, (q, k, v, p), self.written)

    # -- factors --------------------------------------------------------------------------
    def factor(self, way: Way, place: int) -> tuple[tuple[str, ...], str, Scale]:
        """Lines that turn the element x into the integer that is multiplied; its scale."""
        *before, last = way.nodes or (None,)
        if last is None or last.op != "DequantizeLinear":
            raise Untranslatable(f"'{way.source}' reaches its product in floating point")
        self.require(last.inputs[0], DataType.INT8)
        scale = self.scale(last)
        if not before:
            return (), "x", scale
        *floats, quantize = before
        if quantize.op != "QuantizeLinear" or any(maps_by_one_scale(self.body, n) for n in floats):
            raise Untranslatable(f"'{way.source}' is quantized more than once, or scaled after it")
        self.written[place] = self.scale(quantize)
        lines, text = self.computed(floats, self.inputs[way.source].dtype)
        more, value = quantized(text, place, DataType.INT8)
        return (*lines, *more), value, scale

    def scale(self, node: Node) -> Scale:
        """The scale of a node that quantizes or dequantizes."""
        if not maps_by_one_scale(self.body, node):
            raise Untranslatable(f"{node.op} '{node.outputs[0]}' has more than one known scale")
        if self.body.types[node.inputs[1]].dtype is not DataType.FLOAT:
            raise Untranslatable(f"the scale '{node.inputs[1]}' is not float32")
        return Scale(node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else "")

    def require(self, value: str, *kinds: DataType) -> DataType:
        dtype = self.body.types[value].dtype
        if dtype not in kinds:
            raise Untranslatable(f"'{value}' is {dtype}, its product reads INT8")
        return dtype

    def computed(self, nodes: Sequence[Node], dtype: DataType) -> tuple[tuple[str, ...], str]:
        """Lines and result of pointwise nodes of one number, on the element x."""
        small = of_one_element(self.body, nodes, dtype)
        (name,) = small.outputs
        if small.types[name].dtype is not DataType.FLOAT:
            raise Untranslatable(f"it computes in {small.types[name].dtype}")
        translator = Translator(small, [])
        translator.define("x", "x")
        result = translator.value(name).text
        return tuple(translator.lines), result

    # -- softmax --------------------------------------------------------------------------
    def probabilities(self) -> tuple[int, Scale]:
        """The largest integer that stands for one, and the scale that the second product reads."""
        dequantize = self.producers.get(self.read.mix.inputs[0])
        quantize = self.producers.get(dequantize.inputs[0]) if dequantize is not None else None
        if (
            dequantize is None
            or quantize is None
            or (dequantize.op, quantize.op) != ("DequantizeLinear", "QuantizeLinear")
            or quantize.inputs[0] != self.read.softmax.outputs[0]
        ):
            raise Untranslatable("its probabilities are not quantized right after the softmax")
        dtype = self.require(quantize.outputs[0], DataType.INT8, DataType.UINT8)
        self.written[F_PROBABILITIES] = self.scale(quantize)
        return int(dtype.info.high), self.scale(dequantize)

    def before(self) -> tuple[list[Operand], tuple[str, ...], str, tuple[int, ...]]:
        """What lies between the scores and the softmax: operands, lines, result, reads."""
        scores, softmax = self.read.scores, self.read.softmax
        if self.body.types[softmax.inputs[0]].dtype is not DataType.FLOAT:
            raise Untranslatable("its softmax is not float32's")
        masks: list[Operand] = []
        translator = Translator(self.body, masks)
        translator.define(scores.outputs[0], "x")
        result = translator.value(softmax.inputs[0]).text
        require_along(masks, self.body.types[scores.outputs[0]].shape)
        return masks, tuple(translator.lines), result, tuple(translator.reads)

    def result(self) -> tuple[tuple[str, ...], str]:
        """What becomes of an element of the result; at most quantized, at the end."""
        nodes = list(self.read.result.nodes)
        quantize = nodes.pop() if nodes and nodes[-1].op == "QuantizeLinear" else None
        if any(maps_by_one_scale(self.body, n) for n in nodes):
            raise Untranslatable("its result is quantized more than once")
        lines, text = self.computed(nodes, DataType.FLOAT)
        if quantize is None:
            return lines, text
        dtype = self.require(quantize.outputs[0], DataType.INT8, DataType.UINT8)
        self.written[F_RESULT] = self.scale(quantize)
        more, value = quantized(text, F_RESULT, dtype)
        return (*lines, *more), value


# -- call ---------------------------------------------------------------------------------
def _blocks(plan: IntegerPlan, threads: int) -> Blocks:
    queries, keys, depth, width = plan.sizes
    tile = plan.code.tile
    panels, columns = -(-keys // tile.columns), -(-width // tile.columns)
    groups, fours = -(-depth // 4), -(-keys // 4)
    deep, line = -(-groups // 8) * 8, panels * tile.columns
    rows = min(MOST_QUERIES // tile.rows, -(-queries // tile.rows)) * tile.rows
    spread = columns * tile.columns
    sizes = (
        panels * deep * tile.columns,  # keys
        columns * fours * tile.columns,  # values
        rows * groups,  # queries
        rows * line,  # scores
        rows * line // 4,  # probabilities
        rows * spread,  # result
        rows,  # 128 times each query's sum
        max(tile.columns * deep, spread),  # keys, or four values, on their way
    )
    return cut(plan, threads, rows=rows, deep=deep, line=line, sizes=sizes)


def _parameters(plan: IntegerPlan, constants: Mapping[str, Array]) -> Array | Refusal:
    """What the kernel multiplies by: the numbers of f."""
    values: list[float] = []
    for s in (*plan.read, *plan.written.values()):
        if s.zero and np.any(np.asarray(constants[s.zero])):
            return Refusal(f"'{s.zero}' is not 0: products here have no zero point", code="zero")
    for s in plan.read:
        values.append(float(np.asarray(constants[s.name]).reshape(-1)[0]))
    q, k, v, p = values
    f = np.ones(PARAMETERS, np.float32)
    f[F_SCORES], f[F_MIX] = q * k, p * v
    for place, s in plan.written.items():
        with np.errstate(divide="ignore", over="ignore"):
            f[place] = np.float32(1) / np.float32(np.asarray(constants[s.name]).reshape(-1)[0])
    return f


def integer_attention_call(
    plan: IntegerPlan, problem: Problem, cache: KernelCache, threads: int
) -> Call | Refusal:
    """Compile a plan and give its Call."""
    numbers = _parameters(plan, problem.constants)
    if isinstance(numbers, Refusal):
        return numbers
    unit = float(numbers[F_SCORES])
    coarse = LEAST_UNIT <= unit < float("inf") and plan.sizes[2] <= DEEPEST
    code = replace(plan.code, coarse=coarse)
    return blocked_call(
        plan,
        problem,
        _blocks(plan, threads),
        threads,
        title=f"numba int8 attention {plan.code.tile.name}",
        compiled=lambda: cache.compile(integer_attention_text(code)),
        numbers=[numbers],
        scratch=lambda own: (own, own.view(np.int32), own.view(np.int8)),
    )
