"""AccuracyPanel: what the build loses, where it starts, and which layers to keep to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

from widgets.figures.accuracy import divergence_figure, front_figure
from widgets.panels.base import Panel
from widgets.panels.trials import OUTDATED, settings_of, trials_of
from widgets.parts import Code, button, dropdown, note, plot, row, text_of, title
from widgets.runner import Failure, Runner
from widgets.table import Table
from workbench.body import Array
from workbench.builder import BuildState, WeakTyping
from workbench.config import WEAK_FLAGS, BuilderConfig
from workbench.datatypes import DataType
from workbench.errors import ConfigError, WorkbenchError
from workbench.lab import (
    Divergence,
    FrontPoint,
    MinimalFix,
    PrecisionTrials,
    Quality,
    QualityMeter,
    find_divergence,
    find_minimal_fix,
)
from workbench.lab.peer import peer_outputs
from workbench.records import Progress, Stage
from workbench.reports import divergence_rows, front_rows, quality_rows, search_rows
from workbench.session import Action, Session, SetFlag, SetPrecisions

OURS, PEER, BETWEEN = (
    "this build beside the float reference",
    "ONNX Runtime beside the float reference",
    "this build beside ONNX Runtime",
)
KINDS = {"INT8": DataType.INT8, "FP8": DataType.FP8, "BF16": DataType.BF16, "FP16": DataType.HALF}


class AccuracyPanel(Panel):
    """The build beside the float model and ONNX Runtime; first divergence; the smallest fix.

    samples: inputs to compare on, by name; by default the calibration data. labels: their classes.
    """

    heading: ClassVar[str] = "Accuracy"
    stage: ClassVar[Stage] = Stage.PRECISION
    reruns: ClassVar[Stage | None] = Stage.PRECISION

    def __init__(
        self,
        session: Session | None,
        *,
        samples: Any = None,
        labels: Array | None = None,
        runner: Runner | None = None,
    ) -> None:
        self._samples, self._labels = samples, labels
        super().__init__(session, runner=runner)

    def setup(self) -> None:
        self.divergence: Divergence | None = None
        self.fix: MinimalFix | None = None
        self.quality: dict[str, Quality] = {}
        self._coverage = self._compared = self._no_peer = ""
        self._of: tuple[Action, ...] = ()
        self._searched = ("", "")
        self._weak: WeakTyping | None = None
        self._known: dict[tuple[str, str], PrecisionTrials] = {}
        metrics = ("accuracy",) if self._labels is not None else ()
        self.metric = dropdown(
            *("Metric", (*metrics, "agreement", "cosine", "relative_l2")),
            *((*metrics, "cosine")[0], lambda _: None),
            width="190px",
        )
        self.tolerance = ipw.FloatText(
            value=0.5 if metrics else 0.001,
            description="may lose",
            style={"description_width": "initial"},
            layout={"width": "170px"},
        )
        self.lower = dropdown("Lower to", tuple(KINDS), "INT8", lambda _: None, width="170px")

    def lasting(self) -> Sequence[ipw.Widget]:
        return (self.metric, self.tolerance, self.lower)

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        self._weak = state.log[Stage.PRECISION].facts.get("weak")
        asked = sorted({d.requested.info.label for d in state.decisions})
        return [
            title("What does this build lose?"),
            row(
                button("Compare and find the first divergence", self.compare, primary=True),
                note(f"requested here: {', '.join(asked)}"),
            ),
            *self._comparison(),
            title("Which layers must stay wide?"),
            row(
                *(self.lower, self.metric, self.tolerance),
                button("Find the smallest fix", self.search, primary=True),
                button("… and the Pareto front", self.search_front, tooltip="times more builds"),
            ),
            *self._found(),
        ]

    # -- what the controls do -------------------------------------------------------------
    def compare(self) -> None:
        """Run this build, the float model and ONNX Runtime on the samples; tap every layer."""
        actions, asked = self.session.actions, self.session.config
        config = asked if self._weak is None else self._weak.strongly_typed(asked)
        config.builder_optimization_level = 0  # accuracy needs no clock
        config.progress_monitor = self.runner.inner_monitor()

        def work() -> None:
            with Progress(self.runner.monitor(), "Comparing", 4) as progress:
                trials = self._trials()
                built = trials.build(config)
                progress.step()
                divergence = find_divergence(trials, config, built=built)
                progress.step()
                trial = trials.measure(config, _counted(config), built=built)
                progress.step()
                beside = self._beside_peer(trials, built)
                progress.step()
            self.quality = {OURS: trial.quality, **beside}
            self.divergence, self._of = divergence, actions
            self._coverage = trial.coverage
            self._compared = f"{trial.quality.samples} samples · {self.session.device}"
            self.runner.outcome = "compared"

        self.runner.run(work, "comparing with the float model")

    def search(self) -> None:
        """The fewest layers to keep in FP32, the others lowered, so that the metric holds."""
        self._search(front=False)

    def search_front(self) -> None:
        """The same, and the front of latency and metric: every point is a timed build."""
        self._search(front=True)

    def apply(self) -> None:
        """Request what the search found."""
        assert self.fix is not None
        kept = tuple((n, self.fix.kept_in) for n in self.fix.nodes)
        self._ask(SetPrecisions(kept, default=self.fix.precision, only=True))

    def take(self, point: FrontPoint) -> None:
        """Request what a point of the front was built with."""
        config = BuilderConfig.from_json(point.config)
        kept, default = config.precisions, config.default_precision
        self._ask(SetPrecisions(kept, default=default, only=True))

    # -- drawing --------------------------------------------------------------------------
    def _comparison(self) -> list[ipw.Widget]:
        found = self.divergence
        if found is None:
            return [note("The plan is not changed for it: inner values are read by taps.")]
        rows = divergence_rows(found)
        box, self.divergence_figure = plot(divergence_figure(rows, found.tolerance, self._compared))
        lines = [note(f"{self._coverage}; {self._compared}")]
        if self._of != self.session.actions:
            lines.insert(0, note("This is of the requests before the present ones: compare again."))
        if self._no_peer:
            lines.append(note(self._no_peer))
        first = found.first
        if first is not None:
            read = f", of which {100 * first.read:.3g}% it read" if first.read else ""
            lines.append(
                note(
                    f"First beyond {100 * found.tolerance:g}%: {first.layer} ({first.op}, "
                    f"{first.built.info.label}) is {100 * first.relative_l2:.3g}% off{read}."
                )
            )
        quality = Table(quality_rows(self.quality), label="outputs beside each other", height=200)
        layers = Table(rows, label="layers beside the float model", height=260)
        return [*lines, quality, box, layers]

    def _found(self) -> list[ipw.Widget]:
        fix = self.fix
        if fix is None:
            text = (
                "The search lowers every layer, keeps the most suspicious ones in FP32 until the "
                "metric holds, then drops what was not needed. Cancel stops it; asked again, it "
                "goes on with what it has measured."
            )
            return [note(text)]
        self.code = Code(code=fix.code)
        earlier = self._searched != settings_of(self.session)
        parts: list[ipw.Widget] = [note(OUTDATED)] if earlier else []
        parts += [
            ipw.HTML(f'<div class="wb-answer" role="status">{text_of(fix)}</div>'),
            row(button("Request this", self.apply, primary=True)),
            self.code,
            Table(search_rows(fix), label="questions of the search", height=220),
        ]
        if fix.front:
            rows = front_rows(fix.front)
            box, self.front_figure = plot(front_figure(rows, fix.metric, str(self.session.device)))
            self.front = Table(rows, label="Pareto front", selection="one", height=240)
            use = button("Request the chosen point", self._take_chosen)
            parts += [box, self.front, row(use)]
        return parts

    # -- inner ----------------------------------------------------------------------------
    def _ask(self, found: SetPrecisions) -> None:
        """Request what was measured: strongly typed, so the flags of weak typing are cleared."""
        weak = sorted(WEAK_FLAGS & self.session.config.flags, key=str)
        self.request(*(SetFlag(flag, False) for flag in weak), found)

    def _search(self, *, front: bool) -> None:
        kind, metric = KINDS[str(self.lower.value)], str(self.metric.value)
        tolerance = float(self.tolerance.value)

        def work() -> None:
            settings = settings_of(self.session)
            self.fix = find_minimal_fix(
                self._trials(),
                tolerance,
                metric=metric,
                kind=kind,
                front=front,
                monitor=self.runner.monitor(),
            )
            self._searched = settings
            self.runner.outcome = "the search is done"

        self.runner.run(work, "searching")

    def _trials(self) -> PrecisionTrials:
        """Made once for the same data and settings: what a cancelled search measured is kept."""
        key = settings_of(self.session)
        if key not in self._known:
            made = trials_of(
                self.session,
                samples=self._samples,
                labels=self._labels,
                monitor=self.runner.inner_monitor(),
            )
            self._known = {key: made}
        return self._known[key]

    def _beside_peer(self, trials: PrecisionTrials, built: BuildState) -> dict[str, Quality]:
        """ONNX Runtime's outputs beside the reference and the build, or why there are none."""
        self._no_peer = ""
        try:
            outputs = peer_outputs(self.session.model, trials.each("ONNX Runtime"))
        except ConfigError as error:
            self._no_peer = f"Without ONNX Runtime beside it: {error}"
            return {}
        context = built.engine().create_execution_context()
        meters = {PEER: QualityMeter(), BETWEEN: QualityMeter()}
        batches = trials.each("This build")
        for exact, peer, batch in zip(trials.reference, outputs, batches, strict=True):
            meters[PEER].add(exact, peer)
            meters[BETWEEN].add(peer, context.run(batch))
        return {name: m.result() for name, m in meters.items()}

    def _take_chosen(self) -> None:
        if self.fix is None or not self.front.selected:
            error = WorkbenchError("no point is chosen", remedy="choose a row of the table first")
            self.show_failure(Failure(error))
            return
        self.take(self.fix.front[self.front.selected[0]])


def _counted(config: BuilderConfig) -> DataType:
    """The precision whose coverage is told: the first below FP32 that is asked for."""
    kinds = [config.default_precision, *(k for _, k in config.precisions)]
    return next((k for k in kinds if k is not DataType.FLOAT), DataType.FLOAT)
