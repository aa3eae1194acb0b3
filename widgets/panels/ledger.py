"""LedgerPanel: every rewrite that was tried; its remedy; replay; and why two layers are not one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import ipywidgets as ipw

from widgets.panels.base import Panel
from widgets.panels.replay import Replay
from widgets.panels.why_not import WhyNot, attempt_card
from widgets.parts import button, note
from widgets.runner import Runner
from widgets.table import Table
from workbench.builder import BuildState
from workbench.lab import RewriteSteps
from workbench.network.remedies import edits_of
from workbench.records import Attempt, Remedy, Stage
from workbench.reports import ledger_rows
from workbench.rewrite import EdgeAnswer, why_not_fused
from workbench.session import EditNetwork, Session


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
        self.card = ipw.VBox()
        self.back = button("Take the last edit back", self.undo)
        self.replay = Replay(self.ask)
        self.why_not = WhyNot(self._answer, self.do)
        self.sides = ipw.Box()
        self.sides.add_class("wb-sides")

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        self.attempts = tuple(
            a for a in state.log.attempts if self.only is None or a.stage is self.only
        )
        rows = ledger_rows(state.log)
        if self.only is not None:
            rows = rows.query("Stage == @self.only.value").drop(columns="Stage")
        rows = rows.assign(Remedy=rows["Edit"].where(rows["Edit"] != "", rows["Remedy"]))
        rows = rows.drop(columns=["Edit", "Created"]).reset_index(drop=True)
        if self.table is None:
            self.table = Table(
                rows,
                label="ledger",
                selection="one",
                facets=("Outcome", "Rule", "Code"),
                height=340,
            )
            self.table.observe(lambda change: self._show_selected(), "selected")
        else:
            self.table.rows = rows
        self.summary.value = note(_counts(self.attempts)).value
        self._show_selected()
        edits = [a for a in self.session.actions[-1:] if isinstance(a, EditNetwork)]
        self.back.layout.display = "" if edits else "none"
        for action in edits:
            self.back.description = f"Take the last edit back ({type(action.edit).__name__})"
        # Always the same parts: a page that makes its controls anew flickers.
        parts: list[ipw.Widget] = [self.summary, self.back, self.table, self.card]
        if self.stage in (Stage.FOLD, Stage.FUSE):
            steps = RewriteSteps(state, self.stage)
            self.why_not.offer(steps.edges)
            self.replay.show(steps)
            self.sides.children = (self.replay, self.why_not)
            parts.append(self.sides)
        return parts

    def lasting(self) -> Sequence[ipw.Widget]:
        own = (self.table, self.summary, self.back, self.card)
        made = (*own, self.sides, self.why_not, self.replay)
        return [w for w in made if w is not None]

    # -- what the controls do -------------------------------------------------------------
    def choose(self, index: int) -> None:
        """Show one attempt below the table, by its row."""
        assert self.table is not None
        self.table.selected = [index]

    def ask(self, producer: str, reader: str) -> EdgeAnswer:
        """Why two layers, one of which reads the other, are not one."""
        return self.why_not.ask(producer, reader)

    def do(self, remedy: Remedy, stage: Stage) -> None:
        """Append a remedy's edits to the session, before the stage that they are for."""
        self.request(*(EditNetwork(edit, stage) for edit in edits_of(remedy)))

    def undo(self) -> None:
        """Take the last edit back, and run the stage again."""
        self.session.undo()
        self.requested()

    # -- inner ----------------------------------------------------------------------------
    def _answer(self, producer: str, reader: str) -> EdgeAnswer:
        state = self.session.state()
        assert state is not None
        attempts = state.log[self.stage].attempts
        return why_not_fused(state.networks[self.stage], attempts, producer, reader)

    def _show_selected(self) -> None:
        chosen = self.table.selected if self.table is not None else []
        shown = [self.attempts[i] for i in chosen if i < len(self.attempts)]
        self.card.children = tuple(attempt_card(a, self.do) for a in shown)


def _counts(attempts: Sequence[Attempt]) -> str:
    applied = sum(a.applied for a in attempts)
    near = sum(a.missing > 0 for a in attempts)
    mendable = sum(a.remedy is not None for a in attempts)
    return (
        f"{applied} rewrites applied, {len(attempts) - applied - near} refused, {near} near "
        f"misses; {mendable} with an edit that would let them happen. Choose a row to see it."
    )
