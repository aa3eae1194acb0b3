"""Representative Bodies, each at any batch size: what every tactic source is tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from workbench.body import CONSTANT, Array, Body, BodyInput, Literal, Node, TensorType
from workbench.checks import sample_inputs
from workbench.datatypes import DataType
from workbench.devices import CpuDevice
from workbench.operators import operator_named
from workbench.tactics.protocol import Problem

FLOAT, BF16, HALF = DataType.FLOAT, DataType.BF16, DataType.HALF
INT8, UINT8, INT32, INT64, BOOL = (
    DataType.INT8,
    DataType.UINT8,
    DataType.INT32,
    DataType.INT64,
    DataType.BOOL,
)


class Draft:
    """A Body under construction: ``draft("Relu", x)`` adds a node and gives its output."""

    def __init__(self) -> None:
        self.inputs: list[BodyInput] = []
        self.nodes: list[Node] = []
        self.anchor: int | None = None

    def input(self, *shape: int, dtype: DataType = FLOAT, constant: bool = False) -> str:
        name = f"{'w' if constant else 'x'}{len(self.inputs)}"
        self.inputs.append(BodyInput(name, TensorType(dtype, shape), constant))
        return name

    def weight(self, *shape: int, dtype: DataType = FLOAT) -> str:
        return self.input(*shape, dtype=dtype, constant=True)

    def literal(self, value: Any, dtype: str = "float32") -> str:
        name = f"c{len(self.nodes)}"
        literal = Literal.of(np.asarray(value, dtype))
        self.nodes.append(Node(CONSTANT, (), (name,), {"value": literal}))
        return name

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        return self.many(op, *inputs, outputs=1, **attributes)[0]

    def many(self, op: str, *inputs: str, outputs: int, **attributes: Any) -> tuple[str, ...]:
        operator = operator_named(op)
        names = tuple(f"v{len(self.nodes)}_{k}" for k in range(outputs))
        self.nodes.append(Node(operator, inputs, names, operator.complete(attributes)))
        return names

    def anchored(self, op: str, *inputs: str, **attributes: Any) -> str:
        self.anchor = len(self.nodes)
        return self(op, *inputs, **attributes)

    def quantized(self, *shape: int, axis: int | None = None, constant: bool = False) -> str:
        """A dequantized INT8 value."""
        x = self.input(*shape, dtype=INT8, constant=constant)
        scale = self.weight() if axis is None else self.weight(shape[axis])
        return self("DequantizeLinear", x, scale, axis=1 if axis is None else axis)

    def quantize(self, x: str) -> str:
        return self("QuantizeLinear", x, self.weight(), self.weight(dtype=INT8))

    def body(self, *outputs: str) -> Body:
        return Body(tuple(self.inputs), tuple(self.nodes), outputs, self.anchor)


def conv(
    dtype: DataType = FLOAT,
    *,
    channels: int = 20,
    filters: int = 24,
    size: int = 9,
    kernel: int = 3,
    stride: int = 1,
    pad: int = 1,
    group: int = 1,
    dilation: int = 1,
    residual: bool = False,
    activation: str = "Relu",
) -> Callable[[int], Body]:
    """Conv + bias (+ residual) + activation."""

    def make(batch: int) -> Body:
        d = Draft()
        x = d.input(batch, channels, size, size, dtype=dtype)
        w = d.weight(filters, channels // group, kernel, kernel, dtype=dtype)
        y = d.anchored(
            "Conv",
            x,
            w,
            d.weight(filters, dtype=dtype),
            strides=(stride, stride),
            pads=(pad,) * 4,
            group=group,
            dilations=(dilation, dilation),
        )
        if residual:
            out = (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            y = d("Add", y, d.input(batch, filters, out, out, dtype=dtype))
        if activation == "Clip":
            y = d("Clip", y, d.literal(0.0), d.literal(6.0))
        elif activation:
            y = d(activation, y)
        return d.body(y)

    return make


def quantized_conv(batch: int, *, group: int = 1, residual: bool = False) -> Body:
    """INT8 in, INT8 out."""
    d = Draft()
    x = d.quantized(batch, 16, 7, 7)
    w = d.quantized(16, 16 // group, 3, 3, axis=0, constant=True)
    y = d.anchored("Conv", x, w, d.weight(16), pads=(1, 1, 1, 1), group=group)
    if residual:
        y = d("Add", y, d.quantized(batch, 16, 7, 7))
    return d.body(d.quantize(d("Relu", y)))


def quantized_gemm(batch: int) -> Body:
    d = Draft()
    x = d.quantized(batch, 48)
    w = d.quantized(10, 48, axis=0, constant=True)
    return d.body(d.anchored("Gemm", x, w, d.weight(10), transB=1))


def quantized_matmul(batch: int) -> Body:
    d = Draft()
    x = d.quantized(batch, 5, 32)
    w = d.quantized(32, 24, axis=1, constant=True)
    y = d("Add", d.anchored("MatMul", x, w), d.weight(24))
    return d.body(d.quantize(d("Gelu", y)))


def gemm(dtype: DataType) -> Callable[[int], Body]:
    def make(batch: int) -> Body:
        d = Draft()
        x, w = d.input(batch, 40, dtype=dtype), d.weight(10, 40, dtype=dtype)
        return d.body(d("Relu", d.anchored("Gemm", x, w, d.weight(10, dtype=dtype), transB=1)))

    return make


def gemm_scaled(batch: int) -> Body:
    d = Draft()
    x, w, c = d.input(12, batch), d.weight(12, 7), d.input(batch, 7)
    return d.body(d.anchored("Gemm", x, w, c, transA=1, alpha=0.5, beta=2.0))


def linear(dtype: DataType) -> Callable[[int], Body]:
    """MatMul + bias + Gelu on tokens."""

    def make(batch: int) -> Body:
        d = Draft()
        x, w = d.input(batch, 9, 32, dtype=dtype), d.weight(32, 48, dtype=dtype)
        y = d("Add", d.anchored("MatMul", x, w), d.weight(48, dtype=dtype))
        return d.body(d("Gelu", y))

    return make


def attention_scores(batch: int) -> Body:
    d = Draft()
    q, k = d.input(batch, 2, 6, 8), d.input(batch, 2, 8, 6)
    y = d.anchored("MatMul", d("Mul", q, d.literal([0.5])), d("Mul", k, d.literal([0.5])))
    return d.body(y)


def pool(op: str, **attributes: Any) -> Callable[[int], Body]:
    def make(batch: int) -> Body:
        d = Draft()
        return d.body(d.anchored(op, d.input(batch, 20, 9, 9), **attributes))

    return make


def pool_typed(dtype: DataType) -> Callable[[int], Body]:
    def make(batch: int) -> Body:
        d = Draft()
        x = d.input(batch, 16, 8, 8, dtype=dtype)
        return d.body(d.anchored("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2)))

    return make


def pointwise(dtype: DataType) -> Callable[[int], Body]:
    """A graph of elementwise nodes with a per-channel constant and two uses of one value."""

    def make(batch: int) -> Body:
        d = Draft()
        x, y = (d.input(batch, 20, 5, 5, dtype=dtype) for _ in range(2))
        a = d("Add", d("Mul", x, d.weight(20, 1, 1, dtype=dtype)), y)
        return d.body(d("Mul", a, d("Sigmoid", a)))

    return make


def activations(batch: int) -> Body:
    """Every activation, one after the other."""
    d = Draft()
    x = d.input(batch, 301)
    ops = (
        "Tanh Erf Gelu Exp Softplus HardSwish HardSigmoid LeakyRelu Elu Selu Mish Softsign".split()
    )
    y = x
    for op in ops:
        y = d("Add", y, d("Mul", d(op, x), d.literal(0.1)))
    return d.body(y)


def broadcasts(batch: int) -> Body:
    d = Draft()
    x, row, column = d.input(batch, 6, 10), d.input(10), d.input(batch, 6, 1)
    return d.body(d("Sub", d("Div", x, d("Abs", d("Add", d("Mul", row, row), column))), row))


def compare(batch: int) -> Body:
    d = Draft()
    x, y = d.input(batch, 33), d.input(batch, 33)
    chosen = d("Where", d("Less", x, y), d("Max", x, d.literal(0.25)), d("Min", x, y))
    return d.body(d("Cast", d("Greater", chosen, d.literal(0.0)), to=INT32))


def integers(batch: int) -> Body:
    d = Draft()
    x = d.input(batch, 17, dtype=INT64)
    y = d("Sub", d("Mul", x, d.literal(3, "int64")), d.literal(5, "int64"))
    return d.body(d("Div", y, d.literal(2, "int64")))


def vector(batch: int) -> Body:
    d = Draft()
    return d.body(d("Mul", d("Relu", d.input(batch)), d.input()))


def scalar(batch: int) -> Body:
    d = Draft()
    return d.body(d("Sqrt", d("Abs", d.input())))


def one_channel(batch: int) -> Body:
    d = Draft()
    x, y = d.input(batch, 1, 4, 4), d.input(batch, 1, 1, 1)
    return d.body(d("Relu", d("Add", x, y)))


def channel_attention(batch: int) -> Body:
    """Each channel scaled, and one map for all channels added (squeeze and excitation)."""
    d = Draft()
    x, scale, plane = d.input(batch, 20, 4, 4), d.input(batch, 20, 1, 1), d.input(batch, 1, 4, 4)
    return d.body(d("Add", d("Mul", x, scale), plane))


def two_outputs(batch: int) -> Body:
    d = Draft()
    x, y = d.input(batch, 20, 4, 4), d.input(batch, 20, 4, 4)
    total = d("Add", x, y)
    return d.body(total, d("Relu", total))


def attention_mask(batch: int) -> Body:
    d = Draft()
    m = d.input(batch, 1, 1, 12, dtype=INT64)
    y = d("Sub", d.literal(1.0), d("Cast", m, to=FLOAT))
    return d.body(d("Mul", y, d.literal(-3.4028235e38)))


def requantize(batch: int) -> Body:
    d = Draft()
    y = d("Add", d.quantized(batch, 20, 4, 4), d.quantized(batch, 20, 4, 4))
    return d.body(d.quantize(d("Relu", y)))


def quantize_only(batch: int) -> Body:
    d = Draft()
    return d.body(d.quantize(d.input(batch, 20, 4, 4)))


def dequantize_channels(batch: int) -> Body:
    d = Draft()
    return d.body(d.quantized(batch, 20, 4, 4, axis=1))


def cast(source: DataType, target: DataType) -> Callable[[int], Body]:
    def make(batch: int) -> Body:
        d = Draft()
        return d.body(d("Cast", d.input(batch, 20, 3, 3, dtype=source), to=target))

    return make


def softmax(dtype: DataType, *, masked: bool = False) -> Callable[[int], Body]:
    def make(batch: int) -> Body:
        d = Draft()
        x = d.input(batch, 2, 7, 19, dtype=dtype)
        if masked:
            x = d("Add", d("Mul", x, d.literal(0.125)), d.input(batch, 1, 1, 19, dtype=dtype))
        return d.body(d.anchored("Softmax", x, axis=-1))

    return make


def softmax_channels(batch: int) -> Body:
    d = Draft()
    return d.body(d.anchored("Softmax", d.input(batch, 10, 3, 3), axis=1))


def layer_norm(dtype: DataType, *, residual: bool = False) -> Callable[[int], Body]:
    def make(batch: int) -> Body:
        d = Draft()
        x = d.input(batch, 5, 48, dtype=dtype)
        if residual:
            x = d("Add", x, d.input(batch, 5, 48, dtype=dtype))
        scale, bias = d.weight(48, dtype=dtype), d.weight(48, dtype=dtype)
        return d.body(d.anchored("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5))

    return make


def rms_norm(batch: int) -> Body:
    d = Draft()
    x = d.input(batch, 5, 48)
    return d.body(d.anchored("RMSNormalization", x, d.weight(48), axis=-1))


def reduce_mean(axes: tuple[int, ...], keepdims: int = 1) -> Callable[[int], Body]:
    def make(batch: int) -> Body:
        d = Draft()
        x = d.input(batch, 20, 6, 6)
        y = d.anchored("ReduceMean", x, d.literal(axes, "int64"), keepdims=keepdims)
        return d.body(y)

    return make


def transpose(*perm: int, dtype: DataType = FLOAT) -> Callable[[int], Body]:
    def make(batch: int) -> Body:
        d = Draft()
        sizes = (batch, 5, 4, 6)[: len(perm)]
        return d.body(d("Transpose", d.input(*sizes, dtype=dtype), perm=perm))

    return make


def concat(axis: int, dtype: DataType = FLOAT) -> Callable[[int], Body]:
    def make(batch: int) -> Body:
        d = Draft()
        parts = [d.input(batch, c, 4, 4, dtype=dtype) for c in (16, 5, 11)]
        if axis != 1:
            parts = [d.input(batch, 6, 4, c, dtype=dtype) for c in (3, 5)]
            d.inputs = d.inputs[3:]
        return d.body(d("Concat", *parts, axis=axis))

    return make


def split(batch: int) -> Body:
    d = Draft()
    x = d.input(batch, 3, 12)
    return d.body(*d.many("Split", x, d.literal([2, 4, 6], "int64"), outputs=3, axis=-1))


def slices(batch: int) -> Body:
    d = Draft()
    ends, axes, steps = ([9, -1], [1, 2], [2, 1])
    given = (d.literal(v, "int64") for v in ([1, 0], ends, axes, steps))
    return d.body(d("Slice", d.input(batch, 10, 7), *given))


def gather(batch: int) -> Body:
    d = Draft()
    table, rows = d.weight(50, 24), d.input(batch, 6, dtype=INT64)
    return d.body(d("Gather", table, rows, axis=0))


def reshape(batch: int) -> Body:
    d = Draft()
    return d.body(d("Reshape", d.input(batch, 20, 1, 1), d.literal([-1, 20], "int64")))


def quantized_sum(channels: int) -> Body:
    """Two INT8 images added and quantized again."""
    d = Draft()
    x, y = (d.quantized(2, channels, 3, 5) for _ in range(2))
    return d.body(d.quantize(d("Relu", d("Add", x, y))))


def patches_as_rows(batch: int) -> Body:
    """An image's pixels as rows of their channels, after a learned one: a ViT's tokens."""
    d = Draft()
    image = d.input(batch, 24, 2, 3, dtype=HALF)
    rows = d("Reshape", image, d.literal([batch, 24, 6], "int64"))
    token = d("Expand", d.weight(1, 1, 24, dtype=HALF), d.literal([batch, 1, 24], "int64"))
    return d.body(d("Concat", token, d("Transpose", rows, perm=(0, 2, 1)), axis=1))


BODIES: dict[str, Callable[[int], Body]] = {
    "conv_3x3_residual": conv(residual=True),
    "conv_1x1": conv(kernel=1, pad=0),
    "conv_strided_clip": conv(stride=2, activation="Clip"),
    "conv_padded_1x1": conv(kernel=1, pad=1, activation=""),
    "conv_grouped_dilated": conv(group=4, dilation=2, size=11),
    "conv_depthwise": conv(channels=20, filters=20, group=20, activation="Clip"),
    "conv_depthwise_multiplier": conv(channels=8, filters=16, group=8, stride=2),
    "conv_bf16": conv(BF16, residual=True),
    "conv_half": conv(HALF),
    "conv_int8": quantized_conv,
    "conv_int8_residual": lambda batch: quantized_conv(batch, residual=True),
    "conv_int8_depthwise": lambda batch: quantized_conv(batch, group=16),
    "gemm": gemm(FLOAT),
    "gemm_bf16": gemm(BF16),
    "gemm_scaled": gemm_scaled,
    "gemm_int8": quantized_gemm,
    "linear_gelu": linear(FLOAT),
    "linear_gelu_bf16": linear(BF16),
    "linear_gelu_half": linear(HALF),
    "linear_int8": quantized_matmul,
    "attention_scores": attention_scores,
    "max_pool": pool("MaxPool", kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    "max_pool_ceil": pool("MaxPool", kernel_shape=(2, 2), strides=(2, 2), ceil_mode=1),
    "max_pool_bf16": pool_typed(BF16),
    "max_pool_int8": pool_typed(INT8),
    "average_pool": pool("AveragePool", kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    "average_pool_counting_padding": pool(
        "AveragePool", kernel_shape=(3, 3), pads=(0, 1, 1, 0), count_include_pad=1
    ),
    "global_average_pool": pool("GlobalAveragePool"),
    "pointwise": pointwise(FLOAT),
    "pointwise_bf16": pointwise(BF16),
    "pointwise_half": pointwise(HALF),
    "activations": activations,
    "broadcasts": broadcasts,
    "patches_as_rows": patches_as_rows,
    "compare": compare,
    "integers": integers,
    "vector": vector,
    "scalar": scalar,
    "one_channel": one_channel,
    "channel_attention": channel_attention,
    "two_outputs": two_outputs,
    "attention_mask": attention_mask,
    "requantize": requantize,
    "quantize": quantize_only,
    "dequantize_channels": dequantize_channels,
    "cast_float_to_bf16": cast(FLOAT, BF16),
    "cast_half_to_float": cast(HALF, FLOAT),
    "cast_float_to_int32": cast(FLOAT, INT32),
    "softmax": softmax(FLOAT),
    "softmax_masked": softmax(FLOAT, masked=True),
    "softmax_bf16": softmax(BF16),
    "softmax_channels": softmax_channels,
    "layer_norm": layer_norm(FLOAT),
    "layer_norm_residual": layer_norm(FLOAT, residual=True),
    "layer_norm_bf16": layer_norm(BF16),
    "rms_norm": rms_norm,
    "mean_spatial": reduce_mean((2, 3)),
    "mean_spatial_dropped": reduce_mean((-1, -2), keepdims=0),
    "mean_middle": reduce_mean((1,)),
    "transpose_heads": transpose(0, 2, 1, 3),
    "transpose_last": transpose(0, 1, 3, 2),
    "transpose_all": transpose(3, 2, 1, 0),
    "transpose_bf16": transpose(2, 0, 1, dtype=BF16),
    "concat_channels": concat(1),
    "concat_channels_int8": concat(1, INT8),
    "concat_last": concat(-1),
    "split": split,
    "slice": slices,
    "gather": gather,
    "reshape": reshape,
}
"""Name -> the Body at a batch size."""


def problem_of(
    body: Body, *, seed: int = 0, threads: int = 1
) -> tuple[Problem, dict[str, Array], dict[str, Array]]:
    """A CPU problem with sampled constants; its dynamic inputs; and all inputs."""
    values = sample_inputs(body, seed=seed)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    dynamic = {i.name: values[i.name] for i in body.inputs if not i.constant}
    return Problem(body, constants, CpuDevice(threads), threads), dynamic, values
