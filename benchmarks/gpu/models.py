"""The models of the GPU comparison: made on the machine from a seed, random weights and inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "datasets"), str(ROOT / "benchmarks")]

from large_models import BertEncoder, MobileNetV2, ResNet50, initialize  # noqa: E402
from transformer_models import VisionTransformer  # noqa: E402

SEED = 2026
WORDS, TOKENS = 30522, 128


@dataclass(frozen=True)
class Model:
    """How a network is made and fed. convolutional: its peers run with channels last."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int], dict[str, Tensor]]
    output: str
    convolutional: bool


def images(batch: int) -> dict[str, Tensor]:
    """``image`` [batch, 3, 224, 224], standard normal."""
    return {"image": torch.randn(batch, 3, 224, 224)}


def sentences(batch: int) -> dict[str, Tensor]:
    """``input_ids`` and an ``attention_mask`` of ones, [batch, 128]."""
    ids = torch.randint(1, WORDS, (batch, TOKENS))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


MODELS = {
    "resnet50": Model(ResNet50, images, "logits", True),
    "mobilenetv2": Model(MobileNetV2, images, "logits", True),
    "bert": Model(lambda: BertEncoder(attention="sdpa"), sentences, "last_hidden_state", False),
    "vit": Model(lambda: VisionTransformer(attention="sdpa"), images, "logits", False),
}


def make(name: str, batch: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """The float32 module in inference mode, and its inputs, on the CPU."""
    torch.manual_seed(SEED)
    model = MODELS[name]
    module = model.make()
    initialize(module, model.inputs(4))
    return module, model.inputs(batch)


def export(module: nn.Module, inputs: dict[str, Tensor], output: str, path: Path) -> None:
    """Write the module as ONNX at these sizes, in its own types."""
    torch._dynamo.reset()  # a module exported before at other sizes is not made dynamic
    program = torch.onnx.export(
        module,
        tuple(inputs.values()),
        dynamo=True,
        input_names=list(inputs),
        output_names=[output],
        verbose=False,
    )
    assert program is not None
    program.save(path)
