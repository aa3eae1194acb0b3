"""What cuBLASLt computes in one call: a product with bias, residual and activation."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np

from workbench.body import Body, BodyInput, Node, TensorType
from workbench.datatypes import DataType
from workbench.formats import HWC, LINEAR, Format
from workbench.operators import operator_named
from workbench.operators.windows import window_of
from workbench.records import Refusal
from workbench.tactics.terms import Constants, Term

FLOATS = frozenset({DataType.FLOAT, DataType.HALF, DataType.BF16})
NARROW = frozenset({DataType.INT8, DataType.FP8})
"""Types read through DequantizeLinear. Their factors must both have the summed axis innermost."""


ONE = Term()


class Unfit(Exception):
    """A Body is not one call of cuBLASLt; the text says why. code: of the Refusal."""

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Factor:
    """A matrix, or a stack of them, row-major as stored.

    turned: the product reads it transposed. stride: elements from one matrix to the next, 0 for
    one matrix in all products. flipped: a constant whose rows and columns were exchanged when it
    was packed.
    """

    name: str
    kind: DataType
    rows: int
    columns: int
    turned: bool = False
    stride: int = 0
    flipped: bool = False


@dataclass(frozen=True)
class Product:
    """out[m, n] = act(alpha · a[m, k] · b[k, n] + bias[n] + residual[m, n]), row-major, batched.

    alpha, scale: of the sums and of a quantized output, as terms over the Body's constants;
    number: a further factor of alpha. columns: of the sums of each column, a factor beside alpha,
    where the second factor is quantized per channel. kind: the type that is multiplied; out: the
    type stored. layout: of the inputs and outputs that have more than two axes.
    """

    m: int
    n: int
    k: int
    batch: int
    a: Factor
    b: Factor
    kind: DataType
    out: DataType
    bias: str = ""
    residual: str = ""
    activation: str = ""
    alpha: Term = ONE
    number: float = 1.0
    scale: Term | None = None
    columns: Term | None = None
    layout: Format = LINEAR


def product_of(body: Body, constants: Constants) -> Product | Refusal:
    """The product that a Body is, if cuBLASLt computes all of it in one call."""
    anchor = body.anchor_node
    if anchor is None or anchor.op not in ("Gemm", "MatMul", "Conv"):
        return Refusal("cuBLASLt multiplies matrices only", code="operator")
    if any(0 in t.shape for t in body.types.values()):
        return Refusal("a tensor of the layer is empty", code="shape")
    try:
        return _Reader(body, constants, anchor).product()
    except Unfit as e:
        return Refusal(str(e), code=e.code)


class _Reader:
    """Takes a Body apart. Raises Unfit."""

    def __init__(self, body: Body, constants: Constants, anchor: Node) -> None:
        self.body = body
        self.types = body.types
        self.constants = constants
        self.anchor = anchor
        self.producers = constants.producers
        self.dynamic = {i.name for i in body.dynamic_inputs}
        self.number = 1.0
        self.alpha = Term()
        self.columns: Term | None = None

    def product(self) -> Product:
        if len(self.body.outputs) != 1:
            raise Unfit(f"the layer has {len(self.body.outputs)} outputs", "outputs")
        made = self.convolution() if self.anchor.op == "Conv" else self.matrices()
        made = replace(self.epilogue(made), columns=self.columns)
        _require_types(made)
        return replace(made, alpha=self.alpha, number=self.number)

    # -- factors --------------------------------------------------------------------------
    def matrices(self) -> Product:
        a, turned_a = self.seen(self.anchor.inputs[0])
        b, turned_b = self.seen(self.anchor.inputs[1])
        bias = ""
        if self.anchor.op == "Gemm":
            t = self.anchor.attributes
            turned_a ^= bool(t["transA"])
            turned_b ^= bool(t["transB"])
            self.number *= t["alpha"]
            bias = self.anchor.inputs[2] if len(self.anchor.inputs) > 2 else ""
            if bias and t["beta"] != 1.0:
                raise Unfit("Gemm with beta", "attribute")
        shape_a, shape_b = self.types[a].shape, self.types[b].shape
        if len(shape_a) < 2 or len(shape_b) < 2:
            raise Unfit("a factor is a vector", "shape")
        out = self.types[self.anchor.outputs[0]].shape
        merged = len(shape_b) == 2 and not turned_a
        lead = () if merged else tuple(out[:-2])
        first = self.factor(a, lead, turned=turned_a, merged=merged)
        second = self.factor(b, lead, turned=turned_b)
        made = Product(
            prod(out[:-1]) if merged else out[-2],
            out[-1],
            first.rows if turned_a else first.columns,
            prod(lead),
            first,
            second,
            first.kind,
            self.body.output_types[0].dtype,
        )
        return self.added(made, bias) if bias else made

    def convolution(self) -> Product:
        """A 1x1 convolution with stride 1, as a product on channels-last tensors."""
        x, turned_x = self.seen(self.anchor.inputs[0])
        w, turned_w = self.seen(self.anchor.inputs[1])
        shape, filters = self.types[x].shape, self.types[w].shape
        at = self.anchor.attributes
        window = window_of(at, shape[2:], filters[2:])
        plain = {*filters[2:], *window.strides, at["group"]} == {1}
        if not plain or any((*window.begin, *window.end)) or turned_x or turned_w:
            raise Unfit("only 1x1 convolutions with stride 1 are matrix products", "window")
        if not self.constants.knows(w) or x not in self.dynamic:
            raise Unfit("its weights arrive at run time", "weights")
        rows, channels = shape[0] * prod(shape[2:]), shape[1]
        made = Product(
            rows,
            filters[0],
            channels,
            1,
            Factor(x, self.types[x].dtype, rows, channels),
            Factor(w, self.types[w].dtype, filters[0], channels, turned=True),
            self.types[x].dtype,
            self.body.output_types[0].dtype,
            layout=HWC,
        )
        bias = self.anchor.inputs[2] if len(self.anchor.inputs) > 2 else ""
        if bias and not self.constants.knows(bias):
            raise Unfit("its bias arrives at run time", "bias")
        return replace(made, bias=bias)

    def seen(self, value: str) -> tuple[str, bool]:
        """What is stored under a factor, and whether it is read transposed.

        Dequantizations and factors of one number go into ``alpha``.
        """
        turned = False
        while value not in self.dynamic and value not in self.body_constants:
            node = self.producers[value]
            if node.op == "DequantizeLinear":
                self.dequantized(node)
                value = node.inputs[0]
            elif node.op == "Transpose" and _swaps(node, len(self.types[value].shape)):
                turned = not turned
                value = node.inputs[0]
            elif node.op == "Mul" and any(self.is_number(v) for v in node.inputs):
                known = 0 if self.is_number(node.inputs[0]) else 1
                self.number *= self.constants.number(node.inputs[known])
                value = node.inputs[1 - known]
            elif self.constants.knows(value):
                return value, turned
            else:
                raise Unfit(f"{node.op} '{value}' comes before the product", "prologue")
        return value, turned

    @property
    def body_constants(self) -> set[str]:
        return self.constants.constant_inputs

    def factor(
        self, name: str, lead: Sequence[int], *, turned: bool, merged: bool = False
    ) -> Factor:
        t = self.types[name]
        shape = tuple(t.shape)
        if merged:
            return Factor(name, t.dtype, prod(shape[:-1]), shape[-1])
        own = (*(1,) * (len(lead) + 2 - len(shape)), *shape)[:-2]
        if any(d != 1 for d in own) and own != tuple(lead):
            raise Unfit(f"a factor broadcasts {own} to {tuple(lead)}", "shape")
        stride = shape[-2] * shape[-1] if any(d != 1 for d in own) else 0
        return Factor(name, t.dtype, shape[-2], shape[-1], turned, stride)

    def is_number(self, value: str) -> bool:
        return self.constants.knows(value) and prod(self.types[value].shape) == 1

    def scale_of(self, node: Node) -> Term:
        scale, point = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else ""
        if not self.constants.knows(scale) or (point and not self.constants.knows(point)):
            raise Unfit("a scale or zero point arrives at run time", "dynamic_scale")
        if point and self.constants.value(point).astype(np.float64).any():
            raise Unfit("cuBLASLt multiplies without zero points; this one is not 0", "zero")
        return Term.of(scale)

    def number_of(self, node: Node) -> Term:
        """The one scale of a whole tensor."""
        term = self.scale_of(node)
        if prod(self.types[node.inputs[1]].shape) != 1:
            raise Unfit("it is quantized per channel; cuBLASLt's scales are per tensor", "scale")
        return term

    def dequantized(self, node: Node) -> None:
        """Notes a factor's scale: of the sums, or of each of their columns."""
        if prod(self.types[node.inputs[1]].shape) == 1:
            self.alpha = self.alpha * self.scale_of(node)
            return
        stored = self.types[node.inputs[0]]
        along = {"Conv": 0, "MatMul": len(stored.shape) - 1}.get(self.anchor.op)
        if along is None:
            along = 0 if self.anchor.attributes["transB"] else 1
        second = node.outputs[0] == self.anchor.inputs[1]
        if not second or node.attributes["axis"] % len(stored.shape) != along:
            raise Unfit("it is quantized per channel of what is summed", "scale")
        if stored.dtype is not DataType.FP8:
            raise Unfit("it is quantized per channel; cuBLASLt's scales are per tensor", "scale")
        self.columns = self.scale_of(node)

    # -- epilogue -------------------------------------------------------------------------
    def epilogue(self, made: Product) -> Product:
        value = self.anchor.outputs[0]
        roundings = 1
        while value != self.body.outputs[0]:
            readers = [n for n in self.body.nodes if value in n.inputs]
            if len(readers) != 1:
                raise Unfit(f"'{value}' is read {len(readers)} times", "epilogue")
            node = readers[0]
            made = self.step(made, node, value, roundings)
            value, roundings = node.outputs[0], roundings + 1
        return made

    def step(self, made: Product, node: Node, value: str, roundings: int) -> Product:
        op = node.op
        if op == "Cast":
            return made
        if op == "Add" and not made.activation:
            others = [v for v in node.inputs if v != value]
            if len(others) == 1:
                return self.added(made, others[0])
        plain = not (made.bias or made.residual or made.activation)
        if op == "Mul" and plain and any(self.is_number(v) for v in node.inputs):
            self.number *= next(self.constants.number(v) for v in node.inputs if self.is_number(v))
            return made
        if op == "Relu" and not made.activation:
            return replace(made, activation="Relu")
        if op == "Gelu" and not made.activation:
            exact = node.attributes["approximate"] == "none"
            if exact and not tanh_gelu_suffices(self.types[value].dtype, roundings):
                raise Unfit(
                    "cuBLASLt's GELU is the tanh approximation; its error is beyond "
                    f"{self.types[value].dtype.value}'s bound",
                    "epilogue",
                )
            return replace(made, activation="Gelu")
        if op == "QuantizeLinear" and node.outputs[0] == self.body.outputs[0]:
            return replace(made, scale=Term() / self.number_of(node))
        left = [n.op for n in self.body.nodes[self.body.nodes.index(node) :] if n.op != "Constant"]
        raise Unfit(f"cuBLASLt has no epilogue {' + '.join(left)}", "epilogue")

    def added(self, made: Product, value: str) -> Product:
        """With a bias or a residual."""
        out = self.types[self.anchor.outputs[0]].shape
        shape = (*(1,) * (len(out) - len(self.types[value].shape)), *self.types[value].shape)
        channel = 1 if made.layout is HWC else len(out) - 1
        row = tuple(made.n if k == channel else 1 for k in range(len(out)))
        if shape == row and self.constants.knows(value) and not made.bias:
            return replace(made, bias=value)
        if shape == tuple(out) and not made.residual and value in self.dynamic:
            return replace(made, residual=value)
        kind = "constant" if self.constants.knows(value) else "tensor"
        raise Unfit(f"it adds a {kind} of shape {self.types[value].shape}", "epilogue")


def _swaps(node: Node, rank: int) -> bool:
    """Whether a Transpose swaps the last two axes and no others."""
    wanted = (*range(rank - 2), rank - 1, rank - 2)
    given = node.attributes["perm"]
    return rank >= 2 and tuple(range(rank))[::-1] == wanted if given is None else given == wanted


def _require_types(p: Product) -> None:
    """Raises Unfit unless cuBLASLt has the product of these types with this epilogue."""
    if p.a.kind is not p.b.kind or p.kind not in FLOATS | NARROW:
        raise Unfit(f"no cuBLASLt product of {p.a.kind.value} and {p.b.kind.value}", "type")
    if p.kind in FLOATS:
        if p.out not in FLOATS or (p.out is not p.kind and p.out is not DataType.FLOAT):
            raise Unfit(f"it stores {p.out.value} from {p.kind.value}", "type")
        if p.residual and p.out is not p.kind:
            raise Unfit("its residual has another type than its output", "type")
        return
    if p.residual and (p.kind is DataType.INT8 or p.out is DataType.FP8):
        raise Unfit("an 8-bit result adds no residual here", "epilogue")
    if p.kind is DataType.INT8:
        if p.out is not DataType.INT8:
            raise Unfit("cuBLASLt stores INT8 or INT32 from INT8, not floats", "type")
        if p.bias or p.activation:
            raise Unfit("cuBLASLt's INT8 products have no epilogue", "epilogue")
        return
    if p.out not in (*FLOATS, DataType.FP8) or (p.out is DataType.FP8) != (p.scale is not None):
        raise Unfit(f"it stores {p.out.value} from FP8", "type")
    if p.columns is not None and p.out is DataType.FP8:
        raise Unfit("cuBLASLt stores no FP8 from factors with a scale a channel", "scale")
    if p.bias and p.out is DataType.FLOAT:
        raise Unfit("beside FP8 factors and FLOAT results the bias would be BF16", "type")


@functools.cache
def tanh_gelu_suffices(kind: DataType, roundings: int) -> bool:
    """Whether tanh-GELU lies within the bound that a check gives erf-GELU in this type.

    What GELU reads was rounded ``roundings`` times before.
    """
    x = np.linspace(-8.0, 8.0, 4001).astype(kind.numpy)
    same, gelu = operator_named("Identity"), operator_named("Gelu")
    names = [f"v{k}" for k in range(roundings + 2)]
    nodes = [Node(same, (a,), (b,)) for a, b in pairwise(names[:-1])]
    nodes.append(Node(gelu, (names[-2],), (names[-1],), gelu.complete({})))
    start = BodyInput(names[0], TensorType(kind, x.shape))
    exact, bound = Body((start,), tuple(nodes), (names[-1],)).exact({names[0]: x})[names[-1]]
    wide = x.astype(np.float64)
    near = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    return bool((np.abs(near - exact) <= bound).all())
