"""What cuBLASLt computes in one call: a product with bias and activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from workbench.body import Body, Node
from workbench.datatypes import DataType
from workbench.records import Refusal

TYPES = {DataType.FLOAT: 0, DataType.HALF: 2, DataType.BF16: 14}
"""cudaDataType_t of the element types that these calls take."""


@dataclass(frozen=True)
class Product:
    """out[m, n] = act(a[m, k] · b[k, n] + bias[n]), row-major; b may be stored transposed."""

    m: int
    n: int
    k: int
    a: str
    b: str
    bias: str
    transposed: bool
    activation: str
    kind: DataType


def product_of(body: Body) -> Product | Refusal:
    """The product that a Body is, if cuBLASLt computes all of it in one call."""
    anchor = body.anchor_node
    if anchor is None or anchor.op not in ("Gemm", "MatMul"):
        return Refusal("cuBLASLt multiplies matrices only", code="operator")
    left, right = anchor.inputs[0], anchor.inputs[1]
    a, b = body.types[left], body.types[right]
    if a.dtype not in TYPES or b.dtype is not a.dtype or len(b.shape) != 2:
        return Refusal(f"no cuBLASLt product of {a} and {b}", code="type")
    transposed = False
    bias = ""
    if anchor.op == "Gemm":
        t = anchor.attributes
        if t["transA"] or t["alpha"] != 1.0 or t["beta"] != 1.0:
            return Refusal("transA, alpha and beta are not among its calls here", code="attribute")
        transposed = bool(t["transB"])
        bias = anchor.inputs[2] if len(anchor.inputs) > 2 else ""
    out = body.types[anchor.outputs[0]]
    rest = [n for n in body.nodes if n is not anchor and n.op != "Constant"]
    bias, activation, beyond = _epilogue(body, anchor, rest, bias)
    if beyond or body.output_types[0].dtype is not a.dtype:
        names = " + ".join(n.op for n in beyond) or "a change of type"
        return Refusal(f"cuBLASLt has no epilogue {names}", code="epilogue")
    if bias and body.types[bias].shape not in ((out.shape[-1],), (1, out.shape[-1])):
        return Refusal(f"its bias has shape {body.types[bias].shape}", code="shape")
    return Product(
        prod(out.shape[:-1]),
        out.shape[-1],
        a.shape[-1],
        left,
        right,
        bias,
        transposed,
        activation,
        a.dtype,
    )


def _epilogue(
    body: Body, anchor: Node, rest: Sequence[Node], bias: str
) -> tuple[str, str, list[Node]]:
    left = list(rest)
    value = anchor.outputs[0]
    constants = {i.name for i in body.inputs if i.constant}
    if left and left[0].op == "Add" and not bias:
        others = [v for v in left[0].inputs if v != value]
        if len(others) == 1 and others[0] in constants:
            bias, value = others[0], left.pop(0).outputs[0]
    activation = ""
    if left and left[0].op == "Relu" and left[0].inputs == (value,):
        activation = left.pop(0).op
    return bias, activation, left
