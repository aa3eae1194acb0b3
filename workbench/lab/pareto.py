"""The Pareto front of latency and metric over mixtures of two precisions.

Latency is the sum of the chosen kernels' times, through the timing cache of the trials; each point
is a whole build, and its config reproduces it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.errors import ConfigError
from workbench.lab.trials import PrecisionTrials, Trial
from workbench.precision import PrecisionDecision
from workbench.records import Progress, ProgressMonitor, Stage
from workbench.selection import Tuned

POINTS = 8
"""Mixtures tried between all lowered and none."""


@dataclass(frozen=True, eq=False)
class FrontPoint:
    """One mixture. kept: layers in the wider type. loss: of the metric against the float model.

    on_front: no other point is faster and loses no more.
    """

    name: str
    kept: tuple[str, ...]
    latency_us: float
    loss: float
    on_front: bool
    trial: Trial

    @property
    def config(self) -> dict[str, Any]:
        """The JSON that reproduces this point: ``BuilderConfig.from_json(point.config)``."""
        return dict(self.trial.config)


def measure_front(
    trials: PrecisionTrials,
    fix: Sequence[str],
    ranked: Sequence[PrecisionDecision],
    *,
    metric: str,
    kind: DataType = DataType.INT8,
    to: DataType = DataType.FLOAT,
    base: BuilderConfig | None = None,
    monitor: ProgressMonitor | None = None,
) -> tuple[FrontPoint, ...]:
    """Points between all lowered and none, the fastest first.

    fix: layers that a search kept. ranked: the layers, the most suspicious first; those that gain
    least time by being lowered are kept first among equals. Raises ConfigError at level 0.
    """
    require_times(base or trials.config)
    order = trials.layers(kind)
    mixtures: dict[tuple[str, ...], str] = {}
    with Progress(monitor or ProgressMonitor(), "Front", POINTS + 4) as progress:

        def measured(kept: Sequence[str]) -> Trial:
            but = [d for d in order if d.layer in set(kept)]
            config = trials.lowered(kind, but=but, to=to, base=base, timed=True)
            trial = trials.measure(config, kind)
            progress.step()
            return trial

        every = tuple(d.layer for d in order)
        gains = _gains(trials, kind, to, base)
        slower = tuple(x for x in every if x in set(fix) or gains.get(x, 0.0) <= 0.0)
        mixtures[()] = "all lowered"
        mixtures.setdefault(tuple(x for x in every if x in set(fix)), "the fix")
        mixtures.setdefault(slower, "the fix, and what gains no time")
        path = _path(ranked, gains)
        for k in _sizes(len(path)):
            chosen = set(path[:k])
            mixtures.setdefault(tuple(x for x in every if x in chosen), f"{k} kept")
        mixtures.setdefault(every, "none lowered")
        points = [
            _point(trials, name, kept, measured(kept), metric) for kept, name in mixtures.items()
        ]
    return _marked(points)


def require_times(config: BuilderConfig) -> None:
    """Raises ConfigError for a config that measures no times."""
    if config.builder_optimization_level == 0:
        raise ConfigError(
            "level 0 measures no times",
            place="Pareto front",
            remedy="set config.builder_optimization_level to 1 or more",
        )


def _point(
    trials: PrecisionTrials, name: str, kept: tuple[str, ...], trial: Trial, metric: str
) -> FrontPoint:
    assert trial.latency_us is not None
    loss = trial.quality.loss(metric, trials.reference_quality)
    return FrontPoint(name, kept, trial.latency_us, loss, False, trial)


def _marked(points: Sequence[FrontPoint]) -> tuple[FrontPoint, ...]:
    """By latency; a point is on the front where it loses less than every faster one."""
    best, marked = float("inf"), list[FrontPoint]()
    for p in sorted(points, key=lambda p: (p.latency_us, p.loss)):
        marked.append(replace(p, on_front=p.loss < best))
        best = min(best, p.loss)
    return tuple(marked)


def _sizes(count: int) -> list[int]:
    """How many layers the mixtures in between keep: few small steps, then larger ones."""
    return sorted({round(count ** (i / (POINTS + 1))) for i in range(1, POINTS + 1)} - {0, count})


def _path(ranked: Sequence[PrecisionDecision], gains: dict[str, float]) -> list[str]:
    """The ranking with places traded for time: a layer that gains much moves back."""
    most = max(gains.values(), default=0.0)
    places = {
        d.layer: i + len(ranked) * 0.5 * max(0.0, gains.get(d.layer, 0.0)) / most if most > 0 else i
        for i, d in enumerate(ranked)
    }
    return sorted(places, key=lambda x: places[x])


def _gains(
    trials: PrecisionTrials, kind: DataType, to: DataType, base: BuilderConfig | None
) -> dict[str, float]:
    """Microseconds that each layer gains by being lowered, from the two uniform builds."""
    all_low = trials.lowered(kind, base=base, timed=True)
    all_high = trials.lowered(kind, but=trials.layers(kind), to=to, base=base, timed=True)
    low, high = (trials.build(c, until=Stage.TUNE).tuned for c in (all_low, all_high))
    assert low is not None and high is not None
    fast, slow = _times(low), _times(high)
    return {
        d.layer: slow.get(d.origin[0], 0.0) - fast.get(d.origin[0], 0.0)
        for d in trials.layers(kind)
    }


def _times(tuned: Tuned) -> dict[str, float]:
    """Microseconds by node of the model: of its layer, shared by the layer's nodes."""
    return {
        node: (choice.median_us or 0.0) / len(choice.origin)
        for choice in tuned.layers
        for node in choice.origin
    }
