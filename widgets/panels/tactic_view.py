"""TacticView: what was tried for each layer of a build, live or recorded."""

from __future__ import annotations

from typing import Any

import ipywidgets as ipw

from widgets.columns import is_missing, records
from widgets.figures import tactic_figure, timing_figure
from widgets.panels.base import within
from widgets.parts import dropdown, note, plot, row, title
from widgets.table import Table
from workbench.reports import layer_rows, reformat_rows, tactic_rows, timing_rows
from workbench.selection import Tuned

HIDDEN = ["Type", "Origin", "Kernel"]
"""Columns of the layer table that the tactic table and the graph show already."""
IN_FIGURE = ["Source", "Min (µs)", "Samples", "Kernel", "Measured"]
"""Columns of the tactic table that its figure, and the filter, show already."""
MOST_LAYERS = 16
"""Layers of the first figure: a larger network's longest."""
EVERY = "every source"


class TacticView(ipw.VBox):
    """Times that decided, layer by layer; then every tactic of one layer, or why it was refused.

    device: as figures name it, with the date where it is a recording's.
    """

    def __init__(self, tuned: Tuned, device: str, *, layer: str = "") -> None:
        self.tuned, self.device = tuned, device
        self.source = EVERY
        self._shown: tuple[str, str] | None = None
        self.layers = Table(
            layer_rows(tuned).drop(columns=HIDDEN),
            label="layers and their tactics",
            selection="one",
            facets=("Executed",),
            height=380,
        )
        self.layers.observe(self._picked, "selected")
        names = [c.layer for c in tuned.layers]
        self.layer = layer if layer in names else self._longest()
        self.chooser = dropdown("Layer", names, self.layer or None, self.show_layer, width="420px")
        self.filter = dropdown("Source", [EVERY], EVERY, self.show_source, width="220px")
        self.detail = ipw.VBox(layout={"width": "100%", "overflow": "visible"})
        parts: list[ipw.Widget] = [note(how_chosen(tuned))]
        timing = timing_rows(tuned)
        if len(timing):
            box, self.figure = plot(timing_figure(timing, device, most=MOST_LAYERS))
            parts.append(box)
        parts.append(self.layers)
        reformats = reformat_rows(tuned)
        if len(reformats):
            parts += [title("Reformats"), Table(reformats, label="reformats", height=220)]
        parts += [title("Every tactic of one layer"), row(self.chooser, self.filter), self.detail]
        super().__init__(parts, layout={"width": "100%", "overflow": "visible"})
        if names:
            self.show_layer(self.layer)

    def show_layer(self, name: str) -> None:
        """Every tactic of one layer, of the source that was chosen where it offers one here."""
        self.layer, wanted = name, self.source
        self.chooser.value = name
        choice = next(c for c in self.tuned.layers if c.layer == name)
        sources = list(dict.fromkeys(c.source for c in choice.candidates))
        self.filter.options = [EVERY, *sources]  # goes back to the first of them
        self.show_source(wanted if wanted in sources else EVERY)

    def show_source(self, source: str) -> None:
        """Only one source's tactics of the layer, or those of every source."""
        self.source = source
        self.filter.value = source
        if self._shown == (self.layer, source):
            return  # the choosers call again what changed them
        self._shown = (self.layer, source)
        choice = next(c for c in self.tuned.layers if c.layer == self.layer)
        rows = tactic_rows(choice)
        if source != EVERY:
            rows = rows.loc[rows["Source"] == source].reset_index(drop=True)
        shown = rows.drop(columns=IN_FIGURE)
        self.tactics = Table(shown, label=f"tactics of {self.layer}", facets=("Status", "Mark"))
        parts: list[ipw.Widget] = []
        if any(not is_missing(r["Median (µs)"]) for r in records(rows)):
            box, self.tactic_chart = plot(tactic_figure(rows, self.layer, self.device))
            parts.append(box)
        old = self.detail.children
        self.detail.children = (*parts, self.tactics)
        for widget in (w for c in old for w in within(c)):
            widget.close()

    def _longest(self) -> str:
        """The layer that takes longest: the one worth a look."""
        slowest = max(self.tuned.layers, key=lambda c: c.median_us or 0.0, default=None)
        return slowest.layer if slowest else ""

    def _picked(self, change: Any) -> None:
        chosen = change["new"]
        if chosen and chosen[0] < len(self.tuned.layers):
            self.show_layer(self.tuned.layers[chosen[0]].layer)


def how_chosen(tuned: Tuned) -> str:
    """How many tactics were timed, and how the choice was made."""
    if not tuned.timed and not tuned.cached:
        return "Nothing was timed: each layer has the first tactic that fits."
    exact = (
        "exactly"
        if tuned.exact
        else (f"heuristically: no choice beats {tuned.lower_bound_us:,.1f} µs")
    )
    single = ", ".join(f"{f} {t:,.1f} µs" for f, t in tuned.single_format_us.items())
    text = (
        f"{tuned.timed} tactics were timed, {tuned.cached} came from the timing cache. Tactics "
        f"and layouts were chosen together, {exact}: {tuned.total_us:,.1f} µs in all"
    )
    if single:
        text += f" (one layout throughout: {single})"
    return (
        f"{text}. A chosen tactic may be the slower one where its layout saves a reformat, or "
        "where it is more exact: Mark says which."
    )
