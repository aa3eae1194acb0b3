"""A 30-layer network in which chosen layers, and no others, suffer from INT8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import workbench as wb
from workbench.lab import PrecisionTrials
from workbench.network import NetworkDefinition

LAYERS, WIDTH, LOUD = 30, 16, 4096.0


def planted(sensitive: Sequence[int]) -> NetworkDefinition:
    """A chain of products; one input channel of each sensitive layer is 4096 times too loud.

    The layer before makes it loud, the sensitive one's weights make up for it: the float function
    is that of the quiet network, but one INT8 scale for all channels leaves nothing of the rest.
    """
    random = np.random.default_rng(3)
    weights = [np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0] for _ in range(LAYERS)]
    for k in sensitive:
        weights[k - 1][:, 5] *= LOUD
        weights[k][5, :] /= LOUD
    network = NetworkDefinition("planted")
    x = network.add_input("x", "FP32", ("batch", WIDTH))
    for k, w in enumerate(weights):
        held = network.constant(w.astype(np.float32), f"w{k}")
        layer = network.add_layer("MatMul", [x, held], name=f"fc{k}", origin=(f"fc{k}",))
        x = layer.outputs[0]
        if k < LAYERS - 1:
            act = network.add_layer(
                "LeakyRelu", [x], {"alpha": 0.9}, name=f"act{k}", origin=(f"act{k}",)
            )
            x = act.outputs[0]
    network.rename_tensor(x, "y")
    network.mark_output(x)
    network.model_nodes = tuple(n for layer in network.layers for n in layer.origin)
    return network


def quick_config(level: int = 0) -> wb.BuilderConfig:
    """One thread, no verification of rewrites, batches of 1 to 32."""
    made = wb.BuilderConfig()
    made.builder_optimization_level, made.verify, made.num_threads = level, "none", 1
    made.avg_timing_iterations = 2
    shapes = ((1, WIDTH), (32, WIDTH), (32, WIDTH))
    made.add_optimization_profile(wb.OptimizationProfile().set_shape("x", *shapes))
    return made


def planted_trials(sensitive: Sequence[int], level: int = 0, **options) -> PrecisionTrials:
    """Trials of the planted network on 32 samples."""
    data = np.random.default_rng(1).standard_normal((32, WIDTH)).astype(np.float32)
    return PrecisionTrials(
        planted(sensitive), quick_config(level), calibration={"x": data}, **options
    )
