"""MemoryPanel: which bytes of the arena each tensor holds, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import ipywidgets as ipw

from widgets.figures import memory_figure
from widgets.panels.base import Panel
from widgets.parts import note, plot, tiles
from widgets.table import Table
from workbench.builder import BuildState
from workbench.records import Stage
from workbench.reports import memory_rows


class MemoryPanel(Panel):
    """The arena of each profile, laid out at its largest shapes."""

    heading: ClassVar[str] = "Memory"
    stage: ClassVar[Stage] = Stage.MEMORY

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        parts: list[ipw.Widget] = []
        for index, memory in enumerate(state.memory):
            rows = memory_rows(memory)
            arena, total = memory.arena_bytes, memory.total_bytes
            parts.append(
                tiles(
                    [
                        (f"{arena / 1024:,.0f} KiB", "one arena"),
                        (f"{total / 1024:,.0f} KiB", "if each tensor had its own memory"),
                        (f"{len(rows)}", "inner tensors"),
                    ]
                )
            )
            if not len(rows):
                parts.append(note("No tensor lives between two steps: the arena is empty."))
                continue
            figure = memory_figure(
                rows,
                str(self.session.device),
                arena_bytes=arena,
                total_bytes=total,
                profile=index,
            )
            box, self.figure = plot(figure)
            parts += [box, Table(rows, label=f"arena of profile {index}", height=320)]
        return parts
