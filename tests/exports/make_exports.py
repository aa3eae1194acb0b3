"""Makes the ONNX files of this folder with torch.onnx.export(dynamo=True), from random weights.

    PYTHONPATH=datasets python tests/exports/make_exports.py [NAME ...]

The files are as the exporter writes them at its default opset and clean-up, with dynamic axes;
only the notes about the exporting machine are taken out. Prints what each file holds and how far
ONNX Runtime is from PyTorch.

Needs: torch, onnxscript, onnx, onnxruntime, numpy.
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
from exported_modules import (
    Bert,
    Bottleneck,
    CachedDecoder,
    Gpt,
    ResNet,
    RmsNorm,
    RotaryDecoder,
    VisionTransformer,
)
from exporting import remove_machine_traces
from torch import Tensor, nn

FOLDER = Path(__file__).parent
SEED = 2013
Axes = Mapping[int, str]


@dataclass(frozen=True)
class Export:
    """How one file is made. arguments: of ``forward``, at a batch and a length.

    axes: of each input, the names of its free axes; the exporter names them where ``named`` is
    False, and then does not know which of them are equal.
    """

    make: Callable[[], nn.Module]
    arguments: Callable[[int, int], tuple[Any, ...]]
    axes: Mapping[str, Axes]
    outputs: tuple[str, ...]
    named: bool = True


def images(batch: int, patches: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, 4 * patches, 4 * patches),)


def words(batch: int, tokens: int) -> tuple[Tensor, ...]:
    return (torch.randint(0, 200, (batch, tokens)),)


def padded_words(batch: int, tokens: int) -> tuple[Tensor, ...]:
    lengths = torch.randint(1, tokens + 1, (batch, 1))
    mask = (torch.arange(tokens) < lengths).long()
    segments = (torch.arange(tokens) >= lengths // 2).long() * mask
    return (*words(batch, tokens), mask, segments)


def words_and_cache(batch: int, tokens: int) -> tuple[Any, ...]:
    past = [torch.randn(batch, 2, tokens + 3, 12) for _ in range(4)]
    return (*words(batch, tokens), past)


TOKENS = {0: "batch", 1: "tokens"}
CACHE = ("past_key_0", "past_value_0", "past_key_1", "past_value_1")
EXPORTS: dict[str, Export] = {
    "resnet": Export(ResNet, images, {"image": {0: "batch", 2: "height", 3: "width"}}, ("logits",)),
    "vit": Export(
        VisionTransformer, lambda b, _: images(b, 6), {"image": {0: "batch"}}, ("logits",)
    ),
    "vit_any_size": Export(
        lambda: VisionTransformer(any_size=True),
        images,
        {"image": {0: "batch", 2: "height", 3: "width"}},
        ("logits",),
    ),
    "bert": Export(
        Bert,
        padded_words,
        {"input_ids": TOKENS, "attention_mask": TOKENS, "token_type_ids": TOKENS},
        ("last_hidden_state", "pooler_output"),
    ),
    "gpt": Export(Gpt, words, {"input_ids": TOKENS}, ("logits",)),
    "gpt_rotary": Export(RotaryDecoder, words, {"input_ids": TOKENS}, ("logits",)),
    "gpt_cached": Export(
        CachedDecoder,
        words_and_cache,
        {"input_ids": TOKENS, **{key: {0: "batch", 2: "past"} for key in CACHE}},
        ("logits", *(name.replace("past", "present") for name in CACHE)),
        named=False,
    ),
}


def initialize(module: nn.Module) -> None:
    """Random weights that keep activations near unit size; batch norm with uneven statistics."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.1)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.5)
        elif isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.1)
        elif isinstance(part, RmsNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    for part in module.modules():
        if isinstance(part, Bottleneck):
            nn.init.uniform_(part.bn3.weight, 0.2, 0.5)


def flat(arguments: tuple[Any, ...]) -> list[Tensor]:
    return [t for a in arguments for t in (a if isinstance(a, list) else [a])]


def dynamic_shapes(export: Export, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The free axes, nested as the arguments are."""
    free = torch.export.Dim.DYNAMIC
    axes = iter([a if export.named else dict.fromkeys(a, free) for a in export.axes.values()])
    return tuple([next(axes) for _ in a] if isinstance(a, list) else next(axes) for a in arguments)


def make(name: str) -> None:
    """Export, check and write one file."""
    export = EXPORTS[name]
    torch.manual_seed(SEED)
    module = export.make().eval()
    initialize(module)
    arguments = export.arguments(2, 6)
    program = torch.onnx.export(
        module,
        arguments,
        dynamo=True,
        input_names=list(export.axes),
        output_names=list(export.outputs),
        dynamic_shapes=dynamic_shapes(export, arguments),
        verbose=False,
    )
    assert program is not None
    model = onnx_ir.serde.serialize_model(program.model)
    remove_machine_traces(model)
    onnx.checker.check_model(model, full_check=True)
    path = FOLDER / f"{name}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    worst = max(difference(module, path, export, b, n) for b, n in ((1, 6), (3, 5)))
    print(
        f"{name}: {path.stat().st_size / 1e3:.0f} kB, opset {model.opset_import[0].version}, "
        f"{len(model.graph.node)} nodes; inputs {[shown(i) for i in model.graph.input]}; "
        f"ONNX Runtime differs from PyTorch by {worst:.1e} of the largest output"
    )


def shown(value: onnx.ValueInfoProto) -> str:
    sizes = value.type.tensor_type.shape.dim
    return f"{value.name}[{', '.join(d.dim_param or str(d.dim_value) for d in sizes)}]"


def difference(module: nn.Module, path: Path, export: Export, batch: int, length: int) -> float:
    """Largest |ONNX Runtime - PyTorch| of any output, relative to its largest magnitude."""
    arguments = export.arguments(batch, length)
    with torch.inference_mode():
        expected = module(*arguments)
    expected = expected if isinstance(expected, tuple) else (expected,)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = dict(zip(export.axes, (t.numpy() for t in flat(arguments)), strict=True))
    actual = session.run(None, feeds)
    return max(
        float(np.abs(np.asarray(a) - e.numpy()).max() / np.abs(e.numpy()).max())
        for a, e in zip(actual, expected, strict=True)
    )


def main() -> None:
    """Makes the files named, or all."""
    parser = argparse.ArgumentParser(description="Exports small networks with random weights.")
    parser.add_argument("names", nargs="*", default=tuple(EXPORTS), metavar="NAME")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    for name in parser.parse_args().names:
        make(name)


if __name__ == "__main__":
    main()
