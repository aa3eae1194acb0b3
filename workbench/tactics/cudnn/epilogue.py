"""What surrounds a product: pointwise nodes of a Body as operations of a cuDNN graph.

Node by node, in float32 within the graph. A quantized Body's scales are folded into the constants
that they meet, where every operation on the way lets them through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from workbench.body import Body, Node
from workbench.datatypes import DataType
from workbench.formats import LINEAR, Format
from workbench.tactics.cudnn.folding import Folding
from workbench.tactics.cudnn.graph import Drawing, Input
from workbench.tactics.terms import Constant, Constants, Term

FLOATS = frozenset({DataType.FLOAT, DataType.HALF, DataType.BF16})
NARROW = frozenset({DataType.INT8, DataType.FP8, DataType.FP8E5M2})
"""Types that a Body reads through DequantizeLinear and writes through QuantizeLinear."""

Step = Callable[["Epilogue", Node], str]


class Undescribed(Exception):
    """A Body, or a part of it, is no cuDNN graph; the text says why. code: of the Refusal."""

    def __init__(self, reason: str, code: str = "epilogue") -> None:
        super().__init__(reason)
        self.code = code


class View(Protocol):
    """How the tensors of a Body appear in a graph.

    dims, strides: of the anchor's result. layout: of dynamic operands of the result's rank.
    """

    @property
    def dims(self) -> tuple[int, ...]: ...

    @property
    def strides(self) -> tuple[int, ...]: ...

    @property
    def layout(self) -> Format: ...

    def dims_of(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The dims of an operand that broadcasts to the result. Raises Undescribed."""
        ...

    def strides_of(self, dims: Sequence[int]) -> tuple[int, ...]:
        """The strides of a whole tensor of these dims."""
        ...


@dataclass(frozen=True)
class Factors:
    """The stored tensors that a product multiplies, and their type.

    quantized: the DequantizeLinear nodes of both; None where they are floats.
    """

    left: str
    right: str
    kind: DataType
    quantized: tuple[Node, Node] | None


@dataclass
class Epilogue:
    """Translates the values of a Body that depend on the anchor's result.

    drawing: receives the operations. known: Body value -> tensor of the graph.
    layouts: of the dynamic inputs read so far.
    """

    body: Body
    constants: Constants
    drawing: Drawing
    view: View
    known: dict[str, str] = field(default_factory=dict[str, str])
    layouts: dict[str, Format] = field(default_factory=dict[str, Format])

    def __post_init__(self) -> None:
        self.producers = {o: n for n in self.body.nodes for o in n.outputs if o}
        self.dynamic = {i.name: k for k, i in enumerate(self.body.dynamic_inputs)}

    def value(self, name: str) -> str:
        """The graph's tensor that holds a Body value."""
        if name not in self.known:
            self.known[name] = self._made(name)
        return self.known[name]

    def _made(self, name: str) -> str:
        if self.constants.knows(name):
            return self.constant(Term.of(name), self.body.types[name].shape)
        if name in self.dynamic:
            return self._operand(name)
        node = self.producers[name]
        step = STEPS.get(node.op)
        if step is None:
            raise Undescribed(f"{node.op} '{name}' is no operation of a fused cuDNN graph")
        kinds = {self.body.types[v].dtype for v in (*node.inputs, *node.outputs) if v}
        if not kinds <= FLOATS and node.op not in ("DequantizeLinear", "QuantizeLinear"):
            found = ", ".join(sorted(k.value for k in kinds - FLOATS))
            raise Undescribed(f"{node.op} '{name}' computes with {found}", "type")
        return step(self, node)

    def constant(self, term: Term, shape: Sequence[int]) -> str:
        """A constant tensor, of a shape that broadcasts to the result."""
        dims = self.view.dims_of(shape)
        strides = self.view.strides_of(dims)
        stored = Constant(term, self._stored_as(term), dims, _storage_order(strides))
        return self.drawing.tensor("c", dims, strides, stored.kind, stored)

    def _stored_as(self, term: Term) -> DataType:
        """A half value's own type, in which fused kernels read their biases; else float32."""
        if len(term.factors) != 1 or term.factors[0][1] != 1:
            return DataType.FLOAT
        kind = self.body.types[term.factors[0][0]].dtype
        return kind if kind in FLOATS else DataType.FLOAT

    def _operand(self, name: str) -> str:
        kind = self.body.types[name].dtype
        if kind not in FLOATS:
            raise Undescribed(f"'{name}' is {kind.value}: no operand of a float operation", "type")
        return self.stored_input(name)

    def stored_input(self, name: str) -> str:
        """A dynamic input as it lies in memory."""
        t = self.body.types[name]
        dims = self.view.dims_of(t.shape)
        whole = len(t.shape) == len(self.body.output_types[0].shape) and self.view.layout.fits(
            len(t.shape)
        )
        layout = self.view.layout if whole else LINEAR
        if not whole and sum(d != 1 for d in dims) > 1 and self.view.layout != LINEAR:
            raise Undescribed(f"'{name}' has fewer axes than the result", "shape")
        if self.layouts.setdefault(name, layout) != layout:
            raise Undescribed(f"'{name}' is read in two layouts", "layout")
        place = Input(self.dynamic[name])
        return self.drawing.tensor("x", dims, self.view.strides_of(dims), t.dtype, place)

    def pointwise(self, kind: str, names: Sequence[str], *inputs: str, **options: Any) -> str:
        """A pointwise operation of tensors of the graph."""
        dims = [self.drawing.tensors[t].dims for t in inputs]
        whole = tuple(max(sizes) for sizes in zip(*dims, strict=True))
        pairs = tuple(zip(names, inputs, strict=True))
        return self.drawing.add(kind, pairs, whole, self.view.strides_of(whole), **options)

    def binary(self, kind: str, a: str, b: str) -> str:
        names = ("input0", "input1") if kind in ("max", "min") else ("a", "b")
        return self.pointwise(kind, names, a, b)

    def unary(self, kind: str, x: str, **options: Any) -> str:
        return self.pointwise(kind, ("input",), x, **options)

    def scaled(self, x: str, term: Term, shape: Sequence[int]) -> str:
        return self.binary("mul", x, self.constant(term, shape))

    # -- quantized values -----------------------------------------------------------------
    def scale_of(self, node: Node) -> tuple[Term, tuple[int, ...]]:
        """The scale of a Quantize- or DequantizeLinear. Raises unless its zero point is 0."""
        scale, point = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else ""
        if not self.constants.knows(scale) or (point and not self.constants.knows(point)):
            raise Undescribed("a scale or zero point arrives at run time", "dynamic_scale")
        if node.attributes["block_size"]:
            raise Undescribed("it is quantized in blocks", "blocks")
        if point and self.constants.value(point).astype("float64").any():
            raise Undescribed("cuDNN multiplies without zero points; this one is not 0", "zero")
        return Term.of(scale), tuple(self.body.types[scale].shape)

    def quantized_operand(self, value: str) -> tuple[str, Node] | None:
        """The stored tensor under a value that is dequantized, and its node; None for others."""
        node = self.producers.get(value)
        if node is None or node.op != "DequantizeLinear":
            return None
        kind = self.body.types[node.inputs[0]].dtype
        if kind not in NARROW:
            raise Undescribed(f"cuDNN does not multiply {kind.value}", "type")
        return node.inputs[0], node

    def factors(self, anchor: Node) -> Factors:
        """What a product multiplies. Raises Undescribed."""
        a, b = anchor.inputs[:2]
        stored_a, stored_b = self.quantized_operand(a), self.quantized_operand(b)
        if (stored_a is None) != (stored_b is None):
            # Weights that are only stored as integers are computed when the Call is prepared.
            if stored_a is not None or not self.constants.knows(b):
                raise Undescribed("one factor is quantized, the other is not", "quantized")
            stored_b = None
        left = stored_a[0] if stored_a else a
        right = stored_b[0] if stored_b else b
        kind, other = (self.body.types[v].dtype for v in (left, right))
        if other is not kind or (stored_a is None and kind not in FLOATS):
            raise Undescribed(f"it multiplies {kind.value} by {other.value}", "type")
        quantized = (stored_a[1], stored_b[1]) if stored_a and stored_b else None
        return Factors(left, right, kind, quantized)


def _storage_order(strides: Sequence[int]) -> tuple[int, ...]:
    """Axes from outermost to innermost."""
    return tuple(sorted(range(len(strides)), key=lambda k: -strides[k]))


# -- one node at a time -------------------------------------------------------------------
def _binary(kind: str) -> Step:
    def step(e: Epilogue, node: Node) -> str:
        if len(node.inputs) != 2:
            raise Undescribed(f"{node.op} of {len(node.inputs)} inputs")
        a, b = node.inputs
        return e.binary(kind, e.value(a), e.value(b))

    return step


def _unary(kind: str) -> Step:
    return lambda e, node: e.unary(kind, e.value(node.inputs[0]))


def _same(e: Epilogue, node: Node) -> str:
    return e.value(node.inputs[0])


def _mul(e: Epilogue, node: Node) -> str:
    """A product; x · sigmoid(x) is one operation."""
    for x, y in (node.inputs, node.inputs[::-1]):
        made = e.producers.get(y)
        if made is not None and made.op == "Sigmoid" and made.inputs == (x,):
            return e.unary("swish", e.value(x))
    a, b = node.inputs
    return e.binary("mul", e.value(a), e.value(b))


def _gelu(e: Epilogue, node: Node) -> str:
    exact = node.attributes["approximate"] == "none"
    return e.unary("gelu" if exact else "gelu_approx_tanh", e.value(node.inputs[0]))


def _clip(e: Epilogue, node: Node) -> str:
    limits: list[float | None] = []
    for v in (*node.inputs[1:], "", "")[:2]:
        if v and not e.constants.knows(v):
            raise Undescribed("a limit of Clip arrives at run time")
        limits.append(e.constants.number(v) if v else None)
    low, high = limits
    x = e.value(node.inputs[0])
    if low is None and high is None:
        return x
    return _clipped(e, x, low, high)


def _clipped(e: Epilogue, x: str, low: float | None, high: float | None) -> str:
    options: dict[str, Any] = {}
    if low is None:
        low = -3.4028235e38
    if low:
        options["lower_clip"] = low
    if high is not None:
        options["upper_clip"] = high
    return e.unary("relu", x, **options)


def _leaky(e: Epilogue, node: Node) -> str:
    return e.unary(
        "leaky_relu", e.value(node.inputs[0]), negative_slope=float(node.attributes["alpha"])
    )


def _elu(e: Epilogue, node: Node) -> str:
    if node.attributes["alpha"] != 1.0:
        raise Undescribed("the frontend's elu has alpha 1")
    return e.unary("elu", e.value(node.inputs[0]))


def _swish(e: Epilogue, node: Node) -> str:
    return e.unary("swish", e.value(node.inputs[0]), swish_beta=float(node.attributes["alpha"]))


def _mish(e: Epilogue, node: Node) -> str:
    x = e.value(node.inputs[0])
    return e.binary("mul", x, e.unary("tanh", e.unary("softplus", x)))


def _dequantize(e: Epilogue, node: Node) -> str:
    stored = e.quantized_operand(node.outputs[0])
    assert stored is not None
    term, shape = e.scale_of(node)
    if any(d != 1 for d in shape):
        raise Undescribed("an operand is dequantized per channel", "per_channel")
    if stored[0] not in e.dynamic:
        raise Undescribed(f"'{stored[0]}' is computed from quantized values", "order")
    return e.scaled(e.stored_input(stored[0]), term, ())


def _quantize(e: Epilogue, node: Node) -> str:
    if node.outputs[0] != e.body.outputs[0]:
        raise Undescribed("a value within is rounded to its quantized type", "order")
    kind = e.body.types[node.outputs[0]].dtype
    if kind not in NARROW:
        raise Undescribed(f"cuDNN stores no quantized {kind.value}", "type")
    term, shape = e.scale_of(node)
    if any(d != 1 for d in shape):
        raise Undescribed("the output is quantized per channel", "per_channel")
    x = e.value(node.inputs[0])
    lets_through = Folding(e.drawing, Term() / term)
    if lets_through.possible(x):
        return lets_through.scaled(x)
    return e.scaled(x, Term() / term, ())


STEPS: dict[str, Step] = {
    "Add": _binary("add"),
    "Sub": _binary("sub"),
    "Mul": _mul,
    "Div": _binary("div"),
    "Max": _binary("max"),
    "Min": _binary("min"),
    "Relu": _unary("relu"),
    "Sigmoid": _unary("sigmoid"),
    "Tanh": _unary("tanh"),
    "Erf": _unary("erf"),
    "Exp": _unary("exp"),
    "Log": _unary("log"),
    "Sqrt": _unary("sqrt"),
    "Abs": _unary("abs"),
    "Neg": _unary("neg"),
    "Reciprocal": _unary("reciprocal"),
    "Softplus": _unary("softplus"),
    "Gelu": _gelu,
    "Clip": _clip,
    "LeakyRelu": _leaky,
    "Elu": _elu,
    "Swish": _swish,
    "Mish": _mish,
    "Cast": _same,
    "Identity": _same,
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
}
"""Operators that a graph computes on the anchor's result."""
