"""TacticPanel: every layer's times, every tactic that was tried, and what a build may try."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import ipywidgets as ipw

from widgets.panels.base import Panel
from widgets.panels.tactic_view import TacticView
from widgets.panels.what_if import WhatIf
from widgets.parts import dropdown, row
from workbench.builder import BuildState
from workbench.config import MemoryPoolType
from workbench.records import Stage
from workbench.session import SetOption, SetWorkspace
from workbench.tactics.workspace import size_text

WORKSPACES = (*(n << 20 for n in (1024, 64, 16, 4, 1)), 64 << 10, 4 << 10, 0)
"""Bytes that are offered as limits of the workspace."""
LEVELS = "0: first that fits, nothing timed", "1", "2", "3: usual", "4", "5: every tactic"


class TacticPanel(Panel):
    """Times that decided, layer by layer: chosen, runner-up, COMPOSED; refusals with reasons."""

    heading: ClassVar[str] = "Tactics"
    stage: ClassVar[Stage] = Stage.TUNE

    def setup(self) -> None:
        self.view: TacticView | None = None
        self._showing = False
        levels = [(text, level) for level, text in enumerate(LEVELS)]
        self.level = dropdown("Optimization level", levels, 3, self._level, width="380px")
        self.space = dropdown("Workspace limit", (), None, self._space, width="240px")
        self._limits = row(self.level, self.space)

    def lasting(self) -> Sequence[ipw.Widget]:
        return (self._limits,)

    def waiting(self) -> Sequence[ipw.Widget]:
        self._show_limits()
        return [self._limits, *super().waiting()]

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        assert state.tuned is not None
        layer = self.view.layer if self.view is not None else ""
        self.view = TacticView(state.tuned, str(self.session.device), layer=layer)
        self.what_if = WhatIf(state.tuned, on_build=self.set_sources)
        self._show_limits()
        return [self._limits, self.view, self.what_if]

    # -- what the controls do -------------------------------------------------------------
    def set_level(self, level: int) -> None:
        """Ask for another optimization level; Tune runs again when it is asked to."""
        self.request(SetOption("builder_optimization_level", level))

    def set_workspace(self, nbytes: int) -> None:
        """Ask for another limit of the tactics' scratch memory, in bytes."""
        self.request(SetWorkspace(nbytes))

    def set_sources(self, sources: tuple[str, ...]) -> None:
        """Allow only these tactic sources, and tune again: what was timed is in the cache."""
        self.request(SetOption("tactic_sources", sources))
        self.runner.rebuild(Stage.TUNE)

    def _show_limits(self) -> None:
        """Set what bounds the search, level and workspace, to what is asked for now."""
        config = self.session.config
        now = config.get_memory_pool_limit(MemoryPoolType.WORKSPACE)
        self._showing = True
        self.level.value = config.builder_optimization_level
        self.space.options = [(size_text(n), n) for n in sorted({*WORKSPACES, now}, reverse=True)]
        self.space.value = now
        self._showing = False

    def _level(self, level: int) -> None:
        if not self._showing:
            self.set_level(level)

    def _space(self, nbytes: int) -> None:
        if not self._showing:
            self.set_workspace(nbytes)
