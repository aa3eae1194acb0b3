"""TacticPanel: every layer's times, and every tactic that was tried for one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

from widgets.columns import is_missing, records
from widgets.figures import tactic_figure, timing_figure
from widgets.panels.base import Panel
from widgets.parts import dropdown, note, plot, row, title
from widgets.table import Table
from workbench.builder import BuildState
from workbench.records import Stage
from workbench.reports import layer_rows, tactic_rows, timing_rows
from workbench.selection import Tuned
from workbench.session import SetOption

HIDDEN = ["Type", "Origin", "Kernel"]
"""Columns of the layer table that the tactic table and the graph show already."""
LEVELS = "0: first that fits, nothing timed", "1", "2", "3: usual", "4", "5: every tactic"


class TacticPanel(Panel):
    """Times that decided, layer by layer: chosen, runner-up, COMPOSED; refusals with reasons."""

    heading: ClassVar[str] = "Tactics"
    stage: ClassVar[Stage] = Stage.TUNE

    def setup(self) -> None:
        self.layer = ""

    def waiting(self) -> Sequence[ipw.Widget]:
        return [row(self._level()), *super().waiting()]

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        assert state.tuned is not None
        self.tuned: Tuned = state.tuned
        self.rows = layer_rows(self.tuned)
        self.layers = Table(
            self.rows.drop(columns=HIDDEN),
            label="layers and their tactics",
            selection="one",
            facets=("Executed",),
            height=380,
        )
        self.layers.observe(self._picked, "selected")
        names = [c.layer for c in self.tuned.layers]
        if self.layer not in names and names:
            self.layer = names[0]
        self.chooser = dropdown("Layer", names, self.layer or None, self.show_layer, width="420px")
        self.detail = ipw.VBox(layout={"width": "100%", "overflow": "visible"})
        if names:
            self.show_layer(self.layer)
        parts: list[ipw.Widget] = [row(self._level()), note(_how(self.tuned))]
        timing = timing_rows(self.tuned)
        if len(timing):
            box, self.figure = plot(timing_figure(timing, str(self.session.device)))
            parts.append(box)
        return [
            *parts,
            self.layers,
            title("Every tactic of one layer"),
            row(self.chooser),
            self.detail,
        ]

    # -- what the controls do -------------------------------------------------------------
    def show_layer(self, name: str) -> None:
        """Every tactic of one layer: times, errors, refusals."""
        self.layer = name
        choice = next(c for c in self.tuned.layers if c.layer == name)
        rows = tactic_rows(choice)
        self.tactics = Table(rows, label=f"tactics of {name}", facets=("Status", "Source"))
        old = self.detail.children
        parts: list[ipw.Widget] = []
        if any(not is_missing(r["Median (µs)"]) for r in records(rows)):
            figure = tactic_figure(rows, name, str(self.session.device))
            box, self.tactic_chart = plot(figure)
            parts.append(box)
        self.detail.children = (*parts, self.tactics)
        self.chooser.value = name
        for widget in old:
            widget.close()

    def set_level(self, level: int) -> None:
        """Ask for another optimization level; Tune runs again when it is asked to."""
        self.request(SetOption("builder_optimization_level", level))

    def _level(self) -> ipw.Dropdown:
        options = [(text, level) for level, text in enumerate(LEVELS)]
        level = self.session.config.builder_optimization_level
        return dropdown("Optimization level", options, level, self.set_level, width="380px")

    def _picked(self, change: Any) -> None:
        chosen = change["new"]
        if chosen and chosen[0] < len(self.tuned.layers):
            self.show_layer(self.tuned.layers[chosen[0]].layer)


def _how(tuned: Tuned) -> str:
    exact = (
        "exactly"
        if tuned.exact
        else (f"heuristically: no choice beats {tuned.lower_bound_us:.1f} µs")
    )
    single = ", ".join(f"{f} {t:,.1f} µs" for f, t in tuned.single_format_us.items())
    text = (
        f"{tuned.timed} tactics were timed now, {tuned.cached} come from the timing cache. Tactics "
        f"and layouts were chosen together, {exact}: {tuned.total_us:,.1f} µs in all"
    )
    if single:
        text += f" (one layout throughout: {single})"
    return f"{text}. A chosen tactic may be the slower one where its layout saves a reformat."
