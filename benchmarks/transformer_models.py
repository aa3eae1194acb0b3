"""ViT-B/16 and GPT-2 small in plain PyTorch, written as torchvision, timm and Hugging Face do.

Needs: torch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


# -- ViT-B/16 -----------------------------------------------------------------------------
class FusedAttention(nn.Module):
    """timm's attention: one projection for all three; ``eager`` writes the products out."""

    def __init__(self, width: int, heads: int, *, eager: bool) -> None:
        super().__init__()
        self.heads, self.eager = heads, eager
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.eager:
            y = torch.softmax((q * self.scale) @ k.transpose(-2, -1), dim=-1) @ v
        else:
            y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, width))


class EncoderBlock(nn.Module):
    """Norm first. attention: ``mha`` is nn.MultiheadAttention as torchvision calls it."""

    def __init__(self, width: int, heads: int, hidden: int, attention: str) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention: nn.Module = (
            nn.MultiheadAttention(width, heads, batch_first=True)
            if attention == "mha"
            else FusedAttention(width, heads, eager=attention == "eager")
        )
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(0.0),
            nn.Linear(hidden, width),
            nn.Dropout(0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        if isinstance(self.self_attention, nn.MultiheadAttention):
            y, _ = self.self_attention(y, y, y, need_weights=False)
        else:
            y = self.self_attention(y)
        x = x + y
        return x + self.mlp(self.ln_2(x))


class VisionTransformer(nn.Module):
    """`image` float32 [batch, 3, 224, 224] to `logits` [batch, 1000]; ViT-B/16's sizes.

    Source: arXiv:2010.11929, in the layer order of torchvision's ``vit_b_16``.
    """

    def __init__(
        self,
        *,
        attention: str = "mha",
        width: int = 768,
        heads: int = 12,
        layers: int = 12,
        image: int = 224,
        patch: int = 16,
    ) -> None:
        super().__init__()
        self.width = width
        self.conv_proj = nn.Conv2d(3, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embedding = nn.Parameter(0.02 * torch.randn(1, (image // patch) ** 2 + 1, width))
        self.layers = nn.Sequential(
            *(EncoderBlock(width, heads, 4 * width, attention) for _ in range(layers))
        )
        self.ln = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 1000)

    def forward(self, image: Tensor) -> Tensor:
        batch = image.shape[0]
        x = self.conv_proj(image).reshape(batch, self.width, -1).permute(0, 2, 1)
        x = torch.cat([self.class_token.expand(batch, -1, -1), x], dim=1)
        x = self.ln(self.layers(x + self.pos_embedding))
        return self.head(x[:, 0])


# -- GPT-2 --------------------------------------------------------------------------------
class Conv1D(nn.Module):
    """Hugging Face's linear layer of GPT-2: the weight is [inputs, outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight)
        return y.view(*x.shape[:-1], self.bias.shape[0])


def gelu_new(x: Tensor) -> Tensor:
    """GELU by tanh, written out as in Hugging Face's ``NewGELUActivation``."""
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


class GptBlock(nn.Module):
    """GPT-2's block: norm first, causal attention, MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.ln_1 = nn.LayerNorm(width)
        self.c_attn = Conv1D(width, 3 * width)
        self.attn_proj = Conv1D(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = Conv1D(width, 4 * width)
        self.c_proj = Conv1D(4 * width, width)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, self.width // self.heads).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = map(self.split, self.c_attn(self.ln_1(x)).split(self.width, dim=2))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_proj(y.transpose(1, 2).reshape(x.shape))
        return x + self.c_proj(gelu_new(self.c_fc(self.ln_2(x))))


class Gpt2(nn.Module):
    """`input_ids` int64 [batch, tokens] to `logits` [batch, tokens, 50257]; GPT-2 small's sizes.

    Source: Radford et al., 2019, in the layer order of Hugging Face's ``GPT2LMHeadModel``.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 50257,
        width: int = 768,
        heads: int = 12,
        layers: int = 12,
        longest: int = 1024,
    ) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(longest, width)
        self.h = nn.ModuleList(GptBlock(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        x = self.wte(input_ids) + self.wpe(positions)
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))
