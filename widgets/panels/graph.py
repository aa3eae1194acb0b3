"""GraphPanel: a network as one stage left it, or before and after, linked by the model's nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

from widgets.figures import before_after_figure, linked_boxes, network_figure, set_highlight
from widgets.panels.base import Panel
from widgets.parts import dropdown, plot, row
from widgets.runner import Runner
from workbench.builder import BuildState
from workbench.errors import SessionError
from workbench.records import Stage
from workbench.reports import GraphView, network_graph
from workbench.session import Session

NOTHING = "(nothing)"
EDITING = (Stage.PARSE, Stage.FOLD, Stage.PRECISION, Stage.CALIBRATE, Stage.FUSE)
"""The stages that edit the network."""


class GraphPanel(Panel):
    """The graph after a stage; with ``before``, both, and a click on one outlines the other.

    before, after: stages. Plotly's boxes cannot be reached by keyboard: the list beside the graph
    does the same as a click.
    """

    heading: ClassVar[str] = "Graph"

    def __init__(
        self,
        session: Session,
        *,
        before: Stage | None = None,
        after: Stage = Stage.PARSE,
        runner: Runner | None = None,
    ) -> None:
        if before is not None and before not in EDITING[: EDITING.index(after)]:
            raise SessionError(f"{before.value} does not come before {after.value}", place="Graph")
        self.before, self.after = before, after
        self.colour_by = "kind"
        self.selected: tuple[int, int] | None = None
        self.figure: Any = None
        self.views: tuple[GraphView, ...] = ()
        super().__init__(session, runner=runner)

    @property
    def stage(self) -> Stage:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The stage whose network is shown."""
        return self.after

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        after = network_graph(state.networks[self.after])
        self.views = (after,)
        if self.before is not None:
            self.views = (network_graph(state.networks[self.before]), after)
        self.selected = None
        box, self.figure = plot(self._figure(state), scroll_zoom=True)
        for trace in self.figure.data:
            if trace.type == "bar":
                trace.on_click(self._clicked)
        colours = dropdown("Colour by", ("kind", "precision"), self.colour_by, self._colour)
        return [row(colours, *self._comparison(), *self._choosers()), box]

    def _figure(self, state: BuildState) -> Any:
        if len(self.views) == 1:
            return network_figure(
                self.views[0],
                f"{state.name} after {self.after.value}: {state.log[self.after].summary}",
                "drag to move, scroll to zoom",
                colour_by=self.colour_by,
            )
        assert self.before is not None
        return before_after_figure(
            self.views[0],
            self.views[1],
            f"{self.after.value}: {state.log[self.after].summary}",
            "click a box to outline what it became, or came from; drag to move, scroll to zoom",
            colour_by=self.colour_by,
            captions=(f"After {self.before.value}", f"After {self.after.value}"),
        )

    def _comparison(self) -> list[ipw.Widget]:
        if self.before is None:
            return []
        earlier = EDITING[: EDITING.index(self.after)]
        return [
            dropdown("Compare with", [(s.value, s) for s in earlier], self.before, self._compare)
        ]

    def _choosers(self) -> list[ipw.Widget]:
        if len(self.views) == 1:
            return []
        options = [(NOTHING, -1)]
        options += [
            (f"{n.label}  ({n.id})", i) for i, n in enumerate(self.views[1].nodes) if n.origin
        ]
        self.chooser = dropdown("Outline", options, -1, self._choose, width="460px")
        return [self.chooser]

    # -- linking --------------------------------------------------------------------------
    def select(self, side: int, index: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Outline a box and what it is linked to; returns the boxes outlined on each side."""
        if len(self.views) == 1:
            return ((index,), ())
        self.selected = (side, index) if index >= 0 else None
        boxes = linked_boxes((self.views[0], self.views[1]), self.selected)
        with self.figure.batch_update():
            set_highlight(self.figure, boxes)
        return boxes

    def _choose(self, index: int) -> None:
        self.select(1, index)

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        if not points.point_inds or trace.customdata is None:
            return
        index = int(trace.customdata[points.point_inds[0]])
        self.select(1 if trace.xaxis == "x2" else 0, index)

    def _compare(self, before: Stage) -> None:
        self.before = before
        self.refresh()

    def _colour(self, colour_by: str) -> None:
        self.colour_by = colour_by
        self.refresh()
