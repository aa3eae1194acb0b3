"""PrecisionPanel: what each layer is asked for, built as and executed in, and what it costs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd

from widgets.columns import records
from widgets.figures.accuracy import noise_percent, sensitivity_figure
from widgets.panels.base import Panel
from widgets.panels.trials import OUTDATED, settings_of, trials_of
from widgets.parts import button, dropdown, note, plot, row, tiles
from widgets.runner import Failure
from widgets.table import Table
from workbench.builder import BuildState
from workbench.config import WEAK_FLAGS, BuilderFlag
from workbench.datatypes import PRECISIONS, DataType
from workbench.errors import ConfigError, WorkbenchError
from workbench.lab import Sensitivity, measure_sensitivity
from workbench.network import NetworkDefinition
from workbench.precision import resolve
from workbench.records import Stage
from workbench.reports import precision_rows, sensitivity_rows, weak_typing_rows
from workbench.session import ClearPrecisions, SetDefaultPrecision, SetFlag, SetPrecisions

LABELS = {p.info.label: p for p in PRECISIONS}
LOWERED = tuple(label for label in LABELS if label != "FP32")
NOISE = "Noise alone (%)"


class PrecisionPanel(Panel):
    """A precision per layer: one by one, for all selected rows, or by a pattern of node names."""

    heading: ClassVar[str] = "Precision"
    stage: ClassVar[Stage] = Stage.PRECISION
    reruns: ClassVar[Stage | None] = Stage.PRECISION

    def setup(self) -> None:
        self.table: Table | None = None
        self.sensitivity: Sensitivity | None = None
        self._measured, self._of = "", ("", "")
        self.pattern = ipw.Text(
            placeholder="node_Conv_*, or /Conv_8[1-3]/",
            description="Nodes named",
            style={"description_width": "initial"},
            layout={"width": "300px"},
        )
        self.kind = dropdown("to", tuple(LABELS), "INT8", lambda _: None, width="120px")
        self.everything = dropdown("Default", tuple(LABELS), "FP32", self._default_picked)
        self.undo_button = button("Undo", self.undo, tooltip="take the last request back")
        self.redo_button = button("Redo", self.redo, tooltip="bring it back")
        self.lowered = dropdown("Sensitivity to", LOWERED, "INT8", lambda _: None, width="190px")
        measure = button(
            "Measure", self.measure, tooltip="build the model once for each layer, it alone lowered"
        )
        self.weak = {flag: self._toggle(flag) for flag in sorted(WEAK_FLAGS, key=str)}
        self._origins: list[tuple[str, ...]] = []
        self._network: NetworkDefinition | None = None
        # Made once: a click that comes while the panel is redrawn is not lost.
        self._requests = row(
            self.everything,
            self.pattern,
            self.kind,
            button("Set by pattern", self.set_pattern),
            button("Clear requests", self.clear),
            self.undo_button,
            self.redo_button,
        )
        text = "Weak typing (TensorRT ≤ 10, removed in 11): let the tuner choose by time among"
        self._flags = row(note(text), *self.weak.values())
        self._measuring = row(self.lowered, measure)

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        self._origins = [d.origin or (d.layer,) for d in state.decisions]
        self._network = state.networks[Stage.PROFILES]
        rows = self._rows(state)
        if self.table is None:
            self.table = Table(
                rows,
                label="precision of each layer",
                selection="many",
                choices={"Requested": tuple(LABELS)},
                facets=("Operator", "Built as"),
                height=520,
                on_edit=self._edited,
            )
        else:
            self.table.rows = rows
        self._show_requests()
        return [
            note(
                "A request is written into the graph as Cast, or as QuantizeLinear and "
                "DequantizeLinear, and the build keeps it or says what blocks it. The last request "
                "that names a node wins."
            ),
            self._requests,
            _contract(rows),
            self.table,
            self._flags,
            *self._chosen(state),
            self._measuring,
            *self._bars(),
        ]

    def waiting(self) -> Sequence[ipw.Widget]:
        """With the requests: what made the stage fail is taken back where it was asked."""
        self._show_requests()
        return [*super().waiting(), self._requests, self._flags]

    def lasting(self) -> Sequence[ipw.Widget]:
        made = (self._requests, self._flags, self._measuring)
        return made if self.table is None else (self.table, *made)

    # -- what the controls do -------------------------------------------------------------
    def set_default(self, label: str) -> None:
        """The precision of the nodes that no request names."""
        self.request(SetDefaultPrecision(LABELS[label]))

    def set_layers(self, rows: Sequence[int], label: str) -> None:
        """The precision of some rows of the table."""
        kind: DataType = LABELS[label]
        nodes = [n for r in rows for n in self._origins[r]]
        self.request(SetPrecisions(tuple((n, kind) for n in nodes)))

    def set_pattern(self) -> None:
        """The precision of the nodes that match the field: a shell pattern, or ``/a regex/``."""
        asked = self.pattern.value.strip()
        if not asked:
            return
        kind = LABELS[str(self.kind.value)]
        try:
            patterns = self._matching(asked)
            config = self.session.config.clone()
            for pattern in patterns:
                config.set_precision(pattern, kind)
            # Asked before it is an Action: where it names nothing, the stage would fail, and with
            # it this panel and its Undo.
            if self._network is not None:
                resolve(self._network, config)
        except WorkbenchError as error:
            self.show_failure(Failure(error))
            return
        self.request(SetPrecisions(tuple((p, kind) for p in patterns)))

    def set_weak_typing(self, flag: BuilderFlag, *, on: bool) -> None:
        """Let the tuner choose a type where it is faster, or no longer."""
        self.request(SetFlag(flag, on))

    def clear(self) -> None:
        """Forget the requests that name nodes."""
        self.request(ClearPrecisions())

    def undo(self) -> None:
        """Take the last action of the session back."""
        self._step(self.session.undo)

    def redo(self) -> None:
        """Bring the last undone action back."""
        self._step(self.session.redo)

    def measure(self) -> None:
        """Lower one layer at a time and see what the outputs lose."""
        kind = LABELS[str(self.lowered.value)]

        def work() -> None:
            settings = settings_of(self.session)
            trials = trials_of(self.session, monitor=self.runner.inner_monitor())
            found = measure_sensitivity(trials, kind, others=False, monitor=self.runner.monitor())
            self.sensitivity, self._of = found, settings
            samples = found.reference.samples
            self._measured = f"{samples} calibration samples · {self.session.device}"
            self.runner.outcome = f"sensitivity of {len(found.rows)} layers to {kind.info.label}"

        self.runner.run(work, "measuring the sensitivity of each layer")

    # -- inner ----------------------------------------------------------------------------
    def _rows(self, state: BuildState) -> pd.DataFrame:
        """The contract, and each layer's noise where it was measured; NaN where it was not."""
        rows = precision_rows(state.decisions, state.tuned)
        if self.sensitivity is not None:
            measured = {r.layer: r.alone.sqnr_db for r in self.sensitivity.rows}
            noise = [noise_percent(measured.get(str(n), math.nan)) for n in rows["Layer"]]
            rows.insert(rows.columns.get_loc("Blocker"), NOISE, noise)  # pyright: ignore
        return rows

    def _show_requests(self) -> None:
        """Set the controls to what is asked for now."""
        config = self.session.config
        self.everything.value = config.default_precision.info.label
        for flag, made in self.weak.items():
            made.value = flag in config.flags
        self.undo_button.disabled = not self.session.actions
        self.redo_button.disabled = not self.session.undone

    def _default_picked(self, label: str) -> None:
        if LABELS[label] is not self.session.config.default_precision:
            self.set_default(label)

    def _toggle(self, flag: BuilderFlag) -> ipw.ToggleButton:
        """A button for one of TensorRT ≤ 10's flags."""
        made = ipw.ToggleButton(
            description=flag.name,
            tooltip=f"BuilderFlag.{flag.name}: the tuner may choose it where it is faster",
            layout={"width": "70px"},
        )

        def pressed(change: Any) -> None:
            if change["new"] != (flag in self.session.config.flags):
                self.set_weak_typing(flag, on=change["new"])

        made.observe(pressed, "value")
        return made

    def _chosen(self, state: BuildState) -> list[ipw.Widget]:
        """With a flag of weak typing set: what the tuner chose and the times it chose by."""
        found = state.log[Stage.PRECISION].facts.get("weak")
        if found is None:
            return []
        self.chosen = Table(weak_typing_rows(found), label="what the tuner chose", height=260)
        return [note(state.log[Stage.PRECISION].summary), self.chosen]

    def _bars(self) -> list[ipw.Widget]:
        found = self.sensitivity
        if found is None:
            return [
                note(
                    "How much does each layer mind? Measure builds the model once for each layer, "
                    "with it alone lowered, and compares the outputs with the float model's."
                )
            ]
        rows = sensitivity_rows(found, metric="relative_l2")
        box, self.figure = plot(
            sensitivity_figure(rows, found.precision.info.label, self._measured)
        )
        every = found.lowered
        text = f"All of them lowered: {every.coverage}, SQNR {every.quality.sqnr_db:.1f} dB."
        outdated = [note(OUTDATED)] if self._of != settings_of(self.session) else []
        return [*outdated, box, note(text)]

    def _matching(self, asked: str) -> list[str]:
        """The shell pattern itself, or the names that a regular expression finds."""
        if not (len(asked) > 2 and asked.startswith("/") and asked.endswith("/")):
            return [asked]
        try:
            expression = re.compile(asked[1:-1])
        except re.error as e:
            raise ConfigError(f"{asked} is no regular expression: {e}", place="Nodes named") from e
        names = dict.fromkeys(n for origin in self._origins for n in origin)
        found = [n for n in names if expression.search(n)]
        if not found:
            raise ConfigError(f"no node's name matches {asked}", place="Nodes named")
        return found

    def _step(self, act: Callable[[], object]) -> None:
        try:
            act()
        except WorkbenchError as error:
            self.show_failure(Failure(error))
            return
        self.requested()

    def _edited(self, rows: tuple[int, ...], column: str, value: str) -> None:
        self.set_layers(rows, value)


def _contract(rows: pd.DataFrame) -> ipw.HTML:
    """How far requests were kept, as tiles: asked, blocked, and emulated apart."""
    asked = [r for r in records(rows) if r["Requested"] != "FP32"]
    blocked = sum(bool(r["Blocker"]) for r in asked)
    pairs = [
        (f"{len(asked) - blocked} of {len(asked)}", "requests below FP32 kept"),
        (str(blocked), "with a named blocker"),
    ]
    executed = [str(r["Executed"]) for r in records(rows) if r["Executed"]]
    if executed:
        emulated = sum("emulated" in text for text in executed)
        pairs.append((str(emulated), "layers emulated on this device"))
    return tiles(pairs)
