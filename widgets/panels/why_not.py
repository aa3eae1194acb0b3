"""WhyNot: for any edge of the graph, why its layers are two, and the edit that would join them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets as ipw

from widgets.parts import Code, button, row, text_of, title
from workbench.lab import Edge
from workbench.records import Attempt, Remedy, Stage
from workbench.rewrite import EdgeAnswer

Do = Callable[[Remedy, Stage], None]
MOST_ANSWERS = 6
NO_EDGE = ("(choose an edge, or click a dot on an arrow)", Edge("", "", ""))


class WhyNot(ipw.VBox):
    """Choose an edge; ``ask(producer, reader)`` does the same. ``do`` hears a remedy's button."""

    def __init__(self, ask: Callable[[str, str], EdgeAnswer], do: Do) -> None:
        self._ask, self._do = ask, do
        self.edge = NO_EDGE[1]
        self._edges: tuple[Edge, ...] = ()
        self.answer: EdgeAnswer | None = None
        self.chooser = ipw.Dropdown(
            description="Edge", options=[NO_EDGE], value=NO_EDGE[1], layout={"width": "100%"}
        )
        self.chooser.style.description_width = "initial"
        self.chooser.observe(self._changed, "value")
        self.result = ipw.VBox()
        super().__init__([title("Why not fused?"), self.chooser, self.result])
        self.add_class("wb-why")

    def offer(self, edges: Sequence[Edge]) -> None:
        """The edges to choose from; the chosen one stays, with its new answer."""
        kept = next((e for e in edges if e == self.edge), NO_EDGE[1])
        with self._quietly():
            self.chooser.options = [NO_EDGE, *((f"{e}   ({e.tensor})", e) for e in edges)]
            self.chooser.value = kept
        self._edges = tuple(edges)
        self._chosen(kept)

    def ask(self, producer: str, reader: str) -> EdgeAnswer:
        """Answer for an edge, whether it is in the list or not."""
        named = [e for e in self._edges if (e.producer, e.reader) == (producer, reader)]
        self.edge = named[0] if named else NO_EDGE[1]
        with self._quietly():
            self.chooser.value = self.edge
        self.answer = self._ask(producer, reader)
        self.result.children = tuple(self._drawn(self.answer))
        return self.answer

    @contextmanager
    def _quietly(self) -> Generator[None]:
        """The chooser follows without being heard."""
        self.chooser.unobserve(self._changed, "value")
        yield
        self.chooser.observe(self._changed, "value")

    def _changed(self, change: Any) -> None:
        self._chosen(change["new"])

    def _chosen(self, edge: Edge) -> None:
        self.edge = edge
        if edge == NO_EDGE[1]:
            self.answer, self.result.children = None, ()
        else:
            self.ask(edge.producer, edge.reader)

    def _drawn(self, answer: EdgeAnswer) -> list[ipw.Widget]:
        ends = f"<b>{text_of(answer.producer)}</b> and <b>{text_of(answer.reader)}</b>"
        if answer.layer:
            by = f": {text_of(answer.attempts[0].rule)} joined them" if answer.attempts else ""
            said = f"{ends} are one layer, <b>{text_of(answer.layer)}</b>{by}."
            return [ipw.HTML(f'<div class="wb-answer wb-yes" role="status">{said}</div>')]
        head = ipw.HTML(f'<div class="wb-answer" role="status">{ends} are two layers.</div>')
        shown = answer.attempts[:MOST_ANSWERS]
        return [head, *(attempt_card(a, self._do) for a in shown)]


def attempt_card(attempt: Attempt, do: Do) -> ipw.VBox:
    """One attempt: its rule, what failed, and its remedy's button with the Python it stands for."""
    code = f'<code class="wb-code-name">{text_of(attempt.code)}</code>' if attempt.code else ""
    near = " · near miss" if attempt.missing == 1 else ""
    outcome = "applied" if attempt.applied else f"refused{near}"
    mark = "wb-good" if attempt.applied else "wb-bad"
    said = attempt.reason or attempt.detail
    text = (
        f'<div class="wb-attempt"><b>{text_of(attempt.rule)}</b> '
        f'<span class="{mark}">{outcome}</span> {code}<div>{text_of(said)}</div></div>'
    )
    parts: list[ipw.Widget] = [ipw.HTML(text)]
    remedy = attempt.remedy
    if remedy is not None:
        parts += _remedy(remedy, attempt.stage, do)
    elif attempt.refusal is not None and attempt.refusal.remedy:
        words = text_of(attempt.refusal.remedy)
        parts.append(ipw.HTML(f'<div class="wb-note">What would change it: {words}.</div>'))
    card = ipw.VBox(parts)
    card.add_class("wb-card")
    return card


def _remedy(remedy: Remedy, stage: Stage, do: Do) -> list[ipw.Widget]:
    press = button(
        f"Do it: {remedy.title}",
        lambda: do(remedy, stage),
        tooltip=f"edit the network before {stage.value}, and run {stage.value} again",
        primary=True,
    )
    warning = "" if remedy.keeps_meaning else "The network will then compute something else."
    return [row(press, ipw.HTML(f'<span class="wb-note">{warning}</span>')), Code(code=remedy.code)]
