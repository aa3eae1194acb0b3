"""A small network and engines of it, for tests of what comes after the network."""

from __future__ import annotations

import numpy as np

from workbench.builder import BuildState, run_stages, start
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.network import NetworkDefinition

RNG = np.random.default_rng(7)


def small_network() -> NetworkDefinition:
    """Conv, Relu, residual Add, pooling, Gemm: input ``image`` [batch, 3, 8, 8]."""
    weights = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return (weights.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    net = NetworkDefinition("small")
    x = net.add_input("image", "FP32", ("batch", 3, 8, 8))

    def conv(source, name, channels):
        w = net.constant(weight(16, channels, 3, 3), f"{name}.w")
        b = net.constant(weight(16), f"{name}.b")
        pads = {"pads": (1, 1, 1, 1)}
        return net.add_layer("Conv", [source, w, b], pads, name=name, origin=(name,)).outputs[0]

    def plain(op, name, *inputs):
        return net.add_layer(op, list(inputs), name=name, origin=(name,)).outputs[0]

    stem = plain("Relu", "stem_relu", conv(x, "stem", 3))
    inner = conv(stem, "inner", 16)
    joined = plain("Relu", "join_relu", plain("Add", "join", inner, stem))
    pooled = plain("GlobalAveragePool", "pool", joined)
    flat = plain("Flatten", "flat", pooled)
    w, b = net.constant(weight(16, 10), "head.w"), net.constant(weight(10), "head.b")
    head = net.add_layer("Gemm", [flat, w, b], name="head", origin=("head",)).outputs[0]
    net.rename_tensor(head, "logits")
    net.mark_output(head)
    net.model_nodes = tuple(n for layer in net.layers for n in layer.origin)
    return net


def one_thread(level: int = 1) -> BuilderConfig:
    """One thread and few samples."""
    made = BuilderConfig()
    made.builder_optimization_level = level
    made.num_threads = 1
    made.avg_timing_iterations = 2
    return made


def config(level: int = 0) -> BuilderConfig:
    """One thread, a batch of 1 to 8, and no timing unless asked for."""
    made = one_thread(level)
    shape = (3, 8, 8)
    made.add_optimization_profile(
        OptimizationProfile().set_shape("image", (1, *shape), (4, *shape), (8, *shape))
    )
    return made


def build(made: BuilderConfig | None = None, network=None, data=()) -> BuildState:
    """A finished build of the small network."""
    state = start(network or small_network(), made or config(), calibration_data=data)
    return run_stages(state)


def images(batch: int = 4) -> np.ndarray:
    return RNG.standard_normal((batch, 3, 8, 8)).astype(np.float32)
