"""Replay: the network after any number of a stage's rewrites, with the last one outlined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets as ipw

from widgets.figures import before_after_figure, network_figure
from widgets.figures.arrows import EDGES
from widgets.figures.graph import set_highlight, show_boxes
from widgets.panels.base import within
from widgets.parts import button, plot, row, text_of, title
from workbench.lab import RewriteSteps
from workbench.records import Attempt
from workbench.reports import GraphView, network_graph

AFTER, BOTH = "after it", "before and after it"
LEGEND = "green dots end up in one layer, orange ones would with an edit, white ones stay apart"


class Replay(ipw.VBox):
    """A slider over the applied rewrites.

    verdict: of two layers, a key of ``figures.arrows.DOTS``. ``ask`` hears the two layers of an
    arrow's dot, ``choose`` the layer of a box.
    """

    def __init__(
        self,
        verdict: Callable[[str, str], str],
        ask: Callable[[str, str], Any],
        choose: Callable[[str], Any],
    ) -> None:
        self._verdict, self._ask, self._choose = verdict, ask, choose
        self.steps: RewriteSteps | None = None
        self.views: tuple[GraphView, ...] = ()
        self.figure: Any = None
        self._last: tuple[ipw.Widget, ...] = ()
        self.slider = ipw.IntSlider(
            description="Rewrite",
            min=0,
            max=0,
            continuous_update=False,
            style={"description_width": "initial"},
            layout={"width": "300px"},
        )
        self.mode = ipw.ToggleButtons(
            options=[AFTER, BOTH], value=AFTER, style={"button_width": "auto"}
        )
        for control in (self.slider, self.mode):
            control.observe(self._moved, "value")
        self.said = ipw.HTML()
        self.place = ipw.VBox(layout={"width": "100%"})
        back = button("◀", lambda: self.step(-1), tooltip="one rewrite back")
        on = button("▶", lambda: self.step(1), tooltip="one rewrite on")
        controls = row(back, self.slider, on, self.mode)
        super().__init__([title("Replay"), controls, self.said, self.place])
        self.layout.width = "100%"
        self.add_class("wb-replay")

    @property
    def view(self) -> GraphView:
        """The network after the rewrite at hand."""
        return self.views[-1]

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

    def go_to(self, attempt: Attempt) -> None:
        """The rewrite itself if it was made; else all of them, with its layers outlined."""
        assert self.steps is not None
        if attempt.applied:
            self.slider.value = self.steps.applied.index(attempt) + 1
        else:
            self.slider.value = self.slider.max
            self.outline(attempt.place)

    def outline(self, layers: Sequence[str]) -> None:
        """Outline the layers of these names, wherever they are shown."""
        boxes = [_boxes(view, layers) for view in self.views]
        set_highlight(self.figure, boxes)
        show_boxes(self.figure, boxes)

    # -- inner ----------------------------------------------------------------------------
    def _moved(self, change: Any) -> None:
        self._draw()

    def _draw(self) -> None:
        assert self.steps is not None
        count = self.slider.value
        last = self.steps.applied[count - 1] if count else None
        self.said.value = f'<div class="wb-message" role="status">{self._sentence(last)}</div>'
        after = self.steps.network(count)
        name = f"{self.steps.state.name} after {_rewrites(count)}"
        if last is not None and self.mode.value == BOTH:
            self.views = (network_graph(self.steps.network(count - 1)), network_graph(after))
            figure = before_after_figure(
                *self.views,
                f"{self.steps.state.name}: rewrite {count}",
                LEGEND,
                highlight=(_boxes(self.views[0], last.place), _boxes(self.view, last.created)),
                edge_dots=(self._dots(self.views[0]), self._dots(self.view)),
            )
        else:
            self.views = (network_graph(after),)
            boxes = _boxes(self.view, last.created) if last else ()
            figure = network_figure(
                self.view, name, LEGEND, highlight=boxes, edge_dots=self._dots(self.view)
            )
        box, self.figure = plot(figure, scroll_zoom=True)
        self._listen()
        # What was shown just now is still leaving the page; what was before it is gone.
        for widget in self._last:
            widget.close()
        self._last = (*within(self.place.children[0]),) if self.place.children else ()
        self.place.children = (box,)

    def _sentence(self, last: Attempt | None) -> str:
        assert self.steps is not None
        total = len(self.steps.applied)
        if last is None:
            return f"0 of {total}: nothing is rewritten yet"
        place = ", ".join(last.place)
        became = ", ".join(last.created)
        end = f" → {became}" if became and became != place else ""
        return (
            f"{self.slider.value} of {total}: <b>{text_of(last.rule)}</b> at {text_of(place + end)}"
        )

    def _dots(self, view: GraphView) -> Mapping[int, str]:
        """The verdict on every arrow between two layers."""
        nodes = view.nodes
        return {
            i: self._verdict(nodes[a].id, nodes[b].id)
            for i, (a, b, _) in enumerate(view.edges)
            if nodes[a].kind != "Input" and nodes[b].kind != "Output"
        }

    def _listen(self) -> None:
        for trace in self.figure.data:
            side = 1 if trace.xaxis == "x2" else 0
            if trace.name == EDGES:
                trace.on_click(partial(self._dot_clicked, side))
            elif trace.customdata is not None:
                trace.on_click(partial(self._box_clicked, side))

    def _dot_clicked(self, side: int, trace: Any, points: Any, state: Any) -> None:
        if points.point_inds:
            view = self.views[side]
            a, b, _ = view.edges[int(trace.customdata[points.point_inds[0]])]
            self._ask(view.nodes[a].id, view.nodes[b].id)

    def _box_clicked(self, side: int, trace: Any, points: Any, state: Any) -> None:
        if points.point_inds:
            found = self.views[side].nodes[int(trace.customdata[points.point_inds[0]])]
            if found.kind not in ("Input", "Output"):
                self._choose(found.id)


def _boxes(view: GraphView, layers: Sequence[str]) -> list[int]:
    """The boxes of layers with these names, or that stand for model nodes of these names."""
    wanted = set(layers)
    named = [i for i, n in enumerate(view.nodes) if n.id in wanted]
    return named or [i for i, n in enumerate(view.nodes) if wanted & set(n.origin)]


def _rewrites(count: int) -> str:
    return f"{count} rewrite{'' if count == 1 else 's'}"
