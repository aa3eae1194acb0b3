"""The models of the CPU comparison, and what they are fed.

The large ones are files that ``datasets/export_large.py`` and ``benchmarks/make_models.py`` make;
the digits models lie in ``datasets/``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
DATASETS = Path(__file__).parents[2] / "datasets"
CALIBRATION_SAMPLES = 4
DRAWS, DRAWS_OF_ONE_DIGIT = 8, 64
"""Inputs that errors are measured on: the error on one is chance, and of one digit, ten numbers, on
eight, too (BF16's ratio to OpenVINO's was 0.4 to 1.2 of 0.78 in 95% of random eights).
"""
SEED = 7
TOKENS = 128
WORDS = 30522


@dataclass(frozen=True)
class Model:
    """One network at one batch. samples: so many inputs by name, of the draw of that number.

    draws: of inputs, over which its errors are pooled.
    file: the ONNX file, inside ``folder`` of the large models unless it is absolute.
    """

    name: str
    file: Path
    batch: int
    samples: Callable[[int, int], Arrays]
    large: bool = True
    draws: int = DRAWS

    def path(self, folder: Path) -> Path:
        """Where its ONNX file lies."""
        return folder / self.file

    def inputs(self, draw: int = 0) -> Arrays:
        """A batch: the first is timed. The same at each call."""
        return self.samples(self.batch, draw)

    def calibration(self) -> list[Arrays]:
        """Batches for INT8's ranges, none of them timed; of the batch that the model runs at."""
        given = self.samples(self.batch * (1 + CALIBRATION_SAMPLES), 0)
        return [
            {n: a[k * self.batch : (k + 1) * self.batch] for n, a in given.items()}
            for k in range(1, 1 + CALIBRATION_SAMPLES)
        ]


def images(count: int, draw: int) -> Arrays:
    """Noise of four grains: white noise alone is averaged away by a deep network."""
    random = np.random.default_rng(SEED + draw)
    total = np.zeros((count, 3, 224, 224), np.float32)
    for grains in (4, 14, 56, 224):
        noise = random.standard_normal((count, 3, grains, grains), np.float32)
        total += 0.5 * noise.repeat(224 // grains, 2).repeat(224 // grains, 3)
    return {"image": total}


def words(count: int, draw: int) -> Arrays:
    """Sentences of word ids without padding."""
    ids = np.random.default_rng(SEED + draw).integers(0, WORDS, (count, TOKENS))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def digits(count: int, draw: int) -> Arrays:
    """Handwritten digits, each draw after the one before; more than there are repeat.

    A single digit skips those that calibrate.
    """
    apart = max(count, 1 + CALIBRATION_SAMPLES)
    found = np.load(DATASETS / "digits.npz")["test_images"]
    return {"image": found[(draw * apart + np.arange(count)) % len(found)]}


def _digits(name: str, batch: int) -> Model:
    draws = DRAWS_OF_ONE_DIGIT if batch == 1 else DRAWS
    file = DATASETS / f"{name}.onnx"
    return Model(f"{name}:{batch}", file, batch, digits, large=False, draws=draws)


MODELS = (
    Model("resnet50", Path("resnet50.onnx"), 1, images),
    Model("mobilenetv2", Path("mobilenetv2.onnx"), 1, images),
    Model("squeezenet", Path("squeezenet.onnx"), 1, images),
    Model("bert", Path("bert.onnx"), 1, words),
    Model("vit", Path("vit_sdpa.onnx"), 1, images),
    *(
        _digits(name, batch)
        for name in ("digits_cnn", "digits_inception", "digits_vit")
        for batch in (1, 64)
    ),
)


def numbered(arrays: Arrays, draw: int) -> Arrays:
    """Of one draw, by the names that they have in a file of all draws."""
    return {f"{name}.{draw}": a for name, a in arrays.items()}


def model_named(name: str) -> Model:
    """The model called so. KeyError where there is none."""
    return {m.name: m for m in MODELS}[name]
