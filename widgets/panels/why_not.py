"""WhyNot: for any edge of the graph, why its layers are two, and the edit that would join them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets as ipw

from widgets.parts import Code, button, note, row, text_of, title
from workbench.errors import NetworkError
from workbench.lab import Edge
from workbench.network.remedies import MarkOutput
from workbench.records import Attempt, Remedy, Stage
from workbench.rewrite import EdgeAnswer

Do = Callable[[Remedy, Stage], None]
MOST_ANSWERS = 6
ROWS = 7
"""Edges of the list that are seen at once."""


class WhyNot(ipw.VBox):
    """Choose an edge; ``show(producer, reader)`` does the same.

    ask: why the two are not one. do: hears a remedy's button. told: hears of each answer.
    """

    def __init__(
        self,
        ask: Callable[[str, str], EdgeAnswer],
        do: Do,
        told: Callable[[EdgeAnswer], None],
        stage: Stage,
    ) -> None:
        self._ask, self._do, self._told, self._stage = ask, do, told, stage
        self._edges: tuple[Edge, ...] = ()
        self._labels: dict[Edge, str] = {}
        self.edge: Edge | None = None
        self.answer: EdgeAnswer | None = None
        self.words = ipw.Text(
            placeholder="filter edges: a layer, a tensor, or a code",
            layout={"width": "100%"},
            continuous_update=True,
        )
        self.words.observe(self._filtered, "value")
        self.chooser = ipw.Select(options=[], value=None, rows=ROWS, layout={"width": "100%"})
        self.chooser.observe(self._changed, "value")
        self.result = ipw.VBox()
        said = note("Click a dot on an arrow, or choose an edge here.")
        super().__init__([title("Why not fused?"), said, self.words, self.chooser, self.result])
        self.add_class("wb-why")

    def offer(self, edges: Sequence[Edge]) -> None:
        """The edges to choose from; the chosen one stays, with its new answer."""
        self._edges = tuple(edges)
        self._labels = {e: f"{e}   · {_short(self._ask(e.producer, e.reader))}" for e in edges}
        self._list()
        if self.answer is not None:
            self.show(self.answer.producer, self.answer.reader)

    def show(self, producer: str, reader: str) -> EdgeAnswer | None:
        """Answer for an edge, whether it is in the list or not."""
        named = [e for e in self._edges if (e.producer, e.reader) == (producer, reader)]
        self.edge = named[0] if named else None
        if self.edge is not None and self.edge not in dict(self.chooser.options).values():
            self.words.value = ""
        with self._quietly():
            self.chooser.value = self.edge
        try:
            self.answer = self._ask(producer, reader)
        except NetworkError as error:
            self.answer, self.result.children = None, (note(str(error)),)
            return None
        self.result.children = tuple(self._drawn(self.answer))
        self._told(self.answer)
        return self.answer

    # -- inner ----------------------------------------------------------------------------
    @contextmanager
    def _quietly(self) -> Generator[None]:
        """The list follows without being heard."""
        self.chooser.unobserve(self._changed, "value")
        yield
        self.chooser.observe(self._changed, "value")

    def _filtered(self, change: Any) -> None:
        self._list()

    def _list(self) -> None:
        """The edges with every one of the words, and the chosen one still chosen."""
        words = self.words.value.lower().split()
        shown = [
            (label, e)
            for e, label in self._labels.items()
            if all(w in f"{label} {e.tensor}".lower() for w in words)
        ]
        with self._quietly():
            self.chooser.options = shown
            self.chooser.value = self.edge if self.edge in dict(shown).values() else None

    def _changed(self, change: Any) -> None:
        edge = change["new"]
        if edge is not None:
            self.show(edge.producer, edge.reader)

    def _drawn(self, answer: EdgeAnswer) -> list[ipw.Widget]:
        ends = f"<b>{text_of(answer.producer)}</b> and <b>{text_of(answer.reader)}</b>"
        if answer.layer:
            by = (
                f": <b>{text_of(answer.attempts[0].rule)}</b> joined them"
                if answer.attempts
                else ""
            )
            said = f"{ends} are one layer, <b>{text_of(answer.layer)}</b>{by}."
            return [_said(said, good=True), *self._split()]
        shown = answer.attempts[:MOST_ANSWERS]
        more = len(answer.attempts) - len(shown)
        rest = [note(f"{more} more attempts concern them; the table has them all.")] if more else []
        return [
            _said(f"{ends} are two layers."),
            *(attempt_card(a, self._do) for a in shown),
            *rest,
        ]

    def _split(self) -> list[ipw.Widget]:
        """A button that breaks the fusion, to see what does."""
        if self.edge is None or self._stage is not Stage.FUSE:
            return []
        tensor = self.edge.tensor
        apart = Remedy(f"mark '{tensor}' as an output", (MarkOutput(tensor),))
        press = button(
            f"Break it: {apart.title}",
            lambda: self._do(apart, self._stage),
            tooltip="an output must be in memory: see what becomes of the fusion",
        )
        return [row(press)]


def attempt_card(attempt: Attempt, do: Do, *more: ipw.Widget) -> ipw.VBox:
    """One attempt: its rule, what failed, and its remedy's button with the Python it stands for."""
    code = f'<code class="wb-code-name">{text_of(attempt.code)}</code>' if attempt.code else ""
    mark = "wb-good" if attempt.applied else "wb-bad"
    place = ", ".join(attempt.place)
    said = attempt.reason or attempt.detail
    text = (
        f'<div class="wb-attempt"><b>{text_of(attempt.rule)}</b> '
        f'<span class="{mark}">{attempt.outcome}</span> {code} '
        f'<span class="wb-place">at {text_of(place)}</span><div>{text_of(said)}</div></div>'
    )
    parts: list[ipw.Widget] = [ipw.HTML(text), *more]
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
    parts: list[ipw.Widget] = [row(press)]
    if not remedy.keeps_meaning:
        parts.append(note("The network will then compute something else."))
    return [*parts, Code(code=remedy.code)]


def _said(text: str, *, good: bool = False) -> ipw.HTML:
    kind = "wb-answer wb-yes" if good else "wb-answer"
    return ipw.HTML(f'<div class="{kind}" role="status">{text}</div>')


def _short(answer: EdgeAnswer) -> str:
    """An answer in a word or two."""
    if answer.layer:
        return "one layer"
    return f"{answer.attempts[0].code}{', an edit joins them' if answer.remedies else ''}"
