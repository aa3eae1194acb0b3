"""Matrix products with pointwise epilogues as cuDNN graphs; row-major, three axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from workbench.body import Body, Node
from workbench.datatypes import DataType
from workbench.formats import LINEAR, Format
from workbench.tactics.cudnn.epilogue import FLOATS, Epilogue, Undescribed
from workbench.tactics.cudnn.graph import Drawing, Graph, Input, dense
from workbench.tactics.terms import Constant, Constants, Term

ANCHORS = ("Gemm", "MatMul")


@dataclass(frozen=True)
class Rows:
    """(batch, rows, columns) of a result of any rank.

    merged: leading axes count as rows (the second matrix is one for all); otherwise as batch.
    """

    shape: tuple[int, ...]
    merged: bool
    layout: Format = LINEAR

    @property
    def dims(self) -> tuple[int, ...]:
        return self.dims_of(self.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        return dense(self.dims)

    def dims_of(self, shape: Sequence[int]) -> tuple[int, ...]:
        if len(shape) > len(self.shape):
            raise Undescribed(f"an operand of shape {tuple(shape)} has more axes", "shape")
        full = (*(1,) * (len(self.shape) - len(shape)), *shape)
        split = len(full) - 1 if self.merged else len(full) - 2
        lead = self._as_one(full[:split], self.shape[:split])
        return (1, lead, full[-1]) if self.merged else (lead, *full[-2:])

    def _as_one(self, sizes: Sequence[int], whole: Sequence[int]) -> int:
        if all(d == 1 for d in sizes):
            return 1
        if tuple(sizes) != tuple(whole):
            raise Undescribed(f"an operand broadcasts {tuple(sizes)} to {tuple(whole)}", "shape")
        return prod(sizes)

    def strides_of(self, dims: Sequence[int]) -> tuple[int, ...]:
        return dense(dims)


def describe(body: Body, constants: Constants) -> tuple[Graph, ...]:
    """The graph that computes the Body. Raises Undescribed."""
    anchor = body.anchor_node
    assert anchor is not None
    if len(body.outputs) != 1:
        raise Undescribed(f"the layer has {len(body.outputs)} outputs", "outputs")
    a, b = (body.types[v].shape for v in anchor.inputs[:2])
    if len(a) < 2 or len(b) < 2:
        raise Undescribed("a factor is a vector", "rank")
    result = body.types[anchor.outputs[0]].shape
    view = Rows(tuple(result), merged=len(b) == 2)
    e = Epilogue(body, constants, Drawing(), view)
    product, kind = _product(e, anchor)
    if anchor.op == "Gemm":
        product = _added(e, anchor, product)
    e.known[anchor.outputs[0]] = product
    out = e.value(body.outputs[0])
    stored = body.output_types[0].dtype
    if stored not in FLOATS and stored is not kind:
        raise Undescribed(f"its output is {stored.value}", "type")
    inputs = [LINEAR] * len(body.dynamic_inputs)
    graph = e.drawing.graph(
        out, stored, variant="as written", io=kind, inputs=inputs, outputs=(LINEAR,)
    )
    return (graph,)


def _added(e: Epilogue, anchor: Node, product: str) -> str:
    attributes = anchor.attributes
    if attributes["alpha"] != 1.0 or attributes["beta"] != 1.0:
        raise Undescribed("Gemm with alpha or beta", "attribute")
    if len(anchor.inputs) < 3 or not anchor.inputs[2]:
        return product
    return e.binary("add", product, e.value(anchor.inputs[2]))


def _product(e: Epilogue, anchor: Node) -> tuple[str, DataType]:
    f = e.factors(anchor)
    gemm = anchor.op == "Gemm"
    view = e.view
    assert isinstance(view, Rows)
    x = _factor(e, f.left, view, turned=gemm and bool(anchor.attributes["transA"]), first=True)
    y = _factor(e, f.right, view, turned=gemm and bool(anchor.attributes["transB"]), first=False)
    summed = DataType.INT32 if f.kind is DataType.INT8 else DataType.FLOAT
    made = e.drawing.add(
        "matmul",
        (("A", x), ("B", y)),
        view.dims,
        view.strides,
        result=summed,
        compute=summed,
    )
    if f.quantized is None:
        return made, f.kind
    return _dequantized(e, made, *f.quantized, gemm=gemm, anchor=anchor), f.kind


def _factor(e: Epilogue, name: str, view: Rows, *, turned: bool, first: bool) -> str:
    """A factor as (batch, rows, columns). Constants are stored with the summed axis innermost."""
    t = e.body.types[name]
    shape = tuple(t.shape)
    if first and view.merged and not turned:
        dims = (1, prod(shape[:-1]), shape[-1])
    else:
        lead = () if view.merged else tuple(view.shape[:-2])
        full = (*(1,) * (len(lead) + 2 - len(shape)), *shape)
        if any(d != 1 for d in full[:-2]) and full[:-2] != lead:
            raise Undescribed(f"a factor broadcasts {full[:-2]} to {lead}", "shape")
        dims = (prod(full[:-2]), *full[-2:])
    if e.constants.knows(name):
        return _constant_factor(e, name, t.dtype, dims, turned=turned)
    if name not in e.dynamic:
        made = e.producers[name].op
        raise Undescribed(f"{made} '{name}' comes before the product", "prologue")
    e.layouts[name] = LINEAR
    strides = dense(dims)
    if turned:
        dims, strides = (dims[0], dims[2], dims[1]), (strides[0], strides[2], strides[1])
    return e.drawing.tensor("x", dims, strides, t.dtype, Input(e.dynamic[name]))


def _constant_factor(
    e: Epilogue, name: str, kind: DataType, given: tuple[int, ...], *, turned: bool
) -> str:
    batch, rows, columns = (given[0], given[2], given[1]) if turned else given
    order = (0, 1, 2) if turned else (0, 2, 1)
    packed = Constant(Term.of(name), kind, given, order)
    strides = (rows * columns, 1, rows)
    return e.drawing.tensor("w", (batch, rows, columns), strides, kind, packed)


def _dequantized(e: Epilogue, made: str, x: Node, y: Node, *, gemm: bool, anchor: Node) -> str:
    scale_x, shape_x = e.scale_of(x)
    scale_y, shape_y = e.scale_of(y)
    if any(d != 1 for d in shape_x):
        raise Undescribed("its first factor is quantized per channel", "per_channel")
    if not any(d != 1 for d in shape_y):
        return e.scaled(made, scale_x * scale_y, ())
    rank = len(e.body.types[y.inputs[0]].shape)
    columns = rank - 2 if gemm and anchor.attributes["transB"] else rank - 1
    if y.attributes["axis"] % rank != columns:
        raise Undescribed("its weights are not quantized along the result's columns", "per_channel")
    return e.scaled(made, scale_x * scale_y, shape_y)
