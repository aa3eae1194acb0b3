"""RecordedBuild: a recording's tactics, waterfall and roofline, each labelled as recorded."""

from __future__ import annotations

import ipywidgets as ipw

from widgets.figures import profile_figure, roofline_figure, waterfall_figure
from widgets.panels.tactic_view import TacticView
from widgets.panels.what_if import WhatIf
from widgets.parts import plot, stylesheet, text_of, tiles
from widgets.table import Table
from workbench.records import counted
from workbench.reports import Recording


class RecordedBuild(ipw.VBox):
    """A build that was recorded elsewhere, to look at where its device is not."""

    def __init__(self, recording: Recording, *, layer: str = "") -> None:
        self.recording = recording
        self.view = TacticView(recording.tuned, recording.label, layer=layer)
        self.what_if = WhatIf(recording.tuned)
        pages = {
            "Tactics": ipw.VBox([self.view, self.what_if]),
            "Waterfall": self._waterfall(),
            "Roofline": self._roofline(),
        }
        tabs = ipw.Tab(list(pages.values()), titles=list(pages), layout={"width": "100%"})
        super().__init__(
            [stylesheet(), _head(recording), tabs], layout={"width": "100%", "overflow": "visible"}
        )
        self.add_class("wb-panel")

    def __repr__(self) -> str:
        return f"RecordedBuild({self.recording.model}, {self.recording.label})"

    def _waterfall(self) -> ipw.VBox:
        r = self.recording
        whole, self.waterfall = plot(waterfall_figure(r.waterfall_rows(), r.label, inputs=r.inputs))
        rows = r.profile_rows()
        layers, self.profile = plot(profile_figure(rows, r.label, inputs=r.inputs))
        table = Table(rows.drop(columns=["Type"]), label=f"profile, {r.label}", height=380)
        return ipw.VBox([whole, layers, table])

    def _roofline(self) -> ipw.VBox:
        r = self.recording
        rows = r.roofline_rows()
        box, self.roofline = plot(roofline_figure(rows, r.ceilings, inputs=r.inputs, where=r.label))
        label = f"work and ceiling of each layer, {r.label}"
        hidden = ["Type"] if any(rows["Note"]) else ["Type", "Note"]
        return ipw.VBox([box, Table(rows.drop(columns=hidden), label=label, height=380)])


def _head(r: Recording) -> ipw.VBox:
    facts = [
        (
            f"{r.profile.end_to_end_us:,.0f} µs",
            "all layers, one CUDA graph" if r.profile.graph else "all layers",
        ),
        (r.precision, "requested" + ("" if "," in r.precision else " of every layer")),
        (f"{len(r.tuned.layers)}", f"layers, {counted(len(r.tuned.reformats), 'reformat')}"),
        (f"{r.tuned.timed:,}", f"tactics timed, level {r.level}"),
        (f"{r.stages['Tune'][0]:.1f} s", "for tuning"),
    ]
    ran = "; ".join(filter(None, (r.driver, r.inputs)))
    said = (
        f'<div class="wb-warning" role="note"><b>{text_of(r.model)}</b>, {text_of(r.label)}: not '
        f"measured on this machine. {text_of(ran)}.</div>"
    )
    return ipw.VBox([ipw.HTML(said), tiles(facts)])
