"""INT8 matrix products by constant weights, on the processor's dot products of bytes.

A block of rows stays in the second-level cache while panels of the weights pass by; a panel is
read from memory once a block, ahead of its use. The sums are exact; the layer's epilogue follows
tile by tile, while the sums are in the first-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import Array, Body, Node
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.formats import HWC, LINEAR, Format
from workbench.operators.windows import window_of
from workbench.records import Refusal
from workbench.tactics.attention_body import maps_by_one_scale
from workbench.tactics.native import nothing
from workbench.tactics.numba.cache import KernelCache
from workbench.tactics.numba.calls import operand_arrays, packed_constants, part, raw
from workbench.tactics.numba.integer_attention import integer_tile
from workbench.tactics.numba.integer_product_code import ProductCode, product_text
from workbench.tactics.numba.product_epilogue import Epilogue, EpilogueReader
from workbench.tactics.numba.product_shapes import GROUP, UNROLLED, suitable_tile
from workbench.tactics.numba.threads import pieces, together
from workbench.tactics.onednn.descriptors import aligned_bytes
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.workspace import over_limit

ANCHORS = ("Conv", "Gemm", "MatMul")

LARGEST_DEPTH = 1 << 16
"""Most products of one sum: 2**16 of 255 times 128 stay below 2**31."""

BLOCK_BYTES = 5 << 17
"""Of a block of rows: with two panels of weights it stays in a second-level cache of 1 MB."""


@dataclass(frozen=True)
class Factor:
    """One factor as stored: a Body input, the scale and the zero point (or empty) it is read by."""

    name: str
    scale: str
    zero: str


@dataclass(frozen=True, eq=False)
class ProductPlan:
    """Rows by columns, each a sum of ``depth`` products, and what becomes of them.

    turned: the weights' rows are the result's columns. layout: of the images, if any. overwritable:
    the dynamic input whose memory may be the output's.
    """

    rows: int
    depth: int
    columns: int
    source: Factor
    weights: Factor
    turned: bool
    code: ProductCode
    layouts: tuple[Format, ...]
    layout: Format
    overwritable: int | None

    @property
    def elements(self) -> int:
        """Multiply-adds."""
        return self.rows * self.depth * self.columns


def is_quantized_product(body: Body) -> bool:
    """Whether a product that reads a dequantized tensor anchors a Body."""
    node = body.anchor_node
    return node is not None and node.op in ANCHORS and "DequantizeLinear" in body.operator_names


# -- plan ---------------------------------------------------------------------------------
def plan_integer_product(body: Body) -> ProductPlan | Refusal:
    """How to run a Body anchored at an INT8 product by constant weights, or why not in this way."""
    tile = integer_tile()
    if tile is None:
        return Refusal(
            "this processor has no dot products of bytes (AVX-512 VNNI or AVX-VNNI)", code="vnni"
        )
    try:
        return _Reader(body).plan(lanes=16 if tile.columns == 32 else 8)
    except Untranslatable as e:
        return Refusal(str(e), code="not_integer_product")


def _is_plain(gemm: Node) -> bool:
    a = gemm.attributes
    return not a["transA"] and a["alpha"] == 1 and (a["beta"] == 1 or len(gemm.inputs) < 3)


class _Reader:
    """What the kernel needs of a product. Raises Untranslatable, naming what does not fit."""

    def __init__(self, body: Body) -> None:
        anchor = body.anchor_node
        if anchor is None or anchor.op not in ANCHORS:
            raise Untranslatable("no product anchors it")
        self.body, self.anchor = body, anchor
        self.inputs = {i.name: i for i in body.inputs}
        self.dynamic = {i.name for i in body.dynamic_inputs}
        self.producers = {o: n for n in body.nodes for o in n.outputs if o}

    def plan(self, lanes: int) -> ProductPlan:
        body, anchor = self.body, self.anchor
        turned = anchor.op == "Conv" or bool(anchor.attributes.get("transB"))
        source = self.source(anchor.inputs[0])
        weights = self.weights(anchor.inputs[1], 0 if turned else 1)
        result = body.types[anchor.outputs[0]].shape
        shape = body.types[weights.name].shape
        depth, columns = (shape[1], shape[0]) if turned else shape[:2]
        layout = LINEAR
        if anchor.op == "Conv":
            layout = HWC
            self.require_points()
        elif len(shape) != 2:
            raise Untranslatable(f"weights '{weights.name}' have rank {len(shape)}")
        if anchor.op == "Gemm" and not _is_plain(anchor):
            raise Untranslatable("a Gemm that turns its first factor, or scales")
        if depth > LARGEST_DEPTH:
            raise Untranslatable(f"sums of more than {LARGEST_DEPTH} products leave 32 bits")
        if not math.prod(result) or not depth:
            raise Untranslatable("it is empty")
        rows = math.prod(result) // columns
        tile = suitable_tile(rows, columns, depth, lanes)
        dtype = body.types[source.name].dtype
        code = ProductCode(tile, dtype, self.epilogue(result))
        layouts = tuple(
            layout if i.type.shape == result or i.name == source.name else LINEAR
            for i in body.dynamic_inputs
        )
        over = self.overwritable(code.epilogue)
        return ProductPlan(
            rows, depth, columns, source, weights, turned, code, layouts, layout, over
        )

    # -- factors --------------------------------------------------------------------------
    def source(self, value: str) -> Factor:
        """The first factor: a dynamic input that one scale dequantizes."""
        node = self.dequantized(value)
        if not maps_by_one_scale(self.body, node):
            raise Untranslatable(f"'{value}' has more than one known scale")
        name = node.inputs[0]
        if name not in self.inputs or self.inputs[name].constant:
            raise Untranslatable(f"'{name}' is no input at run time")
        if self.body.types[name].dtype not in (DataType.INT8, DataType.UINT8):
            raise Untranslatable(f"'{name}' is {self.body.types[name].dtype}, not 8-bit integers")
        return self.factor(node)

    def weights(self, value: str, axis: int) -> Factor:
        """The second one: a constant with one scale, or one for each column of the result."""
        node = self.dequantized(value)
        name = node.inputs[0]
        if name not in self.inputs or not self.inputs[name].constant:
            raise Untranslatable(f"weights '{name}' are not constant")
        if self.body.types[name].dtype is not DataType.INT8:
            raise Untranslatable(f"weights '{name}' are {self.body.types[name].dtype}, not INT8")
        rank = len(self.body.types[name].shape)
        single = math.prod(self.body.types[node.inputs[1]].shape) == 1
        if not single and (node.attributes["axis"] % rank != axis or self.blocked(node)):
            raise Untranslatable(f"'{value}' is not quantized along the result's columns")
        return self.factor(node)

    def dequantized(self, value: str) -> Node:
        node = self.producers.get(value)
        if node is None or node.op != "DequantizeLinear":
            raise Untranslatable(f"'{value}' reaches the product in floating point")
        return node

    def blocked(self, node: Node) -> bool:
        return bool(node.attributes.get("block_size"))

    def factor(self, node: Node) -> Factor:
        known = {i.name for i in self.body.inputs if i.constant}
        for v in node.inputs[1:]:
            if v and v not in known:
                raise Untranslatable(f"'{v}' is not a constant input")
        if self.body.types[node.inputs[1]].dtype is not DataType.FLOAT:
            raise Untranslatable(f"the scale '{node.inputs[1]}' is not float32")
        return Factor(node.inputs[0], node.inputs[1], node.inputs[2] if node.inputs[2:] else "")

    def require_points(self) -> None:
        """A convolution that is a product at each point of the image."""
        x, w = (self.body.types[v].shape for v in self.anchor.inputs[:2])
        if len(x) != 4:
            raise Untranslatable(f"its images have rank {len(x)}")
        window = window_of(self.anchor.attributes, x[2:], w[2:])
        plain = {*window.kernel, *window.strides, self.anchor.attributes.get("group") or 1}
        if plain != {1} or any((*window.begin, *window.end)):
            raise Untranslatable("it is not 1 by 1 of stride 1 in one group")

    # -- epilogue -------------------------------------------------------------------------
    def epilogue(self, result: tuple[int, ...]) -> Epilogue:
        """What follows the product."""
        body, anchor = self.body, self.anchor
        images = anchor.op == "Conv"
        bias = anchor.inputs[2] if len(anchor.inputs) > 2 else ""
        found = EpilogueReader(body, result, axis=1 if images else len(result) - 1)
        third = None
        if bias:
            shape = body.types[bias].shape
            third = (bias, (*shape, 1, 1) if images else shape)
        epilogue = found.read(anchor, third)
        for o in epilogue.operands:
            if images and o.name in self.dynamic and 1 < len(o.shape) < len(result):
                raise Untranslatable(f"'{o.name}' {o.shape} does not lie as images do")
        return epilogue

    def overwritable(self, epilogue: Epilogue) -> int | None:
        """An input that lies as the one output: each element is read before that is written."""
        types = self.body.output_types
        for k, i in enumerate(self.body.dynamic_inputs):
            read = any(o.name == i.name for o in epilogue.operands)
            if len(types) == 1 and read and i.type == types[0]:
                return k
        return None


# -- call ---------------------------------------------------------------------------------
def _packed(plan: ProductPlan, constants: Mapping[str, Array]) -> Array:
    """The weights: panels of columns, groups of 4 of the depth, columns, 4."""
    w = np.asarray(constants[plan.weights.name]).reshape(
        (plan.columns, plan.depth) if plan.turned else (plan.depth, plan.columns)
    )
    wide = plan.code.tile.columns
    deep, panels = _turns(plan) * GROUP, -(-plan.columns // wide)
    padded = np.zeros((panels * wide, deep), np.int8)
    padded[: plan.columns, : plan.depth] = w if plan.turned else w.T
    grouped = padded.reshape(panels, wide, deep // 4, 4)
    # Vectors that begin at a cache line: one that crosses two is read twice.
    found = aligned_bytes(padded.size).view(np.int8)
    np.copyto(found.reshape(panels, deep // 4, wide, 4), grouped.transpose(0, 2, 1, 3))
    return found


def _turns(plan: ProductPlan) -> int:
    return -(-plan.depth // GROUP)


def _columns(
    plan: ProductPlan, constants: Mapping[str, Array], packed: Array
) -> tuple[Array, Array] | Refusal:
    """Each column's factor, and what its sums lack: the first factor is read as unsigned."""
    if plan.weights.zero and np.any(np.asarray(constants[plan.weights.zero])):
        return Refusal(
            f"'{plan.weights.zero}' is not 0: weights here have no zero point", code="zero"
        )
    zero = 0
    if plan.source.zero:
        zero = int(np.asarray(constants[plan.source.zero]).reshape(-1)[0])
    zero += 128 if plan.code.source is DataType.INT8 else 0
    wide = plan.code.tile.columns
    grouped = packed.reshape(-1, _turns(plan) * UNROLLED, wide, 4)
    sums = grouped.sum((1, 3), dtype=np.int64).reshape(-1)
    scale = np.ones(sums.size, np.float32)
    scale[: plan.columns] = np.asarray(constants[plan.source.scale]).reshape(-1)[0] * np.asarray(
        constants[plan.weights.scale]
    ).reshape(-1)
    return scale, (-zero * sums).astype(np.int32)


@dataclass(frozen=True)
class _Blocks:
    """How rows are cut. length: bytes of a thread's scratch memory; tile: where its sums lie."""

    units: int
    geometry: Array
    length: int
    tile: int


def _blocks(plan: ProductPlan) -> _Blocks:
    tile = plan.code.tile
    # An odd number of lines between rows: they fall on different sets of a cache.
    step = (-(-plan.depth // 64) | 1) * 64
    most = max(1, BLOCK_BYTES // step // tile.rows)
    tiles = -(-plan.rows // tile.rows)
    block = math.ceil(tiles / math.ceil(tiles / most)) * tile.rows
    panels = -(-plan.columns // tile.columns)
    sizes = (plan.rows, plan.depth, plan.columns, block, panels, step, _turns(plan))
    # The last turn of the last row's loop may read beyond the depth.
    rows = -(-(block * step + GROUP) // 64) * 64
    length = rows + 4 * tile.rows * tile.columns
    units = -(-plan.rows // block) * panels
    return _Blocks(units, np.array(sizes, np.int64), length, rows)


def integer_product_call(
    plan: ProductPlan, problem: Problem, cache: KernelCache, threads: int
) -> Call | Refusal:
    """Compile a plan, pack its weights, and give its Call."""
    body, blocks = problem.body, _blocks(plan)
    ranges = pieces(blocks.units, threads)
    nbytes = len(ranges) * blocks.length
    hungry = over_limit(nbytes, problem.workspace_limit)
    if hungry is not None:
        return hungry
    key = f"weights of an INT8 product by {plan.code.tile.columns} and {GROUP}"
    kept = problem.prepacked.get(key)
    weights = _packed(plan, problem.constants) if kept is None else kept.view(np.int8)
    columns = _columns(plan, problem.constants, weights)
    if isinstance(columns, Refusal):
        return columns
    scale, correction = columns
    numbers = plan.code.epilogue.values(problem.constants)
    kernel = cache.compile(product_text(plan.code))
    rank = 4 if plan.layout == HWC else 0
    constants = packed_constants(plan.code.epilogue.operands, problem, rank, plan.layout)
    position = [i.name for i in body.dynamic_inputs].index(plan.source.name)

    def bind(
        inputs: Sequence[Buffer], results: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        if not blocks.units:
            return nothing
        assert workspace is not None
        arrays = operand_arrays(plan.code.epilogue.operands, constants, body, inputs)
        arrays += [raw(b, t.dtype) for b, t in zip(results, body.output_types, strict=True)]
        arrays += [raw(inputs[position], plan.code.source), weights, scale, correction, numbers]
        launches: list[Launch] = []
        for k, (a, b) in enumerate(ranges):
            own = raw(workspace, DataType.UINT8)[k * blocks.length : (k + 1) * blocks.length]
            scratch = (own[: blocks.tile], own[blocks.tile :].view(np.int32))
            launches.append(part(kernel, a, b, blocks.geometry, *arrays, *scratch))
        return together(launches)

    return Call(
        f"numba int8 product {plan.code.tile.name} {'+'.join(body.operator_names)}",
        bind,
        nbytes,
        packed={"weights": weights},
        prepacked={key: weights.view(np.uint8)},
    )
