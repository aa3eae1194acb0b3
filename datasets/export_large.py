"""Fresh exports of ResNet-50, SqueezeNet 1.1, MobileNetV2 and a BERT encoder.

    python datasets/export_large.py FOLDER [--models bert squeezenet] [--bert-layers 12]

Writes FOLDER/<name>.onnx and FOLDER/<name>.npz for each. The .npz holds a few inputs under
the model's own input names, one sample a row; they are *random* (images of noise, uniform
token ids), and so are the weights: seeded, scaled so that activations keep a size near 1,
good for comparing numerics and timing, meaningless for accuracy. The networks are exported
as torch.onnx.export makes them by default: batch norm is already folded there.

Needs: torch, onnxscript, onnx, onnxruntime, numpy; 4 GB of memory and 600 MB of disk.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from exporting import export_module, largest_difference
from large_models import BertEncoder, MobileNetV2, ResNet50, SqueezeNet, initialize
from torch import Tensor, nn
from torch.nn import functional

SEED = 2002
SAMPLES = 8
TOKENS = 64
VOCABULARY = 30522


@dataclass(frozen=True)
class LargeModel:
    """How one network is made, fed and exported; `dynamic` names the free axes of its inputs."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int, torch.Generator], dict[str, Tensor]]
    output: str
    dynamic: Mapping[int, str]


def noise_images(samples: int, generator: torch.Generator) -> dict[str, Tensor]:
    """`image` float32 [samples, 3, 224, 224]: a sum of noises of four grains, about unit size.

    White noise alone would do worse: a deep network averages it away, and all samples then
    give nearly the same output.
    """
    image = torch.zeros(samples, 3, 224, 224)
    for grains in (4, 14, 56, 224):
        noise = torch.randn(samples, 3, grains, grains, generator=generator)
        image += 0.5 * functional.interpolate(noise, size=(224, 224), mode="nearest")
    return {"image": image}


def noise_tokens(samples: int, generator: torch.Generator) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` int64 [samples, 64]: random words, padded at the end."""
    ids = torch.randint(1, VOCABULARY, (samples, TOKENS), generator=generator)
    lengths = torch.randint(TOKENS // 4, TOKENS + 1, (samples, 1), generator=generator)
    mask = (torch.arange(TOKENS) < lengths).to(torch.int64)
    return {"input_ids": ids * mask, "attention_mask": mask}


def image_model(make: Callable[[], nn.Module]) -> LargeModel:
    """A classifier of 224x224 images with a free batch size."""
    return LargeModel(make=make, inputs=noise_images, output="logits", dynamic={0: "batch"})


def bert_model(layers: int, attention: str) -> LargeModel:
    """A BERT encoder of BERT-base's width with free batch size and length."""
    return LargeModel(
        make=lambda: BertEncoder(layers=layers, vocabulary=VOCABULARY, attention=attention),
        inputs=noise_tokens,
        output="last_hidden_state",
        dynamic={0: "batch", 1: "tokens"},
    )


def export_one(name: str, model: LargeModel, folder: Path) -> None:
    """Makes, initialises, exports and checks one network, and prints what came out."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    module = model.make()
    initialize(module, model.inputs(SAMPLES, generator))
    samples = model.inputs(SAMPLES, generator)
    onnx_path = folder / f"{name}.onnx"
    export_module(
        module,
        onnx_path,
        inputs={key: value[:2] for key, value in samples.items()},
        output=model.output,
        dynamic=model.dynamic,
    )
    np.savez(
        folder / f"{name}.npz",
        allow_pickle=False,
        **{key: value.numpy() for key, value in samples.items()},
    )
    batches = [{key: value[:size] for key, value in samples.items()} for size in (1, 3)]
    difference = largest_difference(module, onnx_path, batches)
    with torch.inference_mode():
        spread = module(*batches[1].values()).std().item()
    megabytes = onnx_path.stat().st_size / 1e6
    print(
        f"{name}: {megabytes:.1f} MB, output std {spread:.3g}, "
        f"ONNX Runtime differs from PyTorch by {difference:.1e} of the largest output",
        flush=True,
    )


def main() -> None:
    """Reads the command line and exports the chosen networks."""
    parser = argparse.ArgumentParser(description="Exports large networks with random weights.")
    parser.add_argument("folder", type=Path)
    names = ("resnet50", "squeezenet", "mobilenetv2", "bert")
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--bert-layers", type=int, default=12)
    parser.add_argument("--bert-attention", choices=("sdpa", "eager"), default="sdpa")
    arguments = parser.parse_args()
    models = {
        "resnet50": image_model(ResNet50),
        "squeezenet": image_model(SqueezeNet),
        "mobilenetv2": image_model(MobileNetV2),
        "bert": bert_model(arguments.bert_layers, arguments.bert_attention),
    }
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.models:
        export_one(name, models[name], arguments.folder)


if __name__ == "__main__":
    main()
