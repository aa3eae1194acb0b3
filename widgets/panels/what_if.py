"""WhatIf: which layers would lose how much if some tactic sources were not there."""

from __future__ import annotations

import math
from collections.abc import Callable

import ipywidgets as ipw

from widgets.columns import is_missing, records
from widgets.parts import button, note, row, title
from widgets.table import Table
from workbench.reports import sources_of, what_if_rows
from workbench.selection import Tuned

Build = Callable[[tuple[str, ...]], None]


class WhatIf(ipw.VBox):
    """A box a source; what its absence costs is read off the timings that there are.

    on_build: what the button does that builds with the ticked sources; no button without it.
    """

    def __init__(self, tuned: Tuned, *, on_build: Build | None = None) -> None:
        self.tuned = tuned
        self.boxes = {
            name: ipw.Checkbox(
                name in tuned.sources,
                description=name,
                indent=False,
                layout={"width": "auto"},
            )
            for name in sources_of(tuned)
        }
        self.total = ipw.HTML()
        self.table = Table(what_if_rows(tuned, self.sources), label="what if", height=300)
        self._place = ipw.VBox([self.table], layout={"width": "100%", "overflow": "visible"})
        controls: list[ipw.Widget] = list(self.boxes.values())
        if on_build is not None:
            controls.append(
                button(
                    "Tune with these",
                    lambda: on_build(self.sources),
                    tooltip="set_tactic_sources, and Tune again, layouts and all",
                )
            )
        heading = title("What if only these sources were allowed?")
        super().__init__(
            [heading, row(*controls), self.total, self._place],
            layout={"width": "100%", "overflow": "visible"},
        )
        for box in self.boxes.values():
            box.observe(lambda _: self.show(), "value")
        self.show()

    @property
    def sources(self) -> tuple[str, ...]:
        """The ticked ones, in their order."""
        return tuple(name for name, box in self.boxes.items() if box.value)

    def show(self) -> None:
        """Read the loss of each layer off the timings, and add it up."""
        rows = what_if_rows(self.tuned, self.sources)
        losses = [r["Loss (µs)"] for r in records(rows)]
        changed = [i for i, us in enumerate(losses) if is_missing(us) or us != 0.0]
        changed.sort(key=lambda i: -losses[i] if not is_missing(losses[i]) else -math.inf)
        self.table.rows = rows.iloc[changed].reset_index(drop=True)
        self._place.children = (self.table,) if changed else ()
        nothing = sum(map(is_missing, losses))
        others = len(changed) - nothing
        text = "" if changed else "Nothing changes: every chosen tactic is still allowed."
        if others:
            total = sum(us for us in losses if not is_missing(us))
            text = f"{others} layers run another tactic: {total:+,.1f} µs, layouts aside. "
        if nothing:
            text += f"For {nothing} nothing else was timed: the build may be refused."
        self.total.value = note(text).value
