"""Sensitivity: what each layer costs when it alone is lowered, and what it gives when kept.

Every row is two builds of the real engine: this layer lowered alone, and all lowered but this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.builder import BuildState
from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.lab.quality import Quality, QualityMeter
from workbench.lab.replay import own_noise
from workbench.lab.trials import PrecisionTrials, Trial
from workbench.precision import PrecisionDecision
from workbench.records import Progress, ProgressMonitor


@dataclass(frozen=True, eq=False)
class LayerSensitivity:
    """One layer in a lower precision.

    own: its output beside the float value, itself alone lowered. tapped: whether own was read from
    the engine by a tap; else the reference replayed the layer, as its value no longer exists in the
    plan. alone: the model's outputs, this layer alone lowered. others: the model's outputs, all
    lowered but this one; None where that was not asked for.
    """

    layer: str
    op: str
    nodes: tuple[str, ...]
    own: Quality | None
    tapped: bool
    alone: Quality
    others: Quality | None

    def to_json(self) -> dict[str, Any]:
        """The row as JSON."""
        return {
            **{"layer": self.layer, "op": self.op, "nodes": list(self.nodes)},
            "own": self.own.to_json() if self.own else None,
            "tapped": self.tapped,
            "alone": self.alone.to_json(),
            "others": self.others.to_json() if self.others else None,
        }


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Every layer's sensitivity to one precision, in the network's order.

    reference: the float model's own quality. lowered: all layers lowered, with its coverage.
    evaluations: engines built and run for it; those in the record are not built again.
    """

    precision: DataType
    reference: Quality
    lowered: Trial
    rows: tuple[LayerSensitivity, ...]
    evaluations: int

    def ranked(self, metric: str = "cosine") -> tuple[LayerSensitivity, ...]:
        """The most sensitive first: by what lowering it alone loses, then by its own noise."""
        return tuple(
            sorted(
                self.rows,
                key=lambda r: (
                    -r.alone.loss(metric, self.reference),
                    -(r.own.relative_l2 if r.own else 0.0),
                ),
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            "precision": self.precision.value,
            "reference": self.reference.to_json(),
            "lowered": self.lowered.to_json(),
            "rows": [r.to_json() for r in self.rows],
        }


def measure_sensitivity(
    trials: PrecisionTrials,
    kind: DataType = DataType.INT8,
    *,
    layers: Sequence[str] | None = None,
    others: bool = True,
    base: BuilderConfig | None = None,
    monitor: ProgressMonitor | None = None,
) -> Sensitivity:
    """Lower one layer at a time, and with ``others`` all but one at a time.

    layers: their names; by default every layer that ``kind`` can be given to. base: the config to
    lower from, where it is another than the trials'. A monitor may cancel with BuildCancelled;
    trials with a record go on from there.
    """
    before = trials.evaluations
    every = trials.layers(kind)
    wanted = [d for d in every if layers is None or d.layer in layers]
    noise = own_noise(trials, kind, layers=wanted, base=base, monitor=monitor)
    rows: list[LayerSensitivity] = []
    with Progress(monitor or ProgressMonitor(), "Sensitivity", len(wanted)) as progress:
        lowered = trials.measure(trials.lowered(kind, base=base), kind)
        for d in wanted:
            rows.append(_row(trials, kind, d, noise.get(d.layer), others=others, base=base))
            progress.step()
    return Sensitivity(
        kind, trials.reference_quality, lowered, tuple(rows), trials.evaluations - before
    )


def tapped_quality(trials: PrecisionTrials, built: BuildState) -> dict[str, Quality]:
    """Each layer's value in a build beside its float value, read by taps."""
    meters: dict[str, QualityMeter] = {}
    for exact, found in trials.watched(built):
        for layer, value in found.items():
            meter = meters.setdefault(layer, QualityMeter())
            meter.add({"y": exact[layer]}, {"y": value})
    return {x: m.result() for x, m in meters.items()}


def _row(
    trials: PrecisionTrials,
    kind: DataType,
    d: PrecisionDecision,
    replayed: Quality | None,
    *,
    others: bool,
    base: BuilderConfig | None,
) -> LayerSensitivity:
    alone = trials.measure(trials.lowered(kind, only=(d,), base=base), kind, tap=d.layer)
    rest = None
    if others:
        rest = trials.measure(trials.lowered(kind, but=(d,), base=base), kind).quality
    own = alone.inner if alone.inner is not None else replayed
    return LayerSensitivity(
        d.layer, d.op, d.origin, own, alone.inner is not None, alone.quality, rest
    )
