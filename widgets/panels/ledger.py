"""LedgerPanel: every rewrite that was tried; its remedy; replay; and why two layers are not one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import ipywidgets as ipw
import pandas as pd

from widgets.panels.base import Panel
from widgets.panels.replay import Replay
from widgets.panels.why_not import WhyNot, attempt_card
from widgets.parts import button, note, row, text_of
from widgets.runner import Runner
from widgets.table import Table
from workbench.builder import BuildState
from workbench.lab import RewriteSteps, diff_fusions
from workbench.network.remedies import edits_of
from workbench.records import Attempt, Remedy, Stage
from workbench.reports import ledger_rows
from workbench.rewrite import EdgeAnswer, FusionAnswers
from workbench.session import EditNetwork, Session

MOST_CHANGES = 5


class LedgerPanel(Panel):
    """The ledger; ``only``: of one stage.

    A row shows its attempt; a remedy's button appends its edits to the session and runs the stage
    again. Replay and "Why not fused?" are of ``only``, or of Fuse.
    """

    heading: ClassVar[str] = "Ledger"

    def __init__(
        self, session: Session, *, only: Stage | None = None, runner: Runner | None = None
    ) -> None:
        self.only = only
        super().__init__(session, runner=runner)

    @property
    def stage(self) -> Stage:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The stage whose attempts are shown; all of them need Fuse."""
        return self.only or Stage.FUSE

    @property
    def reruns(self) -> Stage:  # pyright: ignore[reportIncompatibleVariableOverride]
        """An edit shows at once what it changed."""
        return self.stage

    def setup(self) -> None:
        self.attempts: tuple[Attempt, ...] = ()
        self.table: Table | None = None
        self.summary = note("")
        self.edited = ipw.VBox()
        self.card = ipw.VBox()
        self._answers: FusionAnswers | None = None
        self._remedies: list[tuple[Remedy, int, BuildState | None]] = []
        self.replay = Replay(self._verdict, self._ask_clicked, self.find)
        self.why_not = WhyNot(self._answer, self.do, self._told, self.stage)
        self.sides = ipw.Box()
        self.sides.add_class("wb-sides")

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        self.attempts = tuple(
            a for a in state.log.attempts if self.only is None or a.stage is self.only
        )
        table = self._filled_table(self._rows(state))
        self.summary.value = note(_counts(self.attempts)).value
        self.edited.children = tuple(self._last_edit(state))
        parts: list[ipw.Widget] = [self.summary, self.edited, table, self.card]
        if self.stage in (Stage.FOLD, Stage.FUSE):
            steps = RewriteSteps(state, self.stage)
            attempts = state.log[self.stage].attempts
            self._answers = FusionAnswers(state.networks[self.stage], attempts)
            self.replay.show(steps)
            self.why_not.offer(steps.edges)
            self.sides.children = (self.replay, self.why_not)
            parts.append(self.sides)
        self._show_selected()
        return parts

    def lasting(self) -> Sequence[ipw.Widget]:
        made = (self.table, self.summary, self.edited, self.card, self.sides)
        return [w for w in (*made, self.why_not, self.replay) if w is not None]

    # -- what the controls do -------------------------------------------------------------
    def choose(self, index: int) -> None:
        """Show one attempt below the table, by its row."""
        assert self.table is not None
        self.table.selected = [index]

    def find(self, layer: str) -> None:
        """Show the attempts at one layer alone."""
        assert self.table is not None
        self.table.query = f'"{layer}"'

    def ask(self, producer: str, reader: str) -> EdgeAnswer | None:
        """Why two layers, one of which reads the other, are not one."""
        return self.why_not.show(producer, reader)

    def do(self, remedy: Remedy, stage: Stage) -> None:
        """Append a remedy's edits to the session, before the stage that they are for."""
        before, actions = self.session.state(), self.session.actions
        edits = tuple(EditNetwork(edit, stage) for edit in edits_of(remedy))
        self._remedies = [(remedy, len(actions) + len(edits), before)]
        self.request(*edits)

    def undo(self) -> None:
        """Take the last edit back, with those of the same remedy, and run the stage again."""
        known = self._known_remedy()
        for _ in range(len(known.edits) if known is not None else 1):
            self.session.undo()
        self._remedies = []
        self.requested()

    # -- inner ----------------------------------------------------------------------------
    def _rows(self, state: BuildState) -> pd.DataFrame:
        """The table: within one stage, rows count from 1."""
        rows = ledger_rows(state.log)
        if self.only is not None:
            rows = rows.query("Stage == @self.only.value").drop(columns="Stage")
        rows = rows.assign(Remedy=rows["Edit"].where(rows["Edit"] != "", rows["Remedy"]))
        rows = rows.drop(columns=["Edit", "Created"]).reset_index(drop=True)
        rows["#"] = range(1, len(rows) + 1)
        return rows

    def _filled_table(self, rows: pd.DataFrame) -> Table:
        if self.table is not None:
            self.table.rows = rows
            return self.table
        self.table = Table(
            rows,
            label="ledger",
            selection="one",
            facets=("Outcome", "Rule", "Code"),
            height=340,
        )
        self.table.observe(lambda change: self._show_selected(), "selected")
        return self.table

    def _known_remedy(self) -> Remedy | None:
        """The remedy whose edits are the session's last actions."""
        for remedy, count, _ in self._remedies:
            last = self.session.actions[-len(remedy.edits) :]
            edits = tuple(a.edit for a in last if isinstance(a, EditNetwork))
            if count == len(self.session.actions) and edits == remedy.edits:
                return remedy
        return None

    def _last_edit(self, state: BuildState) -> list[ipw.Widget]:
        """The edit that can be taken back, and what it changed."""
        last = self.session.actions[-1] if self.session.actions else None
        if not isinstance(last, EditNetwork):
            return []
        remedy = self._known_remedy()
        what = remedy.title if remedy is not None else str(last.edit)
        press = button("Take it back", self.undo, tooltip="undo the edit, and run the stage again")
        lines = [f'<div class="wb-attempt">Last edit: <b>{text_of(what)}</b></div>']
        if remedy is not None and self.stage is Stage.FUSE:
            lines += self._changes(state)
        card = ipw.VBox([row(ipw.HTML("".join(lines)), press)])
        card.add_class("wb-card")
        return [card]

    def _changes(self, state: BuildState) -> list[str]:
        """What became of which layers, as HTML."""
        before = self._remedies[0][2]
        if before is None or Stage.FUSE not in before.networks:
            return []
        found = diff_fusions(before, state)
        if not found:
            return ['<div class="wb-note">It changed no fusion.</div>']
        said = [
            f"<div>{text_of(', '.join(d.before))} → {text_of(', '.join(d.after))}</div>"
            for d in found[:MOST_CHANGES]
        ]
        more = len(found) - len(said)
        return [*said, f'<div class="wb-note">and {more} more</div>'] if more else said

    def _answer(self, producer: str, reader: str) -> EdgeAnswer:
        assert self._answers is not None
        return self._answers.ask(producer, reader)

    def _ask_clicked(self, producer: str, reader: str) -> None:
        self.ask(producer, reader)

    def _verdict(self, producer: str, reader: str) -> str:
        """For the dot on an arrow."""
        return self._answer(producer, reader).verdict

    def _told(self, answer: EdgeAnswer) -> None:
        self.replay.outline((answer.layer or answer.producer, answer.layer or answer.reader))

    def _show_selected(self) -> None:
        chosen = self.table.selected if self.table is not None else []
        shown = [self.attempts[i] for i in chosen if i < len(self.attempts)]
        self.card.children = tuple(self._card(a) for a in shown)

    def _card(self, attempt: Attempt) -> ipw.VBox:
        if attempt.stage is not self.stage or self.replay.steps is None:
            return attempt_card(attempt, self.do)
        show = button("Show it in the graph", lambda: self.replay.go_to(attempt))
        return attempt_card(attempt, self.do, row(show))


def _counts(attempts: Sequence[Attempt]) -> str:
    """How many of each outcome, and how many could be mended."""
    found = Counter(a.outcome for a in attempts)
    names = {"applied": "applied", "refused": "refused", "near miss": "near misses"}
    counts = [f"{found[k]} {name}" for k, name in names.items()]
    if found["quarantined"]:
        counts.append(f"{found['quarantined']} quarantined: the rule is wrong there")
    mendable = sum(a.remedy is not None for a in attempts)
    edits = f"{mendable} with an edit that would let {'it' if mendable == 1 else 'them'} happen"
    return f"{', '.join(counts)}; {edits}. Choose a row to see it."
