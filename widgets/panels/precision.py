"""PrecisionPanel: which precision each layer is asked for, and what it is built as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import ipywidgets as ipw

from widgets.panels.base import Panel
from widgets.parts import button, dropdown, note, row
from widgets.table import Table
from workbench.builder import BuildState
from workbench.datatypes import PRECISIONS, DataType
from workbench.records import Stage
from workbench.reports import precision_rows
from workbench.session import ClearPrecisions, SetDefaultPrecision, SetPrecision

LABELS = {p.info.label: p for p in PRECISIONS}


class PrecisionPanel(Panel):
    """A precision per layer: one by one, for all selected rows, or by a pattern of node names."""

    heading: ClassVar[str] = "Precision"
    stage: ClassVar[Stage] = Stage.PRECISION
    reruns: ClassVar[Stage | None] = Stage.PRECISION

    def setup(self) -> None:
        self.table: Table | None = None
        self.pattern = ipw.Text(
            placeholder="such as node_Conv_*",
            description="Nodes named",
            style={"description_width": "initial"},
            layout={"width": "280px"},
        )
        self.kind = dropdown("to", tuple(LABELS), "INT8", lambda _: None, width="130px")

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        self._origins = [d.origin or (d.layer,) for d in state.decisions]
        rows = precision_rows(state.decisions)
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
        default = self.session.config.default_precision.info.label
        everything = dropdown("Default", tuple(LABELS), default, self.set_default)
        return [
            note(
                "A request is written into the graph as Cast, or as QuantizeLinear and "
                "DequantizeLinear, and the build keeps it or says what blocks it. The last request "
                "that names a node wins."
            ),
            row(
                everything,
                self.pattern,
                self.kind,
                button("Set by pattern", self.set_pattern),
                button("Clear requests", self.clear),
            ),
            self.table,
        ]

    def lasting(self) -> Sequence[ipw.Widget]:
        return [w for w in (self.table, self.pattern, self.kind) if w is not None]

    # -- what the controls do -------------------------------------------------------------
    def set_default(self, label: str) -> None:
        """The precision of the nodes that no request names."""
        self.request(SetDefaultPrecision(LABELS[label]))

    def set_layers(self, rows: Sequence[int], label: str) -> None:
        """The precision of some rows of the table."""
        kind: DataType = LABELS[label]
        nodes = [n for r in rows for n in self._origins[r]]
        self.request(*(SetPrecision(n, kind) for n in nodes))

    def set_pattern(self) -> None:
        """The precision of the nodes that match the pattern in the field."""
        if self.pattern.value.strip():
            self.request(SetPrecision(self.pattern.value.strip(), LABELS[str(self.kind.value)]))

    def clear(self) -> None:
        """Forget the requests that name nodes."""
        self.request(ClearPrecisions())

    def _edited(self, rows: tuple[int, ...], column: str, value: str) -> None:
        self.set_layers(rows, value)
