"""Replay: the network after any number of a stage's rewrites, with the last one outlined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as ipw

from widgets.figures import network_figure
from widgets.figures.graph import EDGES
from widgets.panels.base import within
from widgets.parts import button, plot, row, text_of, title
from workbench.lab import RewriteSteps
from workbench.reports import GraphView, network_graph


class Replay(ipw.VBox):
    """A slider over the applied rewrites. ``ask`` hears the two layers of an edge's dot."""

    def __init__(self, ask: Callable[[str, str], Any]) -> None:
        self._ask = ask
        self.steps: RewriteSteps | None = None
        self.view: GraphView | None = None
        self.figure: Any = None
        self._leaving: list[ipw.Widget] = []
        self.slider = ipw.IntSlider(
            description="Rewrites",
            min=0,
            max=0,
            continuous_update=False,
            style={"description_width": "initial"},
            layout={"width": "420px"},
        )
        self.slider.observe(self._moved, "value")
        self.said = ipw.HTML()
        self.place = ipw.VBox(layout={"width": "100%"})
        back = button("◀", lambda: self.step(-1), tooltip="one rewrite back")
        on = button("▶", lambda: self.step(1), tooltip="one rewrite on")
        controls = row(back, self.slider, on, self.said)
        super().__init__([title("Replay"), controls, self.place], layout={"width": "100%"})
        self.add_class("wb-replay")

    def show(self, steps: RewriteSteps) -> None:
        """Other rewrites: start with all of them made."""
        self.steps = steps
        count = len(steps.applied)
        self.slider.unobserve(self._moved, "value")
        self.slider.max = count
        self.slider.value = count
        self.slider.observe(self._moved, "value")
        self._draw()

    def step(self, by: int) -> None:
        """A step on, or back."""
        self.slider.value = min(self.slider.max, max(0, self.slider.value + by))

    def _moved(self, change: Any) -> None:
        self._draw()

    def _draw(self) -> None:
        assert self.steps is not None
        count = self.slider.value
        network = self.steps.network(count)
        view = network_graph(network)
        last = self.steps.applied[count - 1] if count else None
        boxes = [i for i, n in enumerate(view.nodes) if last and n.id in last.created]
        what = f"{last.rule} at {', '.join(last.place)}" if last else "nothing is rewritten yet"
        text = f"{count} of {len(self.steps.applied)}: {what}"
        self.said.value = f'<span class="wb-message" role="status">{text_of(text)}</span>'
        self.view = view
        box, self.figure = plot(
            network_figure(
                view,
                f"{self.steps.state.name} in {self.steps.stage.value}, rewrite by rewrite",
                "the outlined layer is the last rewrite's; a dot on an arrow asks why it is there",
                highlight=boxes,
                edge_dots=True,
            ),
            scroll_zoom=True,
        )
        for trace in self.figure.data:
            if trace.name == EDGES:
                trace.on_click(self._clicked)
        # What was shown until now is still leaving the page: it is closed the next time.
        for widget in self._leaving:
            widget.close()
        self._leaving = [w for c in self.place.children for w in within(c)]
        self.place.children = (box,)

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        if not points.point_inds or self.view is None:
            return
        a, b, _ = self.view.edges[int(trace.customdata[points.point_inds[0]])]
        self._ask(self.view.nodes[a].id, self.view.nodes[b].id)
