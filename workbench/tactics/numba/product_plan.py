"""Which products by constant weights the generated kernels take, and how: the plan of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.body import Body, Node
from workbench.datatypes import DataType
from workbench.formats import HWC, LINEAR, Format
from workbench.operators.windows import Window, window_of
from workbench.records import Refusal
from workbench.tactics.attention_body import maps_by_one_scale
from workbench.tactics.numba.attention import has_wide_registers
from workbench.tactics.numba.integer_attention import integer_tile
from workbench.tactics.numba.product_code import ProductCode, Rows
from workbench.tactics.numba.product_epilogue import Epilogue, EpilogueReader
from workbench.tactics.numba.product_shapes import GROUP, suitable_tile
from workbench.tactics.scalar_text import Untranslatable

ANCHORS = ("Conv", "Gemm", "MatMul")

LARGEST_DEPTH = 1 << 16
"""Most products of bytes in one sum: 2**16 of 255 times 128 stay below 2**31."""


@dataclass(frozen=True)
class Factor:
    """One factor as stored: a Body input; the scale and the zero point it is read by, or empty."""

    name: str
    scale: str = ""
    zero: str = ""


@dataclass(frozen=True, eq=False)
class ProductPlan:
    """Rows by columns, each a sum of ``depth`` products, and what becomes of them.

    turned: the weights' rows are the result's columns. layout: of the images, if any. image: sizes
    of the images and the window whose patches are the rows, if they are. overwritable: the dynamic
    input whose memory may be the output's.
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
    image: tuple[tuple[int, ...], Window] | None
    overwritable: int | None

    @property
    def elements(self) -> int:
        """Multiply-adds."""
        return self.rows * self.depth * self.columns

    @property
    def turns(self) -> int:
        """Of a tile's loop, that a sum takes."""
        return _turns(self.depth, self.code.source)


def _turns(depth: int, dtype: DataType) -> int:
    return -(-depth * dtype.info.bits // (8 * GROUP))


def is_product(body: Body) -> bool:
    """Whether a product anchors a Body."""
    node = body.anchor_node
    return node is not None and node.op in ANCHORS


def plan_product(body: Body) -> ProductPlan | Refusal:
    """How to run a Body anchored at a product by constant weights, or why not in this way.

    Factors are float32, or both bytes that are dequantized.
    """
    if "DequantizeLinear" not in body.operator_names:
        return _planned(_FloatReader(body), lanes=16 if has_wide_registers() else 8)
    tile = integer_tile()
    if tile is None:
        return Refusal(
            "this processor has no dot products of bytes (AVX-512 VNNI or AVX-VNNI)", code="vnni"
        )
    return _planned(_BytesReader(body), lanes=16 if tile.columns == 32 else 8)


def _planned(reader: _Reader, lanes: int) -> ProductPlan | Refusal:
    try:
        return reader.plan(lanes)
    except Untranslatable as e:
        return Refusal(str(e), code="not_product")


def _is_plain(gemm: Node) -> bool:
    a = gemm.attributes
    return not a["transA"] and a["alpha"] == 1 and (a["beta"] == 1 or len(gemm.inputs) < 3)


class _Reader:
    """What the kernel needs of a product. Raises Untranslatable, naming what does not fit."""

    def __init__(self, body: Body) -> None:
        anchor = body.anchor_node
        assert anchor is not None
        self.body, self.anchor = body, anchor
        self.inputs = {i.name: i for i in body.inputs}
        self.dynamic = {i.name for i in body.dynamic_inputs}
        self.producers = {o: n for n in body.nodes for o in n.outputs if o}

    def source(self, value: str) -> Factor:
        """The first factor: a dynamic input."""
        raise NotImplementedError

    def weights(self, value: str, axis: int) -> Factor:
        """The second one: a constant. axis: of the result's columns."""
        raise NotImplementedError

    def plan(self, lanes: int) -> ProductPlan:
        body, anchor = self.body, self.anchor
        images = anchor.op == "Conv"
        turned = images or bool(anchor.attributes.get("transB"))
        source = self.source(anchor.inputs[0])
        weights = self.weights(anchor.inputs[1], 0 if turned else 1)
        result = body.types[anchor.outputs[0]].shape
        shape = body.types[weights.name].shape
        image = self.image() if images else None
        if not images and len(shape) != 2:
            raise Untranslatable(f"weights '{weights.name}' have rank {len(shape)}")
        if anchor.op == "Gemm" and not _is_plain(anchor):
            raise Untranslatable("a Gemm that turns its first factor, or scales")
        columns = shape[0] if turned else shape[1]
        depth = math.prod(shape) // max(1, columns)
        if not math.prod(result) or not depth:
            raise Untranslatable("it is empty")
        rows = math.prod(result) // columns
        epilogue = self.epilogue(result)
        dtype = body.types[source.name].dtype
        if dtype is not DataType.FLOAT and depth > LARGEST_DEPTH:
            raise Untranslatable(f"sums of more than {LARGEST_DEPTH} products leave 32 bits")
        tile = suitable_tile(rows, columns, _turns(depth, dtype), lanes)
        kind = Rows.PATCHES if image else Rows.COPIED
        whole = rows >= tile.rows and depth * 4 % GROUP == 0
        if whole and kind is Rows.COPIED and dtype is DataType.FLOAT:
            kind = Rows.IN_PLACE
        code = ProductCode(tile, dtype, kind, epilogue)
        layout = HWC if images else LINEAR
        layouts = tuple(
            layout if i.type.shape == result or i.name == source.name else LINEAR
            for i in body.dynamic_inputs
        )
        over = self.overwritable(epilogue, source)
        return ProductPlan(
            rows, depth, columns, source, weights, turned, code, layouts, layout, image, over
        )

    def image(self) -> tuple[tuple[int, ...], Window] | None:
        """Sizes and window of a convolution; None where it is a product at each point."""
        x, w = (self.body.types[v].shape for v in self.anchor.inputs[:2])
        if len(x) != 4:
            raise Untranslatable(f"its images have rank {len(x)}")
        if (self.anchor.attributes.get("group") or 1) != 1:
            raise Untranslatable("it has groups")
        window = window_of(self.anchor.attributes, x[2:], w[2:])
        plain = {*window.kernel, *window.strides} == {1}
        return None if plain and not any((*window.begin, *window.end)) else (x, window)

    # -- epilogue -------------------------------------------------------------------------
    def epilogue(self, result: Sequence[int]) -> Epilogue:
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

    def overwritable(self, epilogue: Epilogue, source: Factor) -> int | None:
        """An input that lies as the one output: each element is read before that is written."""
        types = self.body.output_types
        for k, i in enumerate(self.body.dynamic_inputs):
            read = any(o.name == i.name for o in epilogue.operands) and i.name != source.name
            if len(types) == 1 and read and i.type == types[0]:
                return k
        return None


class _FloatReader(_Reader):
    """Of factors in float32."""

    def source(self, value: str) -> Factor:
        return self.stored(value, "the first factor", value in self.dynamic)

    def weights(self, value: str, axis: int) -> Factor:
        constant = value in self.inputs and self.inputs[value].constant
        return self.stored(value, "weights", constant)

    def stored(self, value: str, which: str, suits: bool) -> Factor:
        if not suits:
            where = "computed inside" if value in self.producers else "no such input"
            raise Untranslatable(f"{which} '{value}': {where}")
        dtype = self.body.types[value].dtype
        if dtype is not DataType.FLOAT:
            raise Untranslatable(f"{which} '{value}': {dtype}, not float32")
        return Factor(value)


class _BytesReader(_Reader):
    """Of factors that are dequantized: stored as bytes, one scale each, or one a column."""

    def source(self, value: str) -> Factor:
        node = self.dequantized(value)
        if not maps_by_one_scale(self.body, node):
            raise Untranslatable(f"'{value}' has more than one known scale")
        name = node.inputs[0]
        if name not in self.dynamic:
            raise Untranslatable(f"'{name}' is no input at run time")
        if self.body.types[name].dtype not in (DataType.INT8, DataType.UINT8):
            raise Untranslatable(f"'{name}' is {self.body.types[name].dtype}, not 8-bit integers")
        return self.factor(node)

    def weights(self, value: str, axis: int) -> Factor:
        node = self.dequantized(value)
        name = node.inputs[0]
        if name not in self.inputs or not self.inputs[name].constant:
            raise Untranslatable(f"weights '{name}' are not constant")
        if self.body.types[name].dtype is not DataType.INT8:
            raise Untranslatable(f"weights '{name}' are {self.body.types[name].dtype}, not INT8")
        rank = len(self.body.types[name].shape)
        single = math.prod(self.body.types[node.inputs[1]].shape) == 1
        blocked = bool(node.attributes.get("block_size"))
        if not single and (node.attributes["axis"] % rank != axis or blocked):
            raise Untranslatable(f"'{value}' is not quantized along the result's columns")
        return self.factor(node)

    def dequantized(self, value: str) -> Node:
        node = self.producers.get(value)
        if node is None or node.op != "DequantizeLinear":
            raise Untranslatable(f"'{value}' reaches the product in floating point")
        return node

    def factor(self, node: Node) -> Factor:
        known = {i.name for i in self.body.inputs if i.constant}
        for v in node.inputs[1:]:
            if v and v not in known:
                raise Untranslatable(f"'{v}' is not a constant input")
        if self.body.types[node.inputs[1]].dtype is not DataType.FLOAT:
            raise Untranslatable(f"the scale '{node.inputs[1]}' is not float32")
        return Factor(node.inputs[0], node.inputs[1], node.inputs[2] if node.inputs[2:] else "")
