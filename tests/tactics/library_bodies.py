"""Bodies of convolutional networks and transformers: what vendor libraries are tested on."""

from __future__ import annotations

from collections.abc import Callable

from tactic_bodies import BF16, FLOAT, HALF, INT8, Draft

from workbench.body import Body
from workbench.datatypes import DataType

FP8 = DataType.FP8


def convolution(
    dtype: DataType = HALF,
    *,
    channels: int = 32,
    filters: int = 64,
    size: int = 14,
    kernel: int = 3,
    stride: int = 1,
    group: int = 1,
    dilation: int = 1,
    residual: bool = False,
    activation: str = "Relu",
    rank: int = 2,
) -> Callable[[int], Body]:
    """Conv + bias (+ residual) + activation, with "same" padding, on ``rank`` spatial axes."""

    def make(batch: int) -> Body:
        d = Draft()
        x = d.input(batch, channels, *(size,) * rank, dtype=dtype)
        w = d.weight(filters, channels // group, *(kernel,) * rank, dtype=dtype)
        bias = d.weight(filters, dtype=dtype)
        pad = dilation * (kernel // 2)
        y = d.anchored(
            "Conv",
            x,
            w,
            bias,
            strides=(stride,) * rank,
            pads=(pad,) * 2 * rank,
            group=group,
            dilations=(dilation,) * rank,
        )
        if residual:
            out = -(-size // stride)
            y = d("Add", y, d.input(batch, filters, *(out,) * rank, dtype=dtype))
        return d.body(activated(d, y, activation, dtype))

    return make


def activated(d: Draft, y: str, activation: str, dtype: DataType) -> str:
    """An activation by name; "" for none."""
    if activation == "Clip":
        kind = dtype.numpy.name
        return d("Clip", y, d.literal(0.0, kind), d.literal(6.0, kind))
    if activation == "Swish":
        return d("Mul", y, d("Sigmoid", y))
    return d(activation, y) if activation else y


def transposed_convolution(dtype: DataType = HALF, *, group: int = 1) -> Callable[[int], Body]:
    """ConvTranspose that doubles the size, + bias + Relu."""

    def make(batch: int) -> Body:
        d = Draft()
        x = d.input(batch, 32, 7, 7, dtype=dtype)
        w = d.weight(32, 16 // group, 3, 3, dtype=dtype)
        y = d.anchored(
            "ConvTranspose",
            x,
            w,
            d.weight(16, dtype=dtype),
            strides=(2, 2),
            pads=(1, 1, 1, 1),
            output_padding=(1, 1),
            group=group,
        )
        return d.body(d("Relu", y))

    return make


def dequantized(d: Draft, stored: DataType, *shape: int, axis: int | None = None) -> str:
    """A dequantized value: an activation, or (with an axis, or None and ``axis=-1``) a weight."""
    constant = axis is not None
    x = d.input(*shape, dtype=stored, constant=constant)
    per_channel = constant and axis != -1
    scale = d.weight(shape[axis]) if per_channel and axis is not None else d.weight()
    return d("DequantizeLinear", x, scale, axis=axis if per_channel else 1)


def quantized(d: Draft, y: str, stored: DataType) -> str:
    """Rounded to a stored type, with a scale and a zero point of 0."""
    kind = {} if stored is INT8 else {"output_dtype": stored}
    return d("QuantizeLinear", y, d.weight(), d.weight(dtype=stored), **kind)


def quantized_convolution(
    stored: DataType = INT8,
    *,
    channels: int = 64,
    filters: int = 64,
    size: int = 14,
    kernel: int = 3,
    stride: int = 1,
    residual: bool = False,
    activation: str = "Relu",
    to: DataType | None = INT8,
) -> Callable[[int], Body]:
    """Quantized in and, unless ``to`` is None, out."""

    def make(batch: int) -> Body:
        d = Draft()
        x = dequantized(d, stored, batch, channels, size, size)
        w = dequantized(d, stored, filters, channels, kernel, kernel, axis=0)
        pads = (kernel // 2,) * 4
        y = d.anchored("Conv", x, w, d.weight(filters), pads=pads, strides=(stride, stride))
        if residual:
            y = d("Add", y, dequantized(d, stored, batch, filters, -(-size // stride), size))
        y = activated(d, y, activation, FLOAT)
        return d.body(y if to is None else quantized(d, y, to))

    return make


def linear(
    dtype: DataType = HALF,
    *,
    tokens: int = 16,
    inputs: int = 64,
    outputs: int = 128,
    residual: bool = False,
    activation: str = "",
    approximate: str = "none",
) -> Callable[[int], Body]:
    """MatMul + bias (+ residual) + activation on [batch, tokens, inputs]."""

    def make(batch: int) -> Body:
        d = Draft()
        x, w = d.input(batch, tokens, inputs, dtype=dtype), d.weight(inputs, outputs, dtype=dtype)
        y = d("Add", d.anchored("MatMul", x, w), d.weight(outputs, dtype=dtype))
        if residual:
            y = d("Add", y, d.input(batch, tokens, outputs, dtype=dtype))
        if activation == "Gelu":
            y = d("Gelu", y, approximate=approximate)
        elif activation:
            y = d(activation, y)
        return d.body(y)

    return make


def quantized_linear(
    stored: DataType = INT8,
    *,
    bias: bool = True,
    per_tensor: bool = False,
    activation: str = "",
    to: DataType | None = None,
) -> Callable[[int], Body]:
    """A quantized product of [batch, 16, 64] with weights [64, 128]."""

    def make(batch: int) -> Body:
        d = Draft()
        x = dequantized(d, stored, batch, 16, 64)
        w = dequantized(d, stored, 64, 128, axis=-1 if per_tensor else 1)
        y = d.anchored("MatMul", x, w)
        y = d("Add", y, d.weight(128)) if bias else y
        y = d(activation, y) if activation else y
        return d.body(y if to is None else quantized(d, y, to))

    return make


def quantized_linear_of_halves(stored: DataType = INT8) -> Callable[[int], Body]:
    """A quantized product among halves: bias and residual are added in FP16."""

    def make(batch: int) -> Body:
        d = Draft()
        x = dequantized(d, stored, batch, 16, 64)
        y = d.anchored("MatMul", x, dequantized(d, stored, 64, 128, axis=1))
        y = d("Add", d("Cast", y, to=HALF), d.weight(128, dtype=HALF))
        return d.body(d("Add", y, d.input(batch, 16, 128, dtype=HALF)))

    return make


def classifier(dtype: DataType = HALF) -> Callable[[int], Body]:
    """Gemm with turned weights and bias, cast to float32: the end of a classifier."""

    def make(batch: int) -> Body:
        d = Draft()
        x, w = d.input(batch, 64, dtype=dtype), d.weight(40, 64, dtype=dtype)
        y = d.anchored("Gemm", x, w, d.weight(40, dtype=dtype), transB=1)
        return d.body(d("Cast", y, to=FLOAT))

    return make


def batched(dtype: DataType = HALF, *, turned: bool = False) -> Callable[[int], Body]:
    """Products of two tensors, one a head; the second turned or not."""

    def make(batch: int) -> Body:
        d = Draft()
        a = d.input(batch, 4, 16, 32, dtype=dtype)
        b = d.input(batch, 4, *((24, 32) if turned else (32, 24)), dtype=dtype)
        b = d("Transpose", b, perm=(0, 1, 3, 2)) if turned else b
        return d.body(d.anchored("MatMul", a, b))

    return make


def attention(
    dtype: DataType = HALF,
    *,
    tokens: int = 64,
    heads: int = 2,
    size: int = 64,
    mask: str = "",
    scaled: bool = True,
) -> Callable[[int], Body]:
    """Split heads of one wide tensor; scale, mask ("" none, "keys", "pairs"); heads merged."""

    def make(batch: int) -> Body:
        d = Draft()
        width = heads * size
        x = d.input(batch, tokens, 3 * width, dtype=dtype)
        parts = d.many("Split", x, d.literal([width] * 3, "int64"), outputs=3, axis=-1)

        def split(v: str, *perm: int) -> str:
            apart = d("Reshape", v, d.literal([batch, tokens, heads, size], "int64"))
            return d("Transpose", apart, perm=perm)

        q, k, v = (
            split(parts[0], 0, 2, 1, 3),
            split(parts[1], 0, 2, 3, 1),
            split(parts[2], 0, 2, 1, 3),
        )
        if scaled:
            q = d("Mul", q, d.literal([size**-0.5], dtype.numpy.name))
        scores = d("MatMul", q, k)
        if mask:
            shape = (batch, 1, 1, tokens) if mask == "keys" else (tokens, tokens)
            scores = d("Add", scores, d.input(*shape, dtype=dtype))
        y = d("MatMul", d.anchored("Softmax", scores, axis=-1), v)
        rows = d("Transpose", y, perm=(0, 2, 1, 3))
        return d.body(d("Reshape", rows, d.literal([batch, tokens, width], "int64")))

    return make


def norm(op: str, dtype: DataType) -> Callable[[int], Body]:
    """A norm of [batch, 9, 64] over its last axis."""

    def make(batch: int) -> Body:
        d = Draft()
        weights = [d.weight(64, dtype=dtype) for _ in range(2 if op == "LayerNormalization" else 1)]
        return d.body(d.anchored(op, d.input(batch, 9, 64, dtype=dtype), *weights, axis=-1))

    return make


LIBRARY_BODIES: dict[str, Callable[[int], Body]] = {
    "resnet_3x3": convolution(),
    "resnet_residual": convolution(residual=True),
    "resnet_1x1": convolution(kernel=1),
    "resnet_1x1_residual": convolution(kernel=1, residual=True),
    "resnet_strided": convolution(stride=2),
    "resnet_downsample": convolution(kernel=1, stride=2, activation=""),
    "resnet_stem": convolution(channels=3, size=28, kernel=7, stride=2),
    "resnet_bf16": convolution(BF16, residual=True),
    "resnet_float": convolution(FLOAT, residual=True),
    "mobilenet_depthwise": convolution(channels=32, filters=32, group=32, activation="Clip"),
    "mobilenet_expand": convolution(kernel=1, activation="Clip"),
    "conv_grouped": convolution(group=4),
    "conv_dilated": convolution(dilation=2),
    "conv_swish": convolution(activation="Swish"),
    "conv_1d": convolution(rank=1),
    "conv_3d": convolution(rank=3, size=6),
    "conv_transposed": transposed_convolution(),
    "conv_transposed_float": transposed_convolution(FLOAT),
    "int8_3x3": quantized_convolution(),
    "int8_residual": quantized_convolution(residual=True),
    "int8_1x1": quantized_convolution(kernel=1),
    "int8_strided": quantized_convolution(stride=2),
    "int8_to_float": quantized_convolution(to=None),
    "int8_swish": quantized_convolution(activation="Swish"),
    "fp8_3x3": quantized_convolution(FP8, to=FP8),
    "fp8_residual": quantized_convolution(FP8, residual=True, to=FP8),
    "linear": linear(),
    "linear_gelu": linear(activation="Gelu"),
    "linear_gelu_tanh": linear(activation="Gelu", approximate="tanh"),
    "linear_gelu_bf16": linear(BF16, activation="Gelu"),
    "linear_residual": linear(residual=True),
    "linear_relu_float": linear(FLOAT, activation="Relu"),
    "classifier": classifier(),
    "batched": batched(),
    "batched_turned": batched(turned=True),
    "batched_float": batched(FLOAT),
    "int8_linear": quantized_linear(),
    "int8_linear_gelu": quantized_linear(activation="Gelu", to=INT8),
    "int8_linear_plain": quantized_linear(bias=False, per_tensor=True, to=INT8),
    "int8_linear_halves": quantized_linear_of_halves(),
    "fp8_linear_halves": quantized_linear_of_halves(FP8),
    "fp8_linear": quantized_linear(FP8, to=FP8),
    "fp8_linear_relu": quantized_linear(FP8, per_tensor=True, activation="Relu", to=FP8),
    "fp8_linear_plain": quantized_linear(FP8, per_tensor=True, bias=False),
    "attention": attention(),
    "attention_keys": attention(mask="keys"),
    "attention_pairs": attention(mask="pairs"),
    "attention_bf16": attention(BF16),
    "attention_odd": attention(tokens=197 // 4, mask="keys"),
    "layer_norm": norm("LayerNormalization", HALF),
    "layer_norm_float": norm("LayerNormalization", FLOAT),
    "rms_norm": norm("RMSNormalization", HALF),
}
"""Name -> the Body at a batch size."""
