"""ResNet-50, SqueezeNet 1.1, MobileNetV2 and a BERT encoder in plain PyTorch, random weights.

The architectures follow their papers and the layer order of torchvision and of Hugging
Face's `BertModel`, so that their exported graphs look like the ones users bring. The
weights are random: only the numerics of a build can be judged with them, not accuracy.

Needs: torch.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


class Bottleneck(nn.Module):
    """ResNet's 1x1, 3x3, 1x1 block; the stride sits in the 3x3 (the "v1.5" of torchvision)."""

    EXPANSION = 4

    def __init__(self, inputs: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        outputs = width * self.EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    @property
    def branch_norm(self) -> nn.BatchNorm2d:
        """The batch norm whose output is added to the trunk."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """`image` [batch, 3, 224, 224] to `logits` [batch, 1000]. Source: arXiv:1512.03385."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages: list[nn.Module] = []
        inputs = 64
        for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for index in range(depth):
                stages.append(Bottleneck(inputs, width, stride=stride if index == 0 else 1))
                inputs = width * Bottleneck.EXPANSION
        self.stages = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        return self.fc(torch.flatten(self.avgpool(self.stages(x)), 1))


class Fire(nn.Module):
    """SqueezeNet's block: squeeze 1x1, then 1x1 and 3x3 side by side, concatenated."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.expand1x1(x)), self.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1: `image` [batch, 3, 224, 224] to `logits` [batch, 1000].

    Source: arXiv:1602.07360 and the 1.1 revision in its repository.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Conv2d(512, 1000, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((1, 1)),
        )

    def forward(self, image: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(image)), 1)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand 1x1, depthwise 3x3, project 1x1 without activation."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(conv_bn_relu6(inputs, hidden, 1))
        layers.append(conv_bn_relu6(hidden, hidden, 3, stride=stride, groups=hidden))
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.adds_input = stride == 1 and inputs == outputs

    @property
    def branch_norm(self) -> nn.BatchNorm2d:
        """The batch norm whose output is added to the trunk, where there is one."""
        norm = self.conv[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds_input else self.conv(x)


def conv_bn_relu6(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU6."""
    return nn.Sequential(
        nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=(kernel - 1) // 2,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class MobileNetV2(nn.Module):
    """`image` [batch, 3, 224, 224] to `logits` [batch, 1000]. Source: arXiv:1801.04381."""

    # (expansion, output channels, repeats, stride of the first), table 2 of the paper.
    STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        inputs = 32
        features: list[nn.Module] = [conv_bn_relu6(3, inputs, 3, stride=2)]
        for expand, outputs, repeats, first_stride in self.STAGES:
            for index in range(repeats):
                stride = first_stride if index == 0 else 1
                features.append(InvertedResidual(inputs, outputs, stride=stride, expand=expand))
                inputs = outputs
        features.append(conv_bn_relu6(inputs, 1280, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, image: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.features(image), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class BertEmbeddings(nn.Module):
    """Sum of word, position and token-type embeddings, then layer norm."""

    position_ids: Tensor
    token_type_ids: Tensor

    def __init__(self, vocabulary: int, positions: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width, padding_idx=0)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        # Buffers, as Hugging Face keeps them: sliced and expanded inside the graph.
        self.register_buffer("position_ids", torch.arange(positions).expand(1, -1))
        self.register_buffer("token_type_ids", torch.zeros(1, positions, dtype=torch.int64))

    def forward(self, input_ids: Tensor) -> Tensor:
        batch, tokens = input_ids.shape
        token_types = self.token_type_ids[:, :tokens].expand(batch, tokens)
        embeddings = self.word_embeddings(input_ids) + self.token_type_embeddings(token_types)
        embeddings = embeddings + self.position_embeddings(self.position_ids[:, :tokens])
        return self.LayerNorm(embeddings)


class BertLayer(nn.Module):
    """Post-norm encoder layer with separate query, key and value projections."""

    def __init__(self, width: int, heads: int, hidden: int, *, attention: str) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = width // heads
        self.attention = attention
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.intermediate = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, width)
        self.output_norm = nn.LayerNorm(width, eps=1e-12)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, self.head_size).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query = self.split(self.query(x))
        key = self.split(self.key(x))
        value = self.split(self.value(x))
        if self.attention == "sdpa":
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.head_size)
            mixed = torch.matmul(torch.softmax(scores + mask, dim=-1), value)
        mixed = mixed.transpose(1, 2).contiguous().reshape(*x.shape)
        x = self.attention_norm(self.attention_output(mixed) + x)
        return self.output_norm(self.output(functional.gelu(self.intermediate(x))) + x)


class BertEncoder(nn.Module):
    """`input_ids`, `attention_mask` int64 [batch, tokens] to `last_hidden_state`.

    The output is float32 [batch, tokens, width]. The defaults are BERT-base's. `attention`
    is "sdpa" (Hugging Face's default today) or "eager" (its older spelling).
    Source: arXiv:1810.04805.
    """

    def __init__(
        self,
        *,
        layers: int = 12,
        width: int = 768,
        heads: int = 12,
        hidden: int = 3072,
        vocabulary: int = 30522,
        positions: int = 512,
        attention: str = "sdpa",
    ) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(vocabulary, positions, width)
        self.layers = nn.ModuleList(
            BertLayer(width, heads, hidden, attention=attention) for _ in range(layers)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embeddings(input_ids)
        batch, tokens = attention_mask.shape
        kept = attention_mask[:, None, None, :].expand(batch, 1, tokens, tokens).to(x.dtype)
        mask = (1.0 - kept) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return x


def initialize(module: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Weights that keep activations near unit size, then batch-norm statistics from `inputs`.

    Convolutions: He et al., arXiv:1502.01852, fan-out. Embeddings and linear layers of a
    transformer keep a size near 1 through layer norm; BERT's own std is 0.02.
    """
    is_transformer = any(isinstance(part, nn.LayerNorm) for part in module.modules())
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            # Fan-in where there is no batch norm to restore the size (SqueezeNet).
            mode = "fan_out" if part.bias is None else "fan_in"
            nn.init.kaiming_normal_(part.weight, mode=mode, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            std = 0.02 if is_transformer else part.in_features**-0.5
            nn.init.normal_(part.weight, std=std)
            nn.init.normal_(part.bias, std=0.02)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.1)
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # A plain average, so that the start values leave no trace.
    for part in module.modules():
        if isinstance(part, Bottleneck) or (isinstance(part, InvertedResidual) and part.adds_input):
            # Branches quieter than the trunk, as in trained networks. With equal ones, 50 random
            # layers amplify rounding errors twentyfold.
            nn.init.uniform_(part.branch_norm.weight, 0.1, 0.4)
    if not is_transformer:
        module.train()
        with torch.no_grad():
            module(*inputs.values())
    module.eval()
