"""Whether auxiliary streams pay: an Inception-like network with 0 to 3 of them.

    python benchmarks/gpu/branches.py [BATCH ...] [--type fp16|fp32] [--level N]

One row a batch and number of streams: the GPU's time for a whole run (inputs and outputs on the
device, one CUDA graph, the candidates taking turns), arena bytes, and whether the outputs are those
of one stream to the bit. Needs cupy and onnx.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import workbench as wb
from workbench.builder import build
from workbench.config import BuilderConfig
from workbench.datatypes import DataType

TYPES = {"fp16": DataType.HALF, "fp32": DataType.FLOAT}
MODULES = (
    (192, 64, (96, 128), (16, 32), 32),
    (256, 128, (128, 192), (32, 96), 64),
    (480, 192, (96, 208), (16, 48), 64),
    (512, 160, (112, 224), (24, 64), 64),
)
"""Channels of GoogLeNet's modules 3a, 3b, 4a, 4b: input; 1x1; 3x3; 5x5; after pooling.

Source: Szegedy et al., "Going Deeper with Convolutions", 2014, table 1.
"""
ROUNDS, RUNS = 12, 10


class Net:
    """Nodes and weights, collected."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def conv(self, x: str, channels: tuple[int, int], size: int, name: str) -> str:
        """A convolution that keeps the image's size, bias and ReLU."""
        given, made = channels
        shape = (made, given, size, size)
        scale = np.float32(1 / np.sqrt(given * size * size))
        w = self.rng.standard_normal(shape, np.float32) * scale
        b = self.rng.standard_normal(made, np.float32) * np.float32(0.1)
        self.weights += [numpy_helper.from_array(w, f"{name}_w")]
        self.weights += [numpy_helper.from_array(b, f"{name}_b")]
        operands = [x, f"{name}_w", f"{name}_b"]
        self.nodes.append(
            helper.make_node("Conv", operands, [f"{name}_c"], pads=[size // 2] * 4, name=name)
        )
        self.nodes.append(helper.make_node("Relu", [f"{name}_c"], [f"{name}_r"]))
        return f"{name}_r"

    def pool(self, x: str, stride: int, name: str) -> str:
        self.nodes.append(
            helper.make_node(
                "MaxPool", [x], [name], kernel_shape=[3, 3], strides=[stride] * 2, pads=[1] * 4
            )
        )
        return name


def model(batch: int) -> bytes:
    """The ONNX file's bytes."""
    net = Net(2026)
    x, size = net.conv("image", (3, 192), 3, "stem"), 28
    for k, (given, one, three, five, pooled) in enumerate(MODULES):
        if k == 2:
            x, size = net.pool(x, 2, "reduce"), 14
        branches = [
            net.conv(x, (given, one), 1, f"m{k}_1x1"),
            net.conv(net.conv(x, (given, three[0]), 1, f"m{k}_3x3a"), three, 3, f"m{k}_3x3b"),
            net.conv(net.conv(x, (given, five[0]), 1, f"m{k}_5x5a"), five, 5, f"m{k}_5x5b"),
            net.conv(net.pool(x, 1, f"m{k}_pool"), (given, pooled), 1, f"m{k}_pooled"),
        ]
        net.nodes.append(helper.make_node("Concat", branches, [f"m{k}"], axis=1))
        x = f"m{k}"
    channels = MODULES[-1][1] + MODULES[-1][2][1] + MODULES[-1][3][1] + MODULES[-1][4]
    shape = [batch, channels, size, size]
    graph = helper.make_graph(
        net.nodes,
        "branches",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 28, 28])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)],
        net.weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    made.ir_version = 10
    return made.SerializeToString()


def timed(contexts: dict[int, Any], device: Any, stream: Any) -> dict[int, list[float]]:
    """Microseconds of single runs, the candidates taking turns."""
    samples: dict[int, list[float]] = {n: [] for n in contexts}
    for _ in range(ROUNDS):
        for n, context in contexts.items():
            context.execute_async_v3(stream)
            launch = lambda c=context: c.execute_async_v3(stream)  # noqa: E731
            samples[n] += device.time_us(launch, RUNS, stream)
    return samples


def compare(batch: int, kind: str, level: int) -> None:
    """The rows of one batch."""
    import cupy

    data, cache, contexts, outputs = model(batch), None, {}, {}
    image = np.random.default_rng(0).standard_normal((batch, 3, 28, 28)).astype(np.float32)
    for streams in range(4):
        config = BuilderConfig()
        config.default_precision = TYPES[kind]
        config.builder_optimization_level = level
        config.max_aux_streams = streams
        config.timing_cache = cache
        state = build(data, config, device="gpu", name=f"branches{streams}")
        cache = state.cache
        engine = wb.Runtime(state.device).deserialize(state.plan_bytes)
        context = engine.create_execution_context()
        outputs[streams] = next(iter(context.run({"image": image}).values()))
        given = cupy.asarray(image)
        target = cupy.empty(outputs[streams].shape, cupy.float32)
        for t, place in zip(engine.io_tensors, (given, target), strict=True):
            context.set_tensor_address(t.name, place)
        contexts[streams] = context
    device = contexts[0].engine.device
    stream = device.stream()
    for context in contexts.values():
        context.execute_async_v3(stream)
        context.execute_async_v3(stream)
    device.synchronize(stream)
    for n, samples in timed(contexts, device, stream).items():
        plan = contexts[n].engine.plan
        same = outputs[n].tobytes() == outputs[0].tobytes()
        print(
            f"batch {batch:3} {kind} aux {n} (used {plan.num_aux_streams}): "
            f"median {statistics.median(samples):7.1f} us, min {min(samples):7.1f}, "
            f"{len(plan.steps)} steps, arena {plan.profiles[0].arena_bytes >> 10} KiB, "
            f"{'same bits' if same else 'DIFFERENT BITS'}",
            flush=True,
        )


def main() -> None:
    """Every batch asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("batches", nargs="*", type=int, default=[1, 32])
    parser.add_argument("--type", choices=TYPES, default="fp16")
    parser.add_argument("--level", type=int, default=2)
    options = parser.parse_args()
    for batch in options.batches:
        compare(batch, options.type, options.level)


if __name__ == "__main__":
    main()
