"""Trains a small transformer for sentence embeddings and exports it to ONNX.

    python datasets/train_sentences.py [FOLDER] [--steps N]

Writes FOLDER/sentence_encoder.onnx from sentences.npz beside this script. The network is BERT's in
small (layer norm after each sum, an additive mask over padding, the mean over the words that are
there, scaled to length one). It learns that a sentence is nearer to the one that follows it in a
docstring than to others. One seed, one thread; on one machine with one version of torch the file
repeats byte for byte.

Needs: torch, onnxscript, onnx, onnxruntime, numpy; minutes of one CPU core.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from exporting import export_module, largest_difference, run_onnx
from torch import Tensor, nn
from torch.nn import functional

SEED = 7
BATCH = 64
WIDTH, HEADS, HIDDEN, BLOCKS = 96, 4, 384, 4
LEARNING_RATE = 2e-3
TEMPERATURE = 0.05


class Block(nn.Module):
    """Attention and a two-layer network, each added to its input and then normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.attention_norm, self.norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, words, _ = x.shape
        split = (batch, words, HEADS, WIDTH // HEADS)
        query, key, value = (f(x).view(split).transpose(1, 2) for f in self.projections)
        scores = query @ key.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5 + mask
        mixed = (torch.softmax(scores, -1) @ value).transpose(1, 2).reshape(x.shape)
        x = self.attention_norm(x + self.dropout(self.output(mixed)))
        return self.norm(x + self.dropout(self.down(functional.gelu(self.up(x)))))

    @property
    def projections(self) -> tuple[nn.Module, ...]:
        return self.query, self.key, self.value


class SentenceEncoder(nn.Module):
    """Token numbers and attention mask int64 [batch, 24] to an embedding of length one."""

    def __init__(self, words: int, length: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, WIDTH)
        self.positions = nn.Parameter(torch.randn(1, length, WIDTH) * 0.02)
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        there = attention_mask.to(torch.float32)
        # As BERT's exports have it: padding's scores become the lowest number there is.
        mask = (1.0 - there)[:, None, None, :] * torch.finfo(torch.float32).min
        x = self.norm(self.words(input_ids) + self.positions)
        for block in self.blocks:
            x = block(x, mask)
        there = there[:, :, None]
        mean = (x * there).sum(1) / there.sum(1)
        return functional.normalize(mean, dim=-1)


def train(first: Tensor, second: Tensor, words: int, steps: int) -> SentenceEncoder:
    """The encoder after ``steps``: each sentence is to find its follower among the batch's."""
    torch.manual_seed(SEED)
    module = SentenceEncoder(words, first.shape[1])
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    begin = time.monotonic()
    for step in range(steps):
        rows = torch.randint(len(first), (BATCH,))
        a, b = (module(x[rows], (x[rows] > 0).long()) for x in (first, second))
        scores = a @ b.T / TEMPERATURE
        same = (first[rows][:, None] == first[rows][None]).all(-1) & ~torch.eye(BATCH).bool()
        scores = scores.masked_fill(same, -1e4)
        target = torch.arange(BATCH)
        loss = functional.cross_entropy(scores, target) + functional.cross_entropy(scores.T, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(
                f"  step {step}: {loss.item() / 2:.3f}, {time.monotonic() - begin:.0f} s",
                flush=True,
            )
    return module.eval()


def main() -> None:
    """Reads the command line, trains and exports."""
    folder = Path(__file__).parent
    parser = argparse.ArgumentParser(description="Trains and exports the sentence encoder.")
    parser.add_argument("folder", type=Path, nargs="?", default=folder)
    parser.add_argument("--steps", type=int, default=800)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    with np.load(folder / "sentences.npz") as arrays:
        first, second, test = (
            torch.from_numpy(arrays[n].astype(np.int64))
            for n in ("first", "second", "test_input_ids")
        )
        words = len(arrays["words"])
    module = train(first, second, words, arguments.steps)
    path = arguments.folder / "sentence_encoder.onnx"
    batches = [{"input_ids": test[:n], "attention_mask": (test[:n] > 0).long()} for n in (1, 7, 64)]
    example = {k: v[:2] for k, v in batches[2].items()}
    export_module(module, path, inputs=example, output="sentence_embedding", dynamic={0: "batch"})
    difference = largest_difference(module, path, batches)
    print(f"{path.name}: {path.stat().st_size:,} bytes; ONNX Runtime differs by {difference:.1e}")
    rows = run_onnx(path, **{k: v.numpy() for k, v in batches[2].items()})
    print(f"mean cosine of all pairs, each with itself included: {(rows @ rows.T).mean():.3f}")


if __name__ == "__main__":
    main()
