"""QuantizationPanel: where Q and DQ stand and why; which of them Fuse left as kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import ipywidgets as ipw

from widgets.figures.qdq import quantization_figure
from widgets.panels.base import Panel
from widgets.parts import note, plot, tiles
from widgets.table import Table
from workbench.builder import BuildState
from workbench.records import Stage
from workbench.reports import network_graph, qdq_rows, unfused_quantizers
from workbench.reports.qdq import UNFUSED


class QuantizationPanel(Panel):
    """Every QuantizeLinear and DequantizeLinear, absorbed or left, each with its reason."""

    heading: ClassVar[str] = "Q and DQ"
    stage: ClassVar[Stage] = Stage.FUSE
    reruns: ClassVar[Stage | None] = Stage.FUSE

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        rows = qdq_rows(state)
        if not len(rows):
            return [note("There are no Q and DQ: no layer is requested in INT8, FP8 or INT4.")]
        left = unfused_quantizers(state.networks[Stage.FUSE])
        self.table = Table(
            rows, label="Q and DQ", facets=("Kind", "Type", "After Fuse"), height=420
        )
        placed, fused = (network_graph(state.networks[s]) for s in (Stage.CALIBRATE, Stage.FUSE))
        box, self.figure = plot(
            quantization_figure(
                fused,
                left,
                f"{len(left)} of {len(rows)} Q and DQ are left as kernels",
                placed=placed,
                subtitle="outlined: Q and DQ; coloured by the type that a layer computes in; "
                "drag to move, scroll to zoom",
            ),
            scroll_zoom=True,
        )
        return [
            note(
                "Q and DQ stand where TensorRT's guide puts them: on both factors of a product "
                "(weights a scale an output channel), and on the residual that a product's sum "
                "takes in; not on biases, nor behind a product, whose kernel takes the next Q in."
            ),
            tiles(
                [
                    (str(len(rows) - len(left)), "absorbed: they cost nothing"),
                    (str(len(left)), f"left, each {UNFUSED}"),
                ]
            ),
            box,
            self.table,
        ]
