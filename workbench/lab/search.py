"""find_minimal_fix: the fewest layers to keep in a wider type so that a metric holds.

Layers are ranked by their own noise (or by a measured sensitivity), the shortest sufficient run of
that ranking is found by galloping, group tests throw out what it did not need, and at the end each
layer is dropped once to show that none can be.
Source of the group tests: Junker, "QuickXplain", AAAI 2004.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.errors import ConfigError
from workbench.lab.pareto import FrontPoint, measure_front, require_times
from workbench.lab.quality import Quality
from workbench.lab.replay import own_noise
from workbench.lab.sensitivity import Sensitivity
from workbench.lab.trials import PrecisionTrials, Trial
from workbench.precision import PrecisionDecision
from workbench.records import Progress, ProgressMonitor


@dataclass(frozen=True)
class SearchStep:
    """One question of a search: with these layers kept, what is lost, and does the metric hold."""

    kept: tuple[str, ...]
    loss: float
    holds: bool


@dataclass(frozen=True, eq=False)
class MinimalFix:
    """The layers to keep, and how they were found.

    layers: none of them can be dropped; empty where all may be lowered. precision: of the others;
    kept_in: of these. loss: of the metric, with them kept. trial: that configuration; its config
    reproduces it. lowered: nothing kept. evaluations: engines that this search needed, those in
    the record included; resumed: of these, from the record's file. front: (latency, metric) points,
    where they were asked for.
    """

    layers: tuple[str, ...]
    nodes: tuple[str, ...]
    precision: DataType
    kept_in: DataType
    metric: str
    tolerance: float
    loss: float
    reference: Quality
    trial: Trial
    lowered: Trial
    steps: tuple[SearchStep, ...]
    evaluations: int
    resumed: int
    front: tuple[FrontPoint, ...] = ()

    @property
    def code(self) -> str:
        """The Python that requests it."""
        lines = [f"config.default_precision = wb.DataType.{self.precision.name}"]
        lines += [f"config.set_precision({n!r}, {self.kept_in.info.label!r})" for n in self.nodes]
        return "\n".join(lines)

    def __str__(self) -> str:
        kept = ", ".join(self.layers) or "no layer"
        return (
            f"keep {kept} in {self.kept_in.info.label}: {self.metric} loses {self.loss:.4g} "
            f"(allowed {self.tolerance:.4g}), {self.trial.coverage}; "
            f"{self.evaluations} engines"
        )


def find_minimal_fix(
    trials: PrecisionTrials,
    tolerance: float,
    *,
    metric: str = "",
    kind: DataType = DataType.INT8,
    to: DataType = DataType.FLOAT,
    base: BuilderConfig | None = None,
    sensitivity: Sensitivity | None = None,
    front: bool = False,
    monitor: ProgressMonitor | None = None,
) -> MinimalFix:
    """The smallest set of layers to keep in ``to``, the others in ``kind``, so that a metric holds.

    tolerance: the most that may be lost, as ``Quality.loss`` counts it. metric: by default accuracy
    with labels, task with a task, else cosine. base: the config to start from. sensitivity: ranks
    the layers; else their own noise does, which builds nothing. front: measure the Pareto front
    of latency and metric too, through the timing cache. Cancel by the monitor; trials with a record
    go on from there. Smallest means that no layer of the set can be dropped. Raises ConfigError
    where the metric does not hold with every layer kept.
    """
    if front:
        require_times(base or trials.config)
    search = _Search(trials, tolerance, metric or default_metric(trials), kind, to, base, monitor)
    ranked = search.ranked(sensitivity)
    return search.run(ranked, front=front)


def bisect_prefixes(
    trials: PrecisionTrials,
    tolerance: float,
    *,
    metric: str = "",
    kind: DataType = DataType.INT8,
    to: DataType = DataType.FLOAT,
    base: BuilderConfig | None = None,
    monitor: ProgressMonitor | None = None,
) -> MinimalFix:
    """The same question answered as older tools do, in the network's order, for comparison.

    The shortest prefix of layers that suffices ends at a layer that is needed; with that kept, the
    next shortest prefix is sought, until the kept ones suffice alone.
    """
    search = _Search(trials, tolerance, metric or default_metric(trials), kind, to, base, monitor)
    return search.run_prefixes()


class _Search:
    """One search: which layers were kept in each question, and what came of it."""

    def __init__(
        self,
        trials: PrecisionTrials,
        tolerance: float,
        metric: str,
        kind: DataType,
        to: DataType,
        base: BuilderConfig | None,
        monitor: ProgressMonitor | None,
    ) -> None:
        self.trials, self.tolerance, self.metric = trials, tolerance, metric
        self.kind, self.to, self.base = kind, to, base
        self.monitor = monitor or ProgressMonitor()
        self.order = trials.layers(kind)
        self.steps: dict[frozenset[str], SearchStep] = {}
        self.resumed = trials.record.resumed
        self.progress: Any = None

    def run(self, ranked: Sequence[PrecisionDecision], *, front: bool) -> MinimalFix:
        """Gallop, reduce, then prove that nothing can be dropped."""
        with Progress(self.monitor, "Search", len(ranked)) as self.progress:
            kept = self._drop_each(self._reduced(self._shortest(ranked)))
        points: tuple[FrontPoint, ...] = ()
        if front:
            points = measure_front(
                self.trials,
                tuple(d.layer for d in self._in_order(kept)),
                ranked,
                metric=self.metric,
                kind=self.kind,
                to=self.to,
                base=self.base,
                monitor=self.monitor,
            )
        return self._result(kept, points)

    def run_prefixes(self) -> MinimalFix:
        """Bisect for the shortest prefix, again and again."""
        kept: list[PrecisionDecision] = []
        limit = len(self.order)
        with Progress(self.monitor, "Bisect", limit) as self.progress:
            while not self._holds(kept):
                if not limit:  # some suffice only with others: all of them do
                    self._require_all()
                    kept = list(self.order)
                    break
                low, high = 0, limit
                while high - low > 1:
                    middle = (low + high) // 2
                    good = self._holds([*self.order[:middle], *kept])
                    low, high = (low, middle) if good else (middle, high)
                if high == len(self.order):
                    self._require_all()
                kept.append(self.order[high - 1])
                limit = high - 1
        return self._result(kept, ())

    def ranked(self, sensitivity: Sensitivity | None) -> list[PrecisionDecision]:
        """The layers, the most suspicious first: by a sensitivity, else by their own noise."""
        if sensitivity is not None:
            by_name = {d.layer: d for d in self.order}
            measured = sensitivity.ranked(self.metric)
            found = [by_name[r.layer] for r in measured if r.layer in by_name]
            return [*found, *(d for d in self.order if d not in found)]
        noise = own_noise(self.trials, self.kind, base=self.base, monitor=self.monitor)
        loud = {n: q.relative_l2 for n, q in noise.items()}
        return sorted(self.order, key=lambda d: -loud.get(d.layer, 0.0))

    def _shortest(self, ranked: Sequence[PrecisionDecision]) -> list[PrecisionDecision]:
        """The shortest run of the ranking's head that suffices: doubled, then bisected."""
        if self._holds(()):
            return []
        low, high = 0, 1
        while high < len(ranked) and not self._holds(ranked[:high]):
            low, high = high, min(2 * high, len(ranked))
        if high >= len(ranked):
            self._require_all()
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._holds(ranked[:middle]) else (middle, high)
        return list(ranked[:high])

    def _require_all(self) -> None:
        """Raises ConfigError where keeping every layer is not enough."""
        if not self._holds(self.order):
            loss, label = self.steps[_key(self.order)].loss, self.to.info.label
            raise ConfigError(
                f"with every layer kept in {label}, {self.metric} loses {loss:.4g}; "
                f"{self.tolerance:.4g} is allowed",
                place=self.trials.name,
                remedy="allow more, or keep layers in a wider type",
            )

    def _reduced(self, given: list[PrecisionDecision]) -> list[PrecisionDecision]:
        """Group tests: a part of ``given`` that suffices and needs each of its layers."""
        if len(given) < 2:
            return given
        return self._needed([], [], given)

    def _needed(
        self,
        background: list[PrecisionDecision],
        added: list[PrecisionDecision],
        given: list[PrecisionDecision],
    ) -> list[PrecisionDecision]:
        if added and self._holds(background):
            return []
        if len(given) == 1:
            return given
        half = len(given) // 2
        first, second = given[:half], given[half:]
        late = self._needed([*background, *first], first, second)
        early = self._needed([*background, *late], late, first)
        return [*early, *late]

    def _drop_each(self, given: list[PrecisionDecision]) -> list[PrecisionDecision]:
        """Drop one at a time; what can be dropped is. Few questions are new here."""
        kept, tried = list(given), 0
        while tried < len(kept):  # each of those that are left
            rest = kept[1:]
            if self._holds(rest):
                kept, tried = rest, 0
            else:
                kept, tried = [*rest, kept[0]], tried + 1
        return kept

    def _holds(self, kept: Sequence[PrecisionDecision]) -> bool:
        """Whether the metric holds with these layers kept."""
        key = _key(kept)
        if key not in self.steps:
            loss = self._trial(kept).quality.loss(self.metric, self.trials.reference_quality)
            names = tuple(d.layer for d in self._in_order(kept))
            self.steps[key] = SearchStep(names, loss, loss <= self.tolerance)
            self.progress.step()
        return self.steps[key].holds

    def _trial(self, kept: Sequence[PrecisionDecision]) -> Trial:
        config = self.trials.lowered(
            self.kind, but=self._in_order(kept), to=self.to, base=self.base
        )
        return self.trials.measure(config, self.kind)

    def _in_order(self, kept: Sequence[PrecisionDecision]) -> list[PrecisionDecision]:
        names = {d.layer for d in kept}
        return [d for d in self.order if d.layer in names]

    def _result(
        self, kept: Sequence[PrecisionDecision], front: tuple[FrontPoint, ...]
    ) -> MinimalFix:
        steps = tuple(self.steps.values())
        ordered = self._in_order(kept)
        trial = self._trial(ordered)
        reference = self.trials.reference_quality
        return MinimalFix(
            tuple(d.layer for d in ordered),
            tuple(n for d in ordered for n in d.origin),
            self.kind,
            self.to,
            self.metric,
            self.tolerance,
            trial.quality.loss(self.metric, reference),
            reference,
            trial,
            self._trial(()),
            steps,
            len(steps),
            self.trials.record.resumed - self.resumed,
            front,
        )


def default_metric(trials: PrecisionTrials) -> str:
    """task with a task, accuracy with labels, else cosine."""
    if trials.task is not None:
        return "task"
    return "accuracy" if trials.labels is not None else "cosine"


def _key(kept: Sequence[PrecisionDecision]) -> frozenset[str]:
    return frozenset(d.layer for d in kept)
