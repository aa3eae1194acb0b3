"""Trains the three digit networks and exports them to ONNX.

    python datasets/train_digits.py [FOLDER] [--models cnn inception vit]

Writes FOLDER/digits_{cnn,inception,vit}.onnx from digits.npz beside this script and prints
each one's accuracy as ONNX Runtime sees it. One seed, one thread, a fixed number of epochs:
on one machine with one version of torch the files repeat byte for byte; elsewhere the
weights differ in rounding and then in more. Only the train split is trained on. The recipes
were checked on the calibration split; the test split was scored last and changed nothing.

Needs: torch, onnxscript, onnx, onnxruntime, numpy; about eight minutes of one CPU core.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from exporting import export_module, largest_difference, run_onnx
from models import DigitsCnn, DigitsInception, DigitsVit
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

SEED = 64
BATCH = 64
LABEL_SMOOTHING = 0.05
EMA_DECAY = 0.995


@dataclass(frozen=True)
class Recipe:
    """How one network is trained; `keep_batch_norm` is passed on to the export."""

    make: Callable[[], nn.Module]
    epochs: int
    learning_rate: float
    weight_decay: float
    keep_batch_norm: bool


RECIPES = {
    "cnn": Recipe(DigitsCnn, 80, 6e-3, 1e-2, keep_batch_norm=True),
    "inception": Recipe(DigitsInception, 50, 6e-3, 1e-2, keep_batch_norm=True),
    "vit": Recipe(DigitsVit, 250, 1.5e-3, 5e-2, keep_batch_norm=False),
}


def augment(images: Tensor) -> Tensor:
    """Each image turned, scaled, sheared and shifted a little, by bilinear sampling.

    Standard deviations: turn 6 degrees, scale and shear 8%, shift 0.4 pixels.
    """
    count = len(images)
    turn = torch.randn(count) * (6 * torch.pi / 180)
    scale = torch.exp(torch.randn(count, 2) * 0.08)
    shear = torch.randn(count) * 0.08
    # In affine_grid's coordinates the image spans [-1, 1]: one pixel of eight is 0.25.
    shift = torch.randn(count, 2) * 0.1
    rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(-1, 2, 2)
    stretch = torch.diag_embed(scale)
    stretch[:, 0, 1] = shear
    matrix = torch.cat([rotation @ stretch, shift[:, :, None]], dim=2)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train(recipe: Recipe, images: Tensor, labels: Tensor) -> nn.Module:
    """The network after `recipe.epochs`, its weights and statistics averaged along the way."""
    torch.manual_seed(SEED)
    module = recipe.make()
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    batches = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * batches, pct_start=0.15
    )
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images))
        for rows in order[: batches * BATCH].split(BATCH):
            module.train()
            logits = module(augment(images[rows]))
            loss = functional.cross_entropy(logits, labels[rows], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(module)
    return average.module.eval()


def accuracy(path: Path, images: Tensor, labels: Tensor) -> float:
    """Share of `images` that the exported model puts into the right class, in percent."""
    guesses = run_onnx(path, image=images.numpy()).argmax(axis=1)
    return float((guesses == labels.numpy()).mean() * 100)


def main() -> None:
    """Reads the command line, trains and exports."""
    folder = Path(__file__).parent
    parser = argparse.ArgumentParser(description="Trains and exports the digit networks.")
    parser.add_argument("folder", type=Path, nargs="?", default=folder)
    parser.add_argument("--models", nargs="+", choices=tuple(RECIPES), default=tuple(RECIPES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # The order of a parallel sum depends on the number of threads.
    torch.use_deterministic_algorithms(True)
    with np.load(folder / "digits.npz") as arrays:
        digits = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    for name in arguments.models:
        recipe = RECIPES[name]
        begin = time.monotonic()
        module = train(recipe, digits["train_images"], digits["train_labels"])
        seconds = time.monotonic() - begin
        path = arguments.folder / f"digits_{name}.onnx"
        export_module(
            module,
            path,
            inputs={"image": digits["train_images"][:2]},
            output="logits",
            dynamic={0: "batch"},
            keep_batch_norm=recipe.keep_batch_norm,
        )
        batches = [{"image": digits["test_images"][:size]} for size in (1, 7, 64)]
        difference = largest_difference(module, path, batches)
        print(f"digits_{name}: trained in {seconds:.0f} s, {path.stat().st_size:,} bytes")
        print(f"  ONNX Runtime differs from PyTorch by {difference:.1e} of the largest logit")
        for split in ("train", "calibration", "test"):
            score = accuracy(path, digits[f"{split}_images"], digits[f"{split}_labels"])
            print(f"  accuracy on {split}: {score:.2f}%", flush=True)


if __name__ == "__main__":
    main()
