"""LedgerPanel: every rewrite that was tried, applied or refused with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import ipywidgets as ipw

from widgets.columns import records
from widgets.panels.base import Panel
from widgets.parts import note
from widgets.runner import Runner
from widgets.table import Table
from workbench.builder import BuildState
from workbench.records import Stage
from workbench.reports import ledger_rows
from workbench.session import Session


class LedgerPanel(Panel):
    """The ledger; ``only``: of one stage."""

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

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        rows = ledger_rows(state.log)
        if self.only is not None:
            rows = rows.query("Stage == @self.only.value").drop(columns="Stage")
        applied = sum(r["Outcome"] == "applied" for r in records(rows))
        refused = len(rows) - applied
        self.table = Table(
            rows.reset_index(drop=True), label="ledger", facets=("Outcome", "Rule"), height=340
        )
        return [
            note(f"{applied} rewrites applied, {refused} refused; a refusal carries its reason."),
            self.table,
        ]
