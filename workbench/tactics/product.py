"""What a Body multiplies: an anchor with the stored factors that its kernel reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.body import CONSTANT, Array, Body, Node
from workbench.datatypes import DataType
from workbench.operators.windows import Window, window_of
from workbench.tactics.scalar_text import Untranslatable

LARGEST_INDEX = 2**31 - 1
"""Elements that a tensor may have: offsets are 32-bit."""
MULTIPLIED = (DataType.HALF, DataType.BF16, DataType.FLOAT, DataType.INT8, DataType.FP8)
"""Element types that the matrix units take (FLOAT: as TF32 in three products, or by FMA)."""


@dataclass(frozen=True)
class Factor:
    """One side of a product.

    value: the Body value that is multiplied as it is stored. scale: the DequantizeLinear that was
    taken out of the sum, or None. constant: whether it is known at build time.
    """

    value: str
    scale: Node | None
    constant: bool


@dataclass(frozen=True)
class Product:
    """The anchor's factors, and the type in which they are multiplied.

    positive: whether every scale of a QuantizeLinear is known to be above 0. zeros: zero points
    that are known to be 0.
    """

    body: Body
    anchor: Node
    left: Factor
    right: Factor
    kind: DataType
    positive: bool = False
    zeros: frozenset[str] = frozenset()

    @property
    def exact(self) -> bool:
        """Whether sums are integers."""
        return self.kind is DataType.INT8

    @property
    def accumulator(self) -> str:
        return "tl.int32" if self.exact else "tl.float32"

    @property
    def out(self) -> tuple[int, ...]:
        """Shape of the anchor's output."""
        return self.body.types[self.anchor.outputs[0]].shape

    @property
    def bias(self) -> str:
        """The anchor's third operand, empty where it has none."""
        return self.anchor.inputs[2] if len(self.anchor.inputs) > 2 else ""


def product_of(body: Body, constants: Mapping[str, Array]) -> Product:
    """The product that anchors a Body. Raises Untranslatable with the reason."""
    anchor = body.anchor_node
    if anchor is None or anchor.op not in ("Conv", "Gemm", "MatMul"):
        name = anchor.op if anchor else "a chain of pointwise nodes"
        raise Untranslatable(f"generated products multiply; this is {name}")
    for name, t in body.types.items():
        if math.prod(t.shape) > LARGEST_INDEX:
            raise Untranslatable(f"'{name}' has 2**31 elements or more: offsets are 32-bit")
    if any(math.prod(t.shape) == 0 for t in body.types.values()):
        raise Untranslatable("a tensor has no elements")
    shape = body.types[anchor.outputs[0]].shape
    if any(t.shape != shape for t in body.output_types):
        raise Untranslatable(f"its outputs have other shapes than the product's {shape}")
    known = constant_values(body)
    sides = [_quantized(body, v, known, constants) for v in anchor.inputs[:2]]
    if any(s is None for s in sides):
        sides = [Factor(v, None, v in known) for v in anchor.inputs[:2]]
    left, right = sides
    assert left is not None and right is not None
    kinds = {body.types[f.value].dtype for f in (left, right)}
    kind = kinds.pop()
    if kinds or kind not in MULTIPLIED:
        raise Untranslatable(f"no product of {', '.join(str(k) for k in (kind, *kinds))}")
    positive = positive_scales(body, constants)
    return Product(body, anchor, left, right, kind, positive, zero_points(body, constants))


def positive_scales(body: Body, constants: Mapping[str, Array]) -> bool:
    """Whether every scale of a QuantizeLinear is known to be above 0."""
    scales = [n.inputs[1] for n in body.nodes if n.op == "QuantizeLinear"]
    return all(s in constants and bool(np.all(np.asarray(constants[s]) > 0)) for s in scales)


def zero_points(body: Body, constants: Mapping[str, Array]) -> frozenset[str]:
    """Zero points that are known to be 0."""
    quantizations = (n for n in body.nodes if n.op in ("QuantizeLinear", "DequantizeLinear"))
    points = (v for n in quantizations for v in n.inputs[2:3] if v)
    return frozenset(v for v in points if is_zero(body, v, constants))


def constant_values(body: Body) -> frozenset[str]:
    """Values that depend on constants alone, the constants included."""
    known = {i.name for i in body.inputs if i.constant}
    for n in body.nodes:
        if all(v in known for v in n.inputs if v) and n.operator.deterministic:
            known.update(o for o in n.outputs if o)
    return frozenset(known)


def _quantized(
    body: Body, value: str, known: frozenset[str], constants: Mapping[str, Array]
) -> Factor | None:
    """A factor whose scale can be taken out of the sum, or None."""
    node = next((n for n in body.nodes if value in n.outputs), None)
    if node is None or node.op != "DequantizeLinear" or node.attributes["block_size"]:
        return None
    stored = body.types[node.inputs[0]].dtype
    if stored not in (DataType.INT8, DataType.FP8):
        return None
    zero = next(iter(node.inputs[2:]), "")
    if zero and not is_zero(body, zero, constants):
        return None
    return Factor(node.inputs[0], node, node.inputs[0] in known)


def is_zero(body: Body, name: str, constants: Mapping[str, Array]) -> bool:
    """Whether a zero point is known to be 0."""
    node = next((n for n in body.nodes if name in n.outputs), None)
    if node is not None:
        return node.operator is CONSTANT and not any(node.attributes["value"].values)
    return name in constants and not np.any(np.asarray(constants[name], np.float32))


def scale_axis(product: Product, factor: Factor) -> int | None:
    """The factor's axis along which its scale varies; None where it is one number."""
    node = factor.scale
    assert node is not None
    shape = product.body.types[node.inputs[1]].shape
    if shape in ((), (1,)):
        return None
    return node.attributes["axis"] % len(product.body.types[factor.value].shape)


def evaluated(body: Body, value: str, constants: Mapping[str, Array]) -> Array:
    """A value that depends on constants alone."""
    if value in constants:
        return constants[value]
    producers = {o: k for k, n in enumerate(body.nodes) for o in n.outputs if o}
    wanted: set[int] = set()
    todo = [value]
    while todo:
        k = producers.get(todo.pop())
        if k is not None and k not in wanted:
            wanted.add(k)
            todo.extend(v for v in body.nodes[k].inputs if v)
    inputs = tuple(i for i in body.inputs if i.constant)
    part = Body(inputs, tuple(body.nodes[k] for k in sorted(wanted)), (value,))
    return part.evaluate({i.name: constants[i.name] for i in inputs})[value]


def windows(product: Product) -> Window:
    """The window of a convolution in two dimensions, a height of 1 added to one."""
    x = product.body.types[product.anchor.inputs[0]].shape
    w = product.body.types[product.anchor.inputs[1]].shape
    window = window_of(product.anchor.attributes, x[2:], w[2:])
    if len(x) == 4:
        return window
    if len(x) != 3:
        raise Untranslatable(f"convolutions of {len(x) - 2} dimensions")

    def wide(values: Sequence[int], first: int) -> tuple[int, ...]:
        return (first, *values)

    return Window(
        wide(window.kernel, 1),
        wide(window.strides, 1),
        wide(window.dilations, 1),
        wide(window.begin, 0),
        wide(window.end, 0),
        wide(window.output, 1),
    )
