"""PrecisionTrials: a model and its data, to be built and judged in any mixture of precisions.

The model is parsed and folded once, calibrated once, and its float reference runs once over the
samples. Every trial after that is a real build of the remaining stages, and a run of its engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import __version__, precision
from workbench.body import Array
from workbench.builder import Batch, BuildState, run_stages, start
from workbench.builder.ranges import with_calibration
from workbench.builder.taps import Taps
from workbench.calibration import CalibrationResult, data_digest, load_data
from workbench.config import BuilderConfig
from workbench.datatypes import CALIBRATED, DataType
from workbench.devices import Device
from workbench.errors import ConfigError
from workbench.lab.quality import Quality, QualityMeter
from workbench.lab.trial_record import Trial, TrialRecord, told_by
from workbench.network import NetworkDefinition
from workbench.precision import PrecisionDecision
from workbench.records import Progress, Stage
from workbench.runtime import Engine
from workbench.runtime.taps import tensor_names

Task = Callable[[Mapping[str, Array], Batch], Array]
"""(outputs, inputs) of a batch -> a score per sample; more is better."""

TAPPED_BYTES = 256 << 20
"""Bytes of inner reference values kept; it decides how many samples inner tensors are compared on.
"""
EARLIER = ("optimization_profiles", "max_loop_steps")
"""Settings that stages before Precision read: the same in every trial."""


class PrecisionTrials:
    """Builds and judges a model in mixtures of precisions.

    calibration: what ``load_data`` takes; needed for INT8. samples: on which outputs are compared,
    in the same forms; by default the calibration data. labels: class numbers of the samples. task:
    a score of your own. record: a JSON file that keeps every trial, so that a search that was
    cancelled goes on from there. evaluations: engines built and run since this object was made.
    """

    def __init__(
        self,
        model: Any,
        config: BuilderConfig | None = None,
        *,
        device: str | Device = "cpu",
        calibration: Any = None,
        samples: Any = None,
        labels: Array | None = None,
        task: Task | None = None,
        record: str | Path | None = None,
        name: str = "",
    ) -> None:
        self.config = (config or BuilderConfig()).clone()
        self._base = run_stages(
            start(model, self.config, device=device, name=name), until=Stage.PARSE
        )
        if calibration is not None:
            data = load_data(calibration, self._base.network)
            self._base = with_calibration(self._base, data.batches)
        self._base = run_stages(self._base, until=Stage.PROFILES)
        given = samples if samples is not None else self._base.calibration_data
        if not given:
            raise ConfigError(
                "there are no samples to compare on",
                place=self._base.name,
                remedy="give samples=..., or calibration=...",
            )
        loaded = load_data(given, self._base.network).batches
        self.batches: tuple[Batch, ...] = tuple(_fitting(loaded, self.config))
        self.labels, self.task = labels, task
        self._check_labels()
        self._ranges: dict[Any, CalibrationResult] = {}
        self._reference: tuple[dict[str, Array], ...] = ()
        self._inner: list[dict[str, Array]] = []
        self.evaluations = 0
        self.record = TrialRecord(record, self._identity())

    # -- what there is ----------------------------------------------------------------------
    @property
    def network(self) -> NetworkDefinition:
        """The folded float network, whose layers are judged."""
        return self._base.network

    @property
    def name(self) -> str:
        return self._base.name

    @property
    def device(self) -> Device:
        return self._base.device

    @property
    def cache(self) -> Any:
        """The TimingCache that all trials share."""
        return self._base.cache

    def layers(self, kind: DataType) -> tuple[PrecisionDecision, ...]:
        """The layers that a precision can be given to, in the network's order.

        What the config asks of a node by name stays; so do layers with a blocker.
        """
        config = self.config.clone()
        config.default_precision = kind
        found = precision.resolve(self.network, config)
        return tuple(d for d in found if d.precision is kind and d.origin)

    def lowered(
        self,
        kind: DataType,
        *,
        only: Sequence[PrecisionDecision] | None = None,
        but: Sequence[PrecisionDecision] = (),
        to: DataType = DataType.FLOAT,
        base: BuilderConfig | None = None,
        timed: bool = False,
    ) -> BuilderConfig:
        """A config with every layer in ``kind``, or ``only`` these; ``but`` those in ``to``."""
        config = (base or self.config).clone()
        config.default_precision = kind if only is None else DataType.FLOAT
        if not timed:
            config.builder_optimization_level = 0
        asked = [(n, kind) for d in only or () for n in d.origin]
        asked += [(n, to) for d in but for n in d.origin]
        config.precisions = (*config.precisions, *asked)
        return config

    def each(self, phase: str, count: int | None = None) -> Iterator[Batch]:
        """Every batch, or the first ``count``, for a run over them that is called ``phase``.

        The monitor of the trials' config hears of each, and may cancel with BuildCancelled.
        """
        batches = self.batches[:count]
        with Progress(self.config.progress_monitor, phase, len(batches)) as progress:
            for batch in batches:
                yield batch
                progress.step()

    # -- measuring ----------------------------------------------------------------------------
    def measure(
        self,
        config: BuilderConfig,
        kind: DataType = DataType.INT8,
        *,
        tap: str = "",
        built: BuildState | None = None,
    ) -> Trial:
        """Build and judge a configuration; one in the record is not built again.

        kind: the precision that coverage counts. tap: a layer whose own value is compared, too.
        built: the configuration's build, where there is one already.
        Raises a WorkbenchError where a build does.
        """
        key = json.dumps({**config.to_json(), "counted": kind.value, "tap": tap}, sort_keys=True)
        known = self.record.get(key)
        if known is not None:
            return Trial.from_json(known)
        state = built or self.build(config)
        trial = self._judged(state, config, kind, tap)
        self.record.put(key, trial.to_json())
        return trial

    def build(self, config: BuilderConfig, *, until: Stage = Stage.SERIALIZE) -> BuildState:
        """The stages from Precision on, with the ranges that are known."""
        for name in EARLIER:
            if getattr(config, name) != getattr(self._base.config, name):
                raise ConfigError(
                    f"{name} differs from that of these trials",
                    place=self.name,
                    remedy="make PrecisionTrials with this config",
                )
        state = replace(self._base, config=config.frozen())
        needs = any(d.precision in CALIBRATED for d in precision.resolve(self.network, config))
        if needs or config.smooth_alpha is not None:
            state = replace(state, calibration=self.calibration(config))
        return run_stages(state, until=until)

    def quality_of_network(self, network: NetworkDefinition) -> Quality:
        """Another network of the same inputs and outputs, built in float, beside the reference."""
        engine = self._float_engine(network, self.lowered(DataType.FLOAT), self.name)
        run = engine.create_execution_context().run
        return self._quality(run(b) for b in self.batches)

    def calibration(self, config: BuilderConfig | None = None) -> CalibrationResult:
        """Ranges under a config; the data runs once for each channel scaling."""
        config = config or self.config
        key = (config.equalize_channels, config.smooth_alpha)
        if key not in self._ranges:
            asked = config.clone()
            asked.default_precision, asked.precisions = DataType.FLOAT, ()
            state = replace(self._base, config=asked.frozen())
            found = run_stages(state, until=Stage.CALIBRATE).calibration
            if found is None:
                raise ConfigError(
                    "INT8 needs calibration data", place=self.name, remedy="give calibration=..."
                )
            self._ranges[key] = found
        found = self._ranges[key]
        return found.with_calibrator(config.calibrator, percentile=config.percentile)

    @property
    def reference(self) -> tuple[dict[str, Array], ...]:
        """The float model's outputs, batch by batch; run once."""
        self._run_reference()
        return self._reference

    @property
    def reference_quality(self) -> Quality:
        """The float model beside itself: its own accuracy and task score."""
        return self._quality(self.reference)

    def watched(self, state: BuildState) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        """Per batch, (reference, built) values of each layer's first output, by layer.

        Read by taps: the plan is as it was. Layers whose value no longer exists are left out.
        """
        self._run_reference()
        engine = state.engine()
        names = self._taps(state, engine)
        context = engine.create_execution_context()
        batches = self.each("Taps", len(self._inner))
        for batch, inner in zip(batches, self._inner, strict=True):
            run = context.tap(batch, tuple(names.values()))
            wanted = {x: t for x, t in names.items() if x in inner}
            values = {x: np.asarray(run[t]).astype(np.float32) for x, t in wanted.items()}
            yield {x: inner[x] for x in values}, values

    @property
    def inner_reference(self) -> tuple[dict[str, Array], ...]:
        """The float values of each layer's first output, by layer, for the batches kept."""
        self._run_reference()
        return tuple(self._inner)

    # -- inner ------------------------------------------------------------------------------
    def _judged(self, state: BuildState, config: BuilderConfig, kind: DataType, tap: str) -> Trial:
        self.evaluations += 1
        engine = state.engine()
        context = engine.create_execution_context()
        name = self._taps(state, engine).get(tap, "")
        meter = QualityMeter()

        def outputs() -> Iterator[Any]:
            for index, batch in enumerate(self.each("Samples")):
                if not name or index >= len(self._inner):
                    yield context.run(batch)
                    continue
                run = context.tap(batch, (name,))
                meter.add({"y": self._inner[index][tap]}, {"y": np.asarray(run[name])})
                yield run.outputs

        self._run_reference()
        quality = self._quality(outputs())
        assert state.tuned is not None
        timed = config.builder_optimization_level > 0
        products, own, emulated = _products(state, kind)
        return Trial(
            MappingProxyType(config.to_json()),
            kind,
            quality,
            state.tuned.total_us if timed else None,
            own,
            products,
            emulated,
            state.sha256,
            meter.result() if name else None,
        )

    def _quality(self, outputs: Iterator[Any] | Sequence[Any]) -> Quality:
        meter, at = QualityMeter(), 0
        for batch, exact, found in zip(self.batches, self.reference, outputs, strict=True):
            size = next(iter(batch.values())).shape[0]
            labels = None if self.labels is None else self.labels[at : at + size]
            task = None if self.task is None else np.asarray(self.task(found, batch), np.float64)
            meter.add(exact, found, labels=labels, task=task)
            at += size
        return meter.result()

    def _run_reference(self) -> None:
        """Outputs of every batch; inner values of as many as fit."""
        if self._reference:
            return
        network = self.network
        outputs = tuple(t.name for t in network.outputs)
        inner = {
            x.name: x.outputs[0].name
            for x in network.layers
            if x.outputs and x.outputs[0].dtype is DataType.FLOAT
        }
        taps = Taps(self._base, network, self._float_engine)
        kept: list[dict[str, Array]] = []
        seen: list[dict[str, Array]] = []
        used = 0
        for batch in self.each("Reference"):
            fits = used < TAPPED_BYTES
            wanted = tuple(dict.fromkeys((*outputs, *inner.values()))) if fits else outputs
            values = taps.run(batch, wanted)
            kept.append({n: values[n] for n in outputs})
            if fits:
                seen.append({x: values[t] for x, t in inner.items()})
                used += sum(a.nbytes for a in seen[-1].values())
        self._reference, self._inner = tuple(kept), seen

    def _float_engine(self, network: NetworkDefinition, config: BuilderConfig, name: str) -> Engine:
        return run_stages(start(network, config, device=self.device, name=name)).engine()

    def _taps(self, state: BuildState, engine: Engine) -> dict[str, str]:
        """The tensor to tap by layer of the folded network, where it can be tapped."""
        known = set(tensor_names(engine))
        written = state.networks[Stage.CALIBRATE]
        found: dict[str, str] = {}
        for layer in self.network.layers:
            if written.has_layer(layer.name) and layer.outputs:
                name = written.layer(layer.name).outputs[0].name
                if name in known:
                    found[layer.name] = name
        return found

    def _check_labels(self) -> None:
        count = sum(next(iter(b.values())).shape[0] for b in self.batches)
        if self.labels is not None and len(self.labels) != count:
            raise ConfigError(f"{len(self.labels)} labels for {count} samples", place=self.name)

    def _identity(self) -> dict[str, str]:
        """What the record of these trials belongs to."""
        labels = b"" if self.labels is None else np.ascontiguousarray(self.labels).tobytes()
        data = self._base.calibration_data
        return {
            "workbench": __version__,
            "model": network_digest(self.network),
            "calibration": data_digest(data) if data else "",
            "samples": data_digest(self.batches),
            "labels": hashlib.sha256(labels).hexdigest(),
            "task": told_by(self.task) if self.task is not None else "",
            "device": str(self.device.fingerprint),
        }


def _fitting(batches: Sequence[Batch], config: BuilderConfig) -> Iterator[Batch]:
    """The batches, cut where they are larger than the profile's largest."""
    shapes = config.optimization_profiles[0].shapes if config.optimization_profiles else {}
    most = min((s[2][0] for s in shapes.values() if s[2]), default=0)
    for batch in batches:
        size = next(iter(batch.values())).shape[0]
        if not most or size <= most:
            yield batch
            continue
        for at in range(0, size, most):
            yield {n: np.ascontiguousarray(a[at : at + most]) for n, a in batch.items()}


def network_digest(network: NetworkDefinition) -> str:
    """SHA-256 of a network's layers and weights."""
    digest = hashlib.sha256(str(network).encode())
    for tensor in network.tensors.values():
        if tensor.weight is not None:
            digest.update(tensor.name.encode())
            digest.update(np.ascontiguousarray(tensor.weight.array).tobytes())
    return digest.hexdigest()


def _products(state: BuildState, kind: DataType) -> tuple[int, int, int]:
    """Layers that multiply, how many run in ``kind``, and how many of those emulated."""
    assert state.tuned is not None
    ran = {n: c for c in state.tuned.layers for n in c.origin}
    found = [
        (d, ran[d.origin[0]])
        for d in state.decisions
        if d.quantizable and d.origin and d.origin[0] in ran
    ]
    own = [c for d, c in found if d.precision is kind and c.executed is d.arithmetic]
    weights_only = kind is DataType.INT4  # no device multiplies its numbers
    return len(found), len(own), sum(c.emulated or weights_only for c in own)
