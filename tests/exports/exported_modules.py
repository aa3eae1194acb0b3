"""The networks that ``make_exports.py`` exports: as people write them in PyTorch, only small.

Needs: torch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


# -- ResNet -------------------------------------------------------------------------------
class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 to four times the width; a projection where sizes change."""

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
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """`image` float32 [batch, 3, height, width] -> `logits` float32 [batch, classes]."""

    def __init__(self, *, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 2 * width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(2 * width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(
            Bottleneck(2 * width, width), Bottleneck(width * Bottleneck.EXPANSION, width)
        )
        self.layer2 = nn.Sequential(
            Bottleneck(width * Bottleneck.EXPANSION, 2 * width, stride=2),
            Bottleneck(2 * width * Bottleneck.EXPANSION, 2 * width),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(2 * width * Bottleneck.EXPANSION, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


# -- Transformers -------------------------------------------------------------------------
class Attention(nn.Module):
    """Self attention of ``heads`` heads by scaled_dot_product_attention, one projection for all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, width))


class VisionBlock(nn.Module):
    """Norm first: attention, then an MLP with GELU by erf, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """`image` float32 [batch, 3, height, width] -> `logits` float32 [batch, classes].

    The learned positions are those of ``grid`` x ``grid`` patches; ``any_size`` interpolates them
    to the image's own grid, as DINOv2 does, which makes height and width free.
    """

    def __init__(
        self,
        *,
        width: int = 48,
        heads: int = 3,
        blocks: int = 2,
        patch: int = 4,
        grid: int = 6,
        classes: int = 10,
        any_size: bool = False,
    ) -> None:
        super().__init__()
        self.patch, self.grid, self.any_size = patch, grid, any_size
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(0.5 * torch.randn(1, 1 + grid * grid, width))
        self.blocks = nn.Sequential(*(VisionBlock(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def positions(self, rows: int, columns: int) -> Tensor:
        """The positions of the class token and of ``rows`` x ``columns`` patches."""
        if not self.any_size:
            return self.pos_embed
        first, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        patches = patches.reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        patches = functional.interpolate(
            patches, size=(rows, columns), mode="bilinear", align_corners=False
        )
        return torch.cat((first, patches.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image)
        rows, columns = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = self.blocks(x + self.positions(rows, columns))
        return self.head(self.norm(x)[:, 0])


class BertLayer(nn.Module):
    """Post-norm encoder layer with separate query, key and value projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.intermediate = nn.Linear(width, 4 * width)
        self.dense = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def split(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        return x.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (self.split(part(x)) for part in (self.query, self.key, self.value))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        y = y.transpose(1, 2).reshape(x.shape)
        x = self.attention_norm(self.output(y) + x)
        return self.norm(self.dense(functional.gelu(self.intermediate(x))) + x)


class Bert(nn.Module):
    """Word ids, their mask (1: a word, 0: padding) and their segments, int64 [batch, tokens].

    Gives `last_hidden_state` float32 [batch, tokens, width] and `pooler_output` [batch, width].
    """

    def __init__(
        self,
        *,
        vocabulary: int = 200,
        width: int = 48,
        heads: int = 4,
        layers: int = 2,
        longest: int = 64,
    ) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(longest, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer(width, heads) for _ in range(layers))
        self.pooler = nn.Linear(width, width)
        self.register_buffer("position_ids", torch.arange(longest)[None], persistent=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        positions = self.position_embeddings(self.position_ids[:, : input_ids.shape[1]])
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids) + positions
        x = self.norm(x)
        # As Hugging Face does: 0 where a word is seen, the smallest float where it is not.
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


# -- Decoders -----------------------------------------------------------------------------
class GptBlock(nn.Module):
    """GPT-2's block: norm first, causal attention, MLP with GELU by tanh."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), causal=True)
        return x + self.mlp(self.ln_2(x))


class Gpt(nn.Module):
    """`input_ids` int64 [batch, tokens] -> `logits` float32 [batch, tokens, vocabulary].

    Learned positions; the last product shares the word embeddings' weight.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 200,
        width: int = 48,
        heads: int = 3,
        layers: int = 2,
        longest: int = 64,
    ) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(longest, width)
        self.h = nn.ModuleList(GptBlock(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.wte(input_ids) + self.wpe(positions)
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class RmsNorm(nn.Module):
    """Llama's norm, written out."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, halves rotated against each other (Su et al., 2104.09864)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class RotaryBlock(nn.Module):
    """Llama's block: RMS norm, rotary grouped-query attention, gated MLP with SiLU.

    ``key_heads`` key and value heads serve ``heads`` query heads. ``past``: the keys and values
    of the tokens before, [batch, key heads, past, head width] each; they come back extended.
    """

    def __init__(self, width: int, heads: int, key_heads: int) -> None:
        super().__init__()
        self.heads, self.key_heads, self.head_width = heads, key_heads, width // heads
        self.input_norm = RmsNorm(width)
        self.q_proj = nn.Linear(width, heads * self.head_width, bias=False)
        self.k_proj = nn.Linear(width, key_heads * self.head_width, bias=False)
        self.v_proj = nn.Linear(width, key_heads * self.head_width, bias=False)
        self.o_proj = nn.Linear(heads * self.head_width, width, bias=False)
        self.post_norm = RmsNorm(width)
        self.gate_proj = nn.Linear(width, 2 * width, bias=False)
        self.up_proj = nn.Linear(width, 2 * width, bias=False)
        self.down_proj = nn.Linear(2 * width, width, bias=False)

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.view(x.shape[0], x.shape[1], heads, self.head_width).transpose(1, 2)

    def repeated(self, x: Tensor) -> Tensor:
        """Each key head for the query heads that it serves."""
        batch, heads, tokens, width = x.shape
        repeats = self.heads // heads
        x = x[:, :, None].expand(batch, heads, repeats, tokens, width)
        return x.reshape(batch, heads * repeats, tokens, width)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        normed = self.input_norm(x)
        q = rotated(self.split(self.q_proj(normed), self.heads), cos, sin)
        k = rotated(self.split(self.k_proj(normed), self.key_heads), cos, sin)
        v = self.split(self.v_proj(normed), self.key_heads)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        y = functional.scaled_dot_product_attention(
            q, self.repeated(k), self.repeated(v), attn_mask=mask, is_causal=mask is None
        )
        x = x + self.o_proj(y.transpose(1, 2).reshape(x.shape))
        normed = self.post_norm(x)
        x = x + self.down_proj(functional.silu(self.gate_proj(normed)) * self.up_proj(normed))
        return x, (k, v)


class RotaryDecoder(nn.Module):
    """`input_ids` int64 [batch, tokens] -> `logits` float32 [batch, tokens, vocabulary]."""

    def __init__(
        self,
        *,
        vocabulary: int = 200,
        width: int = 48,
        heads: int = 4,
        key_heads: int = 2,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(RotaryBlock(width, heads, key_heads) for _ in range(layers))
        self.norm = RmsNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        half = torch.arange(0, width // heads, 2).float()
        self.register_buffer("inv_freq", 1.0 / 10000 ** (half * heads / width), persistent=False)

    def turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each position's angles, [1, 1, tokens, head width]."""
        angles = positions[:, None].float() * self.inv_freq
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos()[None, None], angles.sin()[None, None]

    def forward(self, input_ids: Tensor) -> Tensor:
        cos, sin = self.turns(torch.arange(input_ids.shape[1]))
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x, _ = layer(x, cos, sin, None, None)
        return self.lm_head(self.norm(x))


class CachedDecoder(RotaryDecoder):
    """One step of generation: new tokens, and the keys and values of those before.

    `input_ids` int64 [batch, tokens], then per layer `past_key` and `past_value`
    [batch, key heads, past, head width]. Gives `logits` and the extended keys and values.
    """

    def forward(self, input_ids: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        before, new = past[0].shape[2], input_ids.shape[1]
        positions = torch.arange(before, before + new)
        cos, sin = self.turns(positions)
        # A token sees the cache and the new tokens up to itself.
        mask = torch.arange(before + new)[None, :] <= positions[:, None]
        x, present = self.embed_tokens(input_ids), []
        for i, layer in enumerate(self.layers):
            x, (k, v) = layer(x, cos, sin, mask, (past[2 * i], past[2 * i + 1]))
            present += [k, v]
        return (self.lm_head(self.norm(x)), *present)
