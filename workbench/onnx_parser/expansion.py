"""Newest operators without a row of their own, written as operators that have one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from onnx import AttributeProto, FunctionProto, NodeProto, TypeProto, defs, helper, numpy_helper

from workbench.body import Array, TensorType, UnrankedType
from workbench.datatypes import DataType
from workbench.dimensions import SymbolicDim
from workbench.errors import NetworkError
from workbench.onnx_parser.element_types import TO_ONNX
from workbench.onnx_parser.expansion_attention import attention
from workbench.onnx_parser.problems import ErrorCode
from workbench.onnx_parser.schemas import OPSET, OPSETS, schema
from workbench.onnx_parser.site import Rule, Site, Step
from workbench.onnx_parser.source import NestedGraph


def _cast_like(site: Site) -> tuple[Step, ...]:
    """The type is known while parsing."""
    kind = site.type(1).dtype
    return (site.step(operator="Cast", inputs=(site.input(0),), to=kind),)


def _hardmax(site: Site) -> tuple[Step, ...]:
    """One at the first largest element along the axis, zero elsewhere."""
    axis = site.axis(-1)
    where, depth = site.fresh("where"), site.fresh("depth")
    values = site.constant("values", [0, 1], site.type(0).dtype.numpy)
    return (
        Step("ArgMax", (site.input(0),), (where,), {"axis": axis, "keepdims": 0}),
        Step("Shape", (site.input(0),), (depth,), {"start": axis, "end": axis + 1}),
        Step("OneHot", (where, depth, values), site.node.outputs, {"axis": axis}),
    )


def _matmul_integer(site: Site) -> tuple[Step, ...]:
    """Exact in int32: zero points subtracted, then a product of integers."""
    steps: list[Step] = []
    factors: list[str] = []
    for index, label in ((0, "a"), (1, "b")):
        wide = site.fresh(label)
        steps.append(Step("Cast", (site.input(index),), (wide,), {"to": DataType.INT32}))
        if site.input(index + 2):
            zero, shifted = site.fresh(f"{label}_zero"), site.fresh(f"{label}_shifted")
            steps.append(Step("Cast", (site.input(index + 2),), (zero,), {"to": DataType.INT32}))
            if index == 0 and len(site.type(2).shape) == 1 and site.type(2).shape != (1,):
                # A zero point a row of A stands in a column.
                column = site.fresh("a_column")
                axes = site.constant("axes", [1])
                steps.append(Step("Unsqueeze", (zero, axes), (column,)))
                zero = column
            steps.append(Step("Sub", (wide, zero), (shifted,)))
            wide = shifted
        factors.append(wide)
    return (*steps, Step("MatMul", tuple(factors), site.node.outputs))


def _conv_integer(site: Site) -> tuple[Step, ...]:
    """Exact: zero points subtracted, then products in float64, which holds every int32."""
    steps: list[Step] = []
    factors: list[str] = []
    for index, label in ((0, "x"), (1, "w")):
        wide, real = site.fresh(label), site.fresh(f"{label}_real")
        steps.append(Step("Cast", (site.input(index),), (wide,), {"to": DataType.INT32}))
        if site.input(index + 2):
            zero, shifted = site.fresh(f"{label}_zero"), site.fresh(f"{label}_shifted")
            steps.append(Step("Cast", (site.input(index + 2),), (zero,), {"to": DataType.INT32}))
            if index == 1 and len(site.type(3).shape) == 1 and site.type(3).shape != (1,):
                # A zero point a filter stands on the kernel's first axis.
                column = site.fresh("w_column")
                axes = site.constant("axes", list(range(1, len(site.type(1).shape))))
                steps.append(Step("Unsqueeze", (zero, axes), (column,)))
                zero = column
            steps.append(Step("Sub", (wide, zero), (shifted,)))
            wide = shifted
        steps.append(Step("Cast", (wide,), (real,), {"to": DataType.DOUBLE}))
        factors.append(real)
    result = site.fresh("y")
    product = site.step(operator="Conv", inputs=tuple(factors), outputs=(result,))
    return (*steps, product, Step("Cast", (result,), site.node.outputs, {"to": DataType.INT32}))


def _qlinear(site: Site, product: Step, *, weight_axis: int) -> tuple[Step, ...]:
    """Operands dequantized, the product in float, its result quantized.

    Source: ONNX QLinearConv and QLinearMatMul. Differs from integer arithmetic by the rounding
    of float32 before the last one: within one step of the output's scale.
    """
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = site.node.inputs[:8]
    real_x, real_w, real_y = site.fresh("x"), site.fresh("w"), site.fresh("y")
    steps = [
        Step("DequantizeLinear", (x, x_scale, x_zero), (real_x,)),
        Step("DequantizeLinear", (w, w_scale, w_zero), (real_w,), {"axis": weight_axis}),
    ]
    operands = (real_x, real_w)
    if site.input(8):
        scale, bias = site.fresh("bias_scale"), site.fresh("bias")
        steps.append(Step("Mul", (x_scale, w_scale), (scale,)))
        steps.append(Step("DequantizeLinear", (site.input(8), scale), (bias,), {"axis": 0}))
        operands = (*operands, bias)
    return (
        *steps,
        Step(product.operator, operands, (real_y,), product.attributes),
        Step("QuantizeLinear", (real_y, y_scale, y_zero), site.node.outputs),
    )


def _qlinear_conv(site: Site) -> tuple[Step, ...]:
    return _qlinear(site, site.step(operator="Conv"), weight_axis=0)


def _qlinear_matmul(site: Site) -> tuple[Step, ...]:
    for index in (1, 4, 6):
        if site.type(index).shape not in ((), (1,)):
            site.refuse(
                ErrorCode.UNSUPPORTED_NODE_INPUT,
                f"scale '{site.input(index)}' has shape {site.type(index).shape}; "
                "only one number a tensor is supported",
                "quantize per tensor, or write the model with Q/DQ",
            )
    return _qlinear(site, site.step(operator="MatMul"), weight_axis=-1)


LOWERED: Mapping[str, Rule] = {
    "Attention": attention,
    "CastLike": _cast_like,
    "ConvInteger": _conv_integer,
    "Hardmax": _hardmax,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
}
"""Operator -> steps, where the standard's own body would be worse or there is none.

No steps: this form is left to the standard's body."""

STANDARD_BODIES: frozenset[str] = frozenset(
    {
        "Bernoulli",
        "BlackmanWindow",
        "CausalConvWithState",
        "CenterCropPad",
        "HammingWindow",
        "HannWindow",
        "MeanVarianceNormalization",
        "NegativeLogLikelihoodLoss",
        "RotaryEmbedding",
        "Shrink",
        "SoftmaxCrossEntropyLoss",
        "SwiGLU",
        "ai.onnx.preview::FlexAttention",
    }
)
"""Operators that the standard itself defines by a function body, which is inlined."""


def node_proto(
    operator: str, inputs: Iterable[str], outputs: Iterable[str], attributes: Mapping[str, Any]
) -> NodeProto:
    """A node of the newest opset, with the standard's defaults written out."""
    row = schema(operator, OPSET)
    assert row is not None
    defaults = {k: a.default for k, a in row.attributes.items() if a.default is not None}
    domain, _, name = operator.rpartition("::")
    proto = NodeProto(op_type=name, domain=domain, input=inputs, output=outputs)
    for key, value in {**defaults, **attributes}.items():
        kind = AttributeProto.AttributeType.Value(row.attributes[key].kind)
        proto.attribute.append(helper.make_attribute(key, _plain(value), attr_type=kind))
    return proto


def _plain(value: Any) -> Any:
    """A value as ONNX's helper takes it."""
    if isinstance(value, DataType):
        return TO_ONNX[value]
    if isinstance(value, NestedGraph):
        if value.captures:
            raise NetworkError(
                f"its graph '{value.proto.name}' reads {', '.join(value.captures)} from around it, "
                "which the standard's body of the operator cannot",
                remedy="store what it reads inside it",
            )
        return value.proto
    if isinstance(value, np.ndarray):
        return numpy_helper.from_array(cast("Array", value))
    return value


def _type_proto(kind: TensorType | None) -> TypeProto:
    if kind is None:
        return TypeProto()
    if isinstance(kind, UnrankedType):
        return helper.make_tensor_type_proto(TO_ONNX[kind.dtype], None)
    shape = [str(d) if isinstance(d, SymbolicDim) else d for d in kind.shape]
    return helper.make_tensor_type_proto(TO_ONNX[kind.dtype], shape)


def standard_body(proto: NodeProto, types: Sequence[TensorType | None]) -> FunctionProto:
    """The body of an operator for these input types. Raises NetworkError where there is none."""
    # onnx's stubs leave these members out.
    row: Any = defs.get_schema(proto.op_type, OPSETS[proto.domain], proto.domain)
    if row.has_function:
        function = FunctionProto()
        function.CopyFrom(row.function_body)
        return function
    kinds = [_type_proto(t).SerializeToString() for t in types]
    data: bytes = row.get_context_dependent_function(proto.SerializeToString(), kinds)
    if not data:
        raise NetworkError(f"the standard gives no body of {proto.op_type} for these inputs")
    function = FunctionProto.FromString(data)
    if all(o.domain for o in function.opset_import):
        # A body of another domain's operator is made of the newest operators of ai.onnx.
        function.opset_import.append(helper.make_opsetid("", OPSET))
    return function
