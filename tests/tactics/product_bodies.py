"""Bodies of layers as large models have them: convolutions, products, attention, in any type."""

from __future__ import annotations

from dataclasses import dataclass

from tactic_bodies import FLOAT, HALF, INT8, Draft

from workbench.body import Body
from workbench.datatypes import DataType

QUANTIZED = (INT8, DataType.FP8)


@dataclass(frozen=True)
class Convolution:
    """One convolution with bias, an activation, and maybe a residual. kind: of its factors."""

    batch: int
    channels: int
    size: int
    filters: int
    kernel: int = 1
    stride: int = 1
    pad: int = 0
    kind: DataType = HALF
    residual: bool = False
    activation: str = "Relu"
    group: int = 1
    width: int = 0

    @property
    def out(self) -> tuple[int, int]:
        wide = self.width or self.size
        high, long = (
            (s + 2 * self.pad - self.kernel) // self.stride + 1 for s in (self.size, wide)
        )
        return high, long

    @property
    def flops(self) -> int:
        """Operations of the products."""
        taps = self.kernel**2 * self.channels // self.group
        return 2 * self.batch * self.filters * self.out[0] * self.out[1] * taps

    @property
    def title(self) -> str:
        kind = "depthwise" if self.group == self.channels > 1 else "conv"
        stride = f"/{self.stride}" if self.stride > 1 else ""
        extra = " +residual" if self.residual else ""
        return (
            f"{kind} b{self.batch} {self.channels}x{self.size}x{self.size} -> {self.filters} "
            f"{self.kernel}x{self.kernel}{stride}{extra}"
        )

    def body(self) -> Body:
        d = Draft()
        quantized = self.kind in QUANTIZED
        inner = FLOAT if quantized else self.kind
        image = (self.batch, self.channels, self.size, self.width or self.size)
        kernel = (self.filters, self.channels // self.group, self.kernel, self.kernel)
        if quantized:
            x = stored(d, image, self.kind)
            w = stored(d, kernel, self.kind, axis=0, constant=True)
        else:
            x, w = d.input(*image, dtype=inner), d.weight(*kernel, dtype=inner)
        y = d.anchored(
            "Conv",
            x,
            w,
            d.weight(self.filters, dtype=inner),
            strides=(self.stride,) * 2,
            pads=(self.pad,) * 4,
            group=self.group,
        )
        if self.residual:
            shape = (self.batch, self.filters, *self.out)
            other = stored(d, shape, self.kind) if quantized else d.input(*shape, dtype=inner)
            y = d("Add", y, other)
        if self.activation == "Clip":
            kind = inner.numpy.name
            y = d("Clip", y, d.literal(0.0, kind), d.literal(6.0, kind))
        elif self.activation:
            y = d(self.activation, y)
        return d.body(requantized(d, y, self.kind) if quantized else y)


@dataclass(frozen=True)
class Linear:
    """A product of tokens with weights, with bias, maybe an activation and a residual."""

    rows: int
    depth: int
    columns: int
    kind: DataType = HALF
    residual: bool = False
    activation: str = ""

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.depth * self.columns

    @property
    def title(self) -> str:
        extra = f" {self.activation.lower()}" if self.activation else ""
        extra += " +residual" if self.residual else ""
        return f"gemm {self.rows}x{self.depth}x{self.columns}{extra}"

    def body(self) -> Body:
        d = Draft()
        quantized = self.kind in QUANTIZED
        inner = FLOAT if quantized else self.kind
        if quantized:
            x = stored(d, (self.rows, self.depth), self.kind)
            w = stored(d, (self.depth, self.columns), self.kind, axis=1, constant=True)
        else:
            x = d.input(self.rows, self.depth, dtype=inner)
            w = d.weight(self.depth, self.columns, dtype=inner)
        y = d("Add", d.anchored("MatMul", x, w), d.weight(self.columns, dtype=inner))
        if self.activation:
            y = d(self.activation, y)
        if self.residual:
            shape = (self.rows, self.columns)
            y = d(
                "Add", y, stored(d, shape, self.kind) if quantized else d.input(*shape, dtype=inner)
            )
        return d.body(requantized(d, y, self.kind) if quantized else y)


@dataclass(frozen=True)
class Attention:
    """Heads split off one wide product, a mask for each key, heads merged again: as in BERT."""

    batch: int
    heads: int
    tokens: int
    size: int
    kind: DataType = HALF
    masked: bool = True

    @property
    def flops(self) -> int:
        return 4 * self.batch * self.heads * self.tokens**2 * self.size

    @property
    def title(self) -> str:
        return f"attention b{self.batch} h{self.heads} s{self.tokens} d{self.size}"

    def body(self) -> Body:
        d = Draft()
        width = self.heads * self.size
        x = d.input(self.batch, self.tokens, 3 * width, dtype=self.kind)
        parts = d.many("Split", x, d.literal([width] * 3, "int64"), outputs=3, axis=-1)
        shape = d.literal((self.batch, self.tokens, self.heads, self.size), "int64")
        q, k, v = (d("Reshape", p, shape) for p in parts)
        q, v = (d("Transpose", t, perm=(0, 2, 1, 3)) for t in (q, v))
        scores = d("MatMul", q, d("Transpose", k, perm=(0, 2, 3, 1)))
        if self.masked:
            scores = d("Add", scores, d.input(self.batch, 1, 1, self.tokens, dtype=self.kind))
        y = d("MatMul", d.anchored("Softmax", scores, axis=-1), v)
        rows = d("Transpose", y, perm=(0, 2, 1, 3))
        return d.body(d("Reshape", rows, d.literal([self.batch, self.tokens, width], "int64")))


def stored(
    d: Draft,
    shape: tuple[int, ...],
    kind: DataType,
    *,
    axis: int | None = None,
    constant: bool = False,
) -> str:
    """A dequantized value, with one scale or one for each index of an axis."""
    x = d.input(*shape, dtype=kind, constant=constant)
    scale = d.weight() if axis is None else d.weight(shape[axis])
    return d("DequantizeLinear", x, scale, axis=1 if axis is None else axis)


def requantized(d: Draft, x: str, kind: DataType) -> str:
    """What a QuantizeLinear to a type gives."""
    if kind is INT8:
        return d.quantize(x)
    return d("QuantizeLinear", x, d.weight(), output_dtype=kind)


def resnet50(batch: int, kind: DataType) -> tuple[Convolution, ...]:
    """Every kind of convolution that ResNet-50 has, at 224 × 224."""
    found = [Convolution(batch, 3, 224, 64, 7, 2, 3, kind)]
    channels, size = 64, 56
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        wide = 4 * width
        first = [
            Convolution(batch, channels, size, wide, 1, stride, 0, kind, activation=""),
            Convolution(batch, channels, size, width, kind=kind),
            Convolution(batch, width, size, width, 3, stride, 1, kind),
        ]
        size //= stride
        rest = [
            Convolution(batch, width, size, wide, kind=kind, residual=True),
            Convolution(batch, wide, size, width, kind=kind),
            Convolution(batch, width, size, width, 3, 1, 1, kind),
        ]
        found += [*first, *rest]
        channels = wide
    return tuple(dict.fromkeys(found))


def mobilenet_depthwise(batch: int, kind: DataType) -> tuple[Convolution, ...]:
    """Every depthwise convolution of MobileNetV2, at 224 × 224."""
    shapes = (
        (32, 112, 1),
        (96, 112, 2),
        (144, 56, 1),
        (144, 56, 2),
        (192, 28, 1),
        (192, 28, 2),
        (384, 14, 1),
        (576, 14, 1),
        (576, 14, 2),
        (960, 7, 1),
    )
    return tuple(
        Convolution(batch, c, s, c, 3, stride, 1, kind, activation="Clip", group=c)
        for c, s, stride in shapes
    )
