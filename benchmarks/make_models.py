"""The models of the fusion counts, exported with random weights.

    PYTHONPATH=datasets:tests/exports python benchmarks/make_models.py FOLDER [--models NAME ...]

ViT-B/16 in three spellings of attention, GPT-2 small (Hugging Face's spelling, rotary with grouped
heads, rotary with a cache), BERT-base with its products written out, and ResNet-50 with batch norm
left in, by ``torch.onnx.export(dynamo=True)`` at its default clean-up. The other models are
``datasets/export_large.py``'s. Weights are seeded and meaningless: only graphs and their numerics
can be judged.

Needs: torch, onnxscript, onnx, onnxruntime, numpy; 8 GB of memory and 4 GB of disk.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import torch
from exported_modules import CachedDecoder, RotaryDecoder
from exporting import export_module, remove_machine_traces
from large_models import BertEncoder, ResNet50
from torch import Tensor, nn
from transformer_models import Gpt2, VisionTransformer

SEED = 2024
WORDS = 50257
GPT_SMALL = {"vocabulary": WORDS, "width": 768, "heads": 12, "layers": 12}
TOKENS = {0: "batch", 1: "tokens"}
CACHE = tuple(f"past_{kind}_{layer}" for layer in range(12) for kind in ("key", "value"))


@dataclass(frozen=True)
class Model:
    """How one network is made and fed. arguments: of ``forward``. axes: each input's free axes."""

    make: Callable[[], nn.Module]
    arguments: Callable[[int], tuple[Any, ...]]
    axes: Mapping[str, Mapping[int, str]]
    keep_batch_norm: bool = False


def images(batch: int) -> tuple[Tensor, ...]:
    """A batch of images."""
    return (torch.randn(batch, 3, 224, 224),)


def words(batch: int) -> tuple[Tensor, ...]:
    """A batch of word ids."""
    return (torch.randint(0, WORDS, (batch, 16)),)


def masked_words(batch: int) -> tuple[Tensor, ...]:
    """Word ids and their mask."""
    mask = (torch.arange(16) < torch.randint(4, 17, (batch, 1))).long()
    return (torch.randint(0, 30522, (batch, 16)), mask)


def words_and_cache(batch: int) -> tuple[Any, ...]:
    """New words, and the keys and values of those before."""
    return (*words(batch), [torch.randn(batch, 4, 20, 64) for _ in CACHE])


IMAGE: Mapping[str, Mapping[int, str]] = {"image": {0: "batch"}}
MODELS: dict[str, Model] = {
    "vit_mha": Model(lambda: VisionTransformer(attention="mha"), images, IMAGE),
    "vit_sdpa": Model(lambda: VisionTransformer(attention="sdpa"), images, IMAGE),
    "vit_eager": Model(lambda: VisionTransformer(attention="eager"), images, IMAGE),
    "gpt2": Model(Gpt2, words, {"input_ids": TOKENS}),
    "gpt2_rotary": Model(
        lambda: RotaryDecoder(**GPT_SMALL, key_heads=4), words, {"input_ids": TOKENS}
    ),
    "gpt2_cached": Model(
        lambda: CachedDecoder(**GPT_SMALL, key_heads=4),
        words_and_cache,
        {"input_ids": TOKENS, **{key: {0: "batch", 2: "past"} for key in CACHE}},
    ),
    "bert_eager": Model(
        lambda: BertEncoder(attention="eager"),
        masked_words,
        {"input_ids": TOKENS, "attention_mask": TOKENS},
    ),
    "resnet50_bn": Model(ResNet50, images, IMAGE, keep_batch_norm=True),
}


def initialize(module: nn.Module) -> None:
    """Random weights that keep activations near unit size; uneven batch-norm statistics.

    Nothing stays zero: an optimizer may leave out what adds nothing.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        elif isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.normal_(part.bias, std=0.02)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.2, 0.5)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
        if isinstance(part, nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.1)
    for parameter in module.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.02)


def flat(arguments: tuple[Any, ...]) -> list[Tensor]:
    """The tensors, nested ones, too."""
    return [t for a in arguments for t in (a if isinstance(a, list) else [a])]


def outputs_of(module: nn.Module, arguments: tuple[Any, ...]) -> list[Tensor]:
    """What PyTorch gives."""
    with torch.inference_mode():
        found = module(*arguments)
    return list(found) if isinstance(found, tuple) else [found]


def export_nested(name: str, model: Model, module: nn.Module, path: Path) -> None:
    """Export a module whose inputs are nested, or whose axes have names of each input."""
    arguments = model.arguments(2)
    free = torch.export.Dim.DYNAMIC
    axes = iter([dict.fromkeys(a, free) for a in model.axes.values()])
    shapes = tuple(
        [next(axes) for _ in a] if isinstance(a, list) else next(axes) for a in arguments
    )
    made = outputs_of(module, arguments)
    present = [key.replace("past", "present") for key in CACHE]
    program = torch.onnx.export(
        module,
        arguments,
        dynamo=True,
        input_names=list(model.axes),
        output_names=["logits", *present][: len(made)],
        dynamic_shapes=shapes,
        verbose=False,
    )
    assert program is not None, name
    proto = onnx_ir.serde.serialize_model(program.model)
    remove_machine_traces(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def make(name: str, folder: Path) -> None:
    """Export one model, compare it with PyTorch, and say what came out."""
    model = MODELS[name]
    torch.manual_seed(SEED)
    module = model.make().eval()
    initialize(module)
    path = folder / f"{name}.onnx"
    arguments = model.arguments(2)
    if any(isinstance(a, list) for a in arguments):
        export_nested(name, model, module, path)
    else:
        export_module(
            module,
            path,
            inputs=dict(zip(model.axes, flat(arguments), strict=True)),
            output="logits",
            dynamic=next(iter(model.axes.values())),
            keep_batch_norm=model.keep_batch_norm,
        )
    arguments = model.arguments(3)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = dict(zip(model.axes, (t.numpy() for t in flat(arguments)), strict=True))
    worst = max(
        float(np.abs(np.asarray(got) - want.numpy()).max() / np.abs(want.numpy()).max())
        for got, want in zip(session.run(None, feeds), outputs_of(module, arguments), strict=True)
    )
    nodes = len(onnx.load(path, load_external_data=False).graph.node)
    print(
        f"{name}: {path.stat().st_size / 1e6:.0f} MB, {nodes} nodes; ONNX Runtime differs from "
        f"PyTorch by {worst:.1e} of the largest output",
        flush=True,
    )


def main() -> None:
    """Makes the models named, or all."""
    parser = argparse.ArgumentParser(description="Exports models with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=tuple(MODELS))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    for name in options.models:
        make(name, options.folder)


if __name__ == "__main__":
    main()
