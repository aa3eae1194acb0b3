"""Clip editor: what one tensor's clip threshold does, answered while it is being dragged.

Scale, clipped share and SQNR come from the stored histogram. The end metric comes from a run: the
build's network with its Q/DQ and every activation's scale as an input, so that a changed threshold
is a changed number and nothing is built again. That engine computes products in FP32 on the
quantized values; the INT8 engine sums the same integers exactly, so both agree but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from workbench.body import Array
from workbench.builder import Batch, BuildState, run_stages, start
from workbench.calibration import CalibrationResult, OnePass
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.errors import CalibrationError
from workbench.network import NetworkDefinition, Tensor
from workbench.records import Stage
from workbench.runtime import ExecutionContext

SAMPLES = 256
"""Samples at most on which the end metric is taken."""


@dataclass(frozen=True)
class EndMetric:
    """The quantized network's outputs beside the float network's, on the same samples.

    cosine: mean over samples of the cosine between outputs. sqnr_db: of the outputs. agreement:
    share of samples, in percent, with the largest output at the same place; None where outputs are
    no scores. accuracy: percent right, where labels were given.
    """

    cosine: float
    sqnr_db: float
    agreement: float | None
    accuracy: float | None
    samples: int


@dataclass(frozen=True)
class Clipped:
    """One tensor clipped at a threshold, the other tensors as calibrated.

    scale: threshold / 127. clipped_share: of the calibration values, 0 to 1. sqnr_db: of this
    tensor. end: None where no INT8 layer reads the tensor, so that nothing behind it changes.
    """

    tensor: str
    threshold: float
    scale: float
    clipped_share: float
    sqnr_db: float
    end: EndMetric | None


class ClipEditor:
    """Thresholds of a calibrated build, tried without building it again.

    state: a build that has run Calibrate. inputs: samples by input name, else the first 256 of the
    calibration data. labels: class numbers of those samples, for accuracy. Raises CalibrationError
    where nothing was calibrated, or no samples are at hand.
    """

    def __init__(
        self,
        state: BuildState,
        *,
        inputs: Mapping[str, Array] | None = None,
        labels: Array | None = None,
    ) -> None:
        if state.calibration is None:
            raise CalibrationError(
                "nothing was calibrated", place=state.name, remedy="run Calibrate with data first"
            )
        self.result: CalibrationResult = state.calibration
        self._state = state
        self._batches = (dict(inputs),) if inputs is not None else tuple(_samples(state))
        if not self._batches:
            raise CalibrationError(
                "no calibration samples are at hand: they were read once, or come from a cache",
                place=state.name,
                remedy="ClipEditor(state, inputs={...})",
            )
        self._labels = labels
        self._context: ExecutionContext | None = None
        self._reference: list[dict[str, Array]] = []
        self._scales: dict[str, tuple[str, float]] = {}

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors whose threshold changes the outputs: those that INT8 layers read."""
        self._prepare()
        return tuple(self._scales)

    def at(self, tensor: str, threshold: float) -> Clipped:
        """What clipping a tensor at this magnitude does. Raises CalibrationError."""
        if tensor not in self.result.ranges:
            raise CalibrationError(
                "it was not calibrated",
                place=f"tensor '{tensor}'",
                remedy=f"calibrated are: {', '.join(self.result.ranges)}",
            )
        found = self.result.ranges[tensor].clipped_at(threshold)
        self._prepare()
        end = self.end_metric({tensor: threshold}) if tensor in self._scales else None
        return Clipped(
            tensor, found.threshold, found.scale, found.clipped_share, found.sqnr_db, end
        )

    def end_metric(self, thresholds: Mapping[str, float]) -> EndMetric:
        """The outputs with these thresholds, the other tensors as calibrated."""
        self._prepare()
        assert self._context is not None
        scales: dict[str, Array] = {}
        for tensor, (name, largest) in self._scales.items():
            threshold = thresholds.get(tensor, self.result.ranges[tensor].threshold)
            scales[name] = np.array(threshold / largest, np.float32)
        outputs = [self._context.run({**b, **scales}) for b in self._batches]
        return _compared(self._reference, outputs, self._labels)

    # -- inner ----------------------------------------------------------------------------
    def _prepare(self) -> None:
        """Build the two engines, once: the float network, and the one that takes scales."""
        if self._context is not None:
            return
        state = self._state
        reference = self._build(state.networks[Stage.FOLD].clone(), "float").engine()
        context = reference.create_execution_context()
        self._reference = [context.run(b) for b in self._batches]
        network = state.networks[Stage.CALIBRATE].clone()
        _dequantize_weights(network)
        self._scales = _open_scales(network, tuple(self.result.ranges))
        engine = self._build(network, "clip editor").engine()
        self._context = engine.create_execution_context()

    def _build(self, network: NetworkDefinition, what: str) -> BuildState:
        config = BuilderConfig()
        config.builder_optimization_level, config.verify = 0, "none"
        config.num_threads = self._state.config.num_threads
        profile = OptimizationProfile()
        for t in network.inputs:
            shapes = [b[t.name].shape for b in self._batches if t.name in b]
            if shapes and t.shape:
                largest = max(shapes)
                smallest = (1, *largest[1:]) if not isinstance(t.shape[0], int) else largest
                profile.set_shape(t.name, smallest, largest, largest)
        config.optimization_profiles = (profile,)
        name = f"{self._state.name} ({what})"
        return run_stages(start(network, config, device=self._state.device, name=name))


def _samples(state: BuildState) -> Iterator[Batch]:
    """The calibration data's first samples, batch by batch."""
    if isinstance(state.calibration_data, OnePass):
        return
    count = 0
    for batch in state.calibration_data:
        size = next(iter(batch.values())).shape[0]
        if count and count + size > SAMPLES:
            return
        count += size
        yield batch


def _dequantize_weights(network: NetworkDefinition) -> None:
    """Replace every DequantizeLinear of constants by the FP32 values that it gives."""
    for layer in list(network.layers):
        if layer.op != "DequantizeLinear" or not all(t and t.is_constant for t in layer.inputs):
            continue
        given = {
            i.name: t.weight.array
            for i, t in zip(layer.body.inputs, layer.operands, strict=True)
            if t.weight is not None
        }
        value = layer.body.evaluate(given)[layer.body.outputs[0]]
        network.replace_uses(layer.outputs[0], network.constant(value, f"{layer.name}_fp32"))
        network.remove_layer(layer)
    network.remove_unused_constants()


def _open_scales(
    network: NetworkDefinition, tensors: tuple[str, ...]
) -> dict[str, tuple[str, float]]:
    """Make the scale of each calibrated tensor's Q and DQ an input.

    By tensor: the input's name, and the largest number of the type that the tensor is stored in.
    """
    opened: dict[str, tuple[str, float]] = {}
    for layer in list(network.layers):
        source = layer.inputs[0]
        if layer.op != "QuantizeLinear" or layer.cause is None or source is None:
            continue
        scale = layer.inputs[1]
        name = source.name
        if scale is None or scale.weight is None or name not in tensors or name in opened:
            continue
        new: Tensor = network.add_input(network.unique(f"{name}.scale.input"), scale.dtype, ())
        opened[name] = (new.name, layer.outputs[0].dtype.info.high)
        for user in list(scale.users):
            network.replace_input(user, 1, new)
    network.remove_unused_constants()
    return opened


def _compared(
    reference: list[dict[str, Array]], outputs: list[dict[str, Array]], labels: Array | None
) -> EndMetric:
    """Every FP32 output of every sample as one row."""
    first = [n for n, a in reference[0].items() if a.dtype.kind == "f"]
    exact, found = (
        np.concatenate([np.concatenate([_rows(b[n]) for n in first], axis=1) for b in batches])
        for batches in (reference, outputs)
    )
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
    cosine = np.where(norms > 0, (exact * found).sum(axis=1) / np.maximum(norms, 1e-300), 1.0)
    noise = float(((exact - found) ** 2).sum())
    signal = float((exact**2).sum())
    sqnr = 10 * float(np.log10(signal / noise)) if noise and signal else float("inf")
    scores = len(first) == 1 and reference[0][first[0]].ndim == 2 and exact.shape[1] > 1
    best = found.argmax(axis=1)
    agreement = 100.0 * float(np.mean(exact.argmax(axis=1) == best)) if scores else None
    accuracy = None
    if labels is not None and scores:
        accuracy = 100.0 * float(np.mean(best == np.asarray(labels)[: len(best)]))
    return EndMetric(float(cosine.mean()), sqnr, agreement, accuracy, len(exact))


def _rows(array: Array) -> Array:
    return array.astype(np.float64).reshape(array.shape[0] if array.ndim else 1, -1)
