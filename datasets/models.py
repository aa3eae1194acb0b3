"""The three digit networks as PyTorch modules: small, but with the structures that matter.

`DigitsCnn` has what a fuser looks for in a convolutional network, `DigitsInception` has
siblings that read one tensor, `DigitsVit` has attention. Every module maps
`image` float32 [batch, 1, 8, 8] to `logits` float32 [batch, 10]. Channel counts are
multiples of 16, so that vectorised tensor formats apply without padding.

Needs: torch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10


class ConvBnRelu(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; spatial size kept unless `stride` > 1."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=(kernel - 1) // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the input is added before the last ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBnRelu(channels, channels, 3)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(self.first(x))) + x)


class DigitsCnn(nn.Module):
    """Stem, residual block, max pool, depthwise separable convolution, average pool, Gemm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnRelu(1, 32, 3)
        self.residual = ResidualBlock(32)
        self.pool = nn.MaxPool2d(2)
        self.depthwise = ConvBnRelu(32, 32, 3, groups=32)
        self.pointwise = ConvBnRelu(32, 64, 1)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(64, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool(self.residual(self.stem(image)))
        x = self.average(self.pointwise(self.depthwise(x)))
        return self.classifier(torch.flatten(x, 1))


class InceptionBlock(nn.Module):
    """Three sibling 1x1 convolutions of one input, two of them followed by 3x3s, and a pool.

    Output channels: direct 16 + single 32 + twice 32 + pooled 16 = 96.
    """

    OUTPUTS = 96

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.direct = ConvBnRelu(inputs, 16, 1)
        self.single_reduce = ConvBnRelu(inputs, 32, 1)
        self.single = ConvBnRelu(32, 32, 3)
        self.twice_reduce = ConvBnRelu(inputs, 16, 1)
        self.twice = nn.Sequential(ConvBnRelu(16, 32, 3), ConvBnRelu(32, 32, 3))
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.pooled = ConvBnRelu(inputs, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.direct(x),
            self.single(self.single_reduce(x)),
            self.twice(self.twice_reduce(x)),
            self.pooled(self.pool(x)),
        ]
        return torch.cat(branches, dim=1)


class DigitsInception(nn.Module):
    """Stem, two inception blocks with a max pool between, average pool, Gemm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnRelu(1, 32, 3)
        self.first = InceptionBlock(32)
        self.pool = nn.MaxPool2d(2)
        self.second = InceptionBlock(InceptionBlock.OUTPUTS)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(InceptionBlock.OUTPUTS, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.second(self.pool(self.first(self.stem(image))))
        return self.classifier(torch.flatten(self.average(x), 1))


class SelfAttention(nn.Module):
    """Multi-head self-attention with separate query, key and value projections.

    The projections stay apart on purpose: merging them into one wide MatMul is the
    optimizer's work.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        split = (batch, tokens, self.heads, width // self.heads)
        query = self.query(x).view(split).transpose(1, 2)
        key = self.key(x).view(split).transpose(1, 2)
        value = self.value(x).view(split).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.output(mixed.transpose(1, 2).reshape(batch, tokens, width))


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class DigitsVit(nn.Module):
    """Vision transformer: 2x2 patches (16 tokens), learnt positions, mean over tokens, Gemm."""

    def __init__(
        self, *, width: int = 64, heads: int = 4, hidden: int = 128, blocks: int = 4
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, kernel_size=2, stride=2)
        self.positions = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, heads, hidden) for _ in range(blocks))
        )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2) + self.positions
        return self.classifier(self.norm(self.blocks(tokens)).mean(dim=1))
