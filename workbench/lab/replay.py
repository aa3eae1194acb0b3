"""Own noise: what lowering one layer alone does to its output, replayed by the reference.

The layer, with the Casts or Q/DQ that its precision wrote around it, is computed on the float
network's real values. No engine is built for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from workbench.body import Array
from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.lab.quality import Quality, QualityMeter
from workbench.lab.trials import PrecisionTrials
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.precision import PrecisionDecision
from workbench.records import Progress, ProgressMonitor, Stage

SAMPLES = 32
"""Samples at most on which a layer is replayed."""


def own_noise(
    trials: PrecisionTrials,
    kind: DataType,
    *,
    layers: Sequence[PrecisionDecision] | None = None,
    base: BuilderConfig | None = None,
    monitor: ProgressMonitor | None = None,
) -> dict[str, Quality]:
    """Each layer's output beside its float value when it alone is lowered, by layer.

    Layers whose output is no float tensor are left out.
    """
    wanted = trials.layers(kind) if layers is None else layers
    written = trials.build(trials.lowered(kind, base=base), until=Stage.CALIBRATE).network
    found: dict[str, Quality] = {}
    with Progress(monitor or ProgressMonitor(), "Own noise", len(wanted)) as progress:
        for decision in wanted:
            layer = trials.network.layer(decision.layer)
            if written.has_layer(layer.name) and layer.outputs:
                quality = _replayed(trials, layer, written)
                if quality is not None:
                    found[layer.name] = quality
            progress.step()
    return found


def _replayed(trials: PrecisionTrials, layer: Layer, written: NetworkDefinition) -> Quality | None:
    meter, samples = QualityMeter(), 0
    for batch, inner in zip(trials.batches, trials.inner_reference, strict=False):
        if layer.name not in inner:
            return None
        known = _values(trials.network, batch, inner)
        size = min(SAMPLES - samples, next(iter(batch.values())).shape[0])
        if size <= 0:
            break
        whole = _evaluate(written.layer(layer.name).outputs[0], known)
        meter.add({"y": inner[layer.name][:size]}, {"y": np.asarray(whole)[:size]})
        samples += size
    return meter.result()


def _values(
    network: NetworkDefinition, batch: Mapping[str, Array], inner: Mapping[str, Array]
) -> dict[str, Array]:
    """Float values by tensor name."""
    return {**batch, **{network.layer(x).outputs[0].name: v for x, v in inner.items()}}


def _evaluate(tensor: Tensor, known: Mapping[str, Array]) -> Array:
    """A tensor of the written network from the float values nearest before it.

    The layer that makes it is always computed, and so is what was inserted around it.
    """
    layer = tensor.producer
    assert layer is not None
    given: dict[str, Array] = {}
    for i, operand in zip(layer.body.inputs, layer.operands, strict=True):
        if operand.weight is not None:
            given[i.name] = operand.weight.array
        elif operand.name in known:
            given[i.name] = known[operand.name]
        else:
            given[i.name] = _evaluate(operand, known)
    values = layer.body.evaluate(given)
    return values[layer.body.outputs[layer.outputs.index(tensor)]]
