"""ProfilePanel: the smallest, the tuned-for and the largest value of every dynamic size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import ipywidgets as ipw

from widgets.figures import sizes_figure
from widgets.panels.base import Panel
from widgets.parts import button, note, plot, row, text_of, tiles
from workbench.builder import BuildState
from workbench.config import OptimizationProfile
from workbench.errors import WorkbenchError
from workbench.records import Stage
from workbench.session import SetProfile

COLUMNS = ("min", "opt", "max")


class ProfilePanel(Panel):
    """An editor of the optimization profile. What it suggests is used only when confirmed."""

    heading: ClassVar[str] = "Profiles"
    stage: ClassVar[Stage] = Stage.PARSE
    reruns: ClassVar[Stage | None] = Stage.PROFILES

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        network = state.networks[Stage.PARSE]
        self.symbols = network.symbols
        if not self.symbols:
            return [note("Every size of this network is static: there is nothing to choose.")]
        given = self.session.config.optimization_profiles
        self.in_use = given[0] if given else None
        profile = self.in_use or _profile(self.session.suggested_profile())
        bound = [profile.bindings(network, k) for k in range(3)]
        self.fields = {
            s: tuple(_field(name, f"{name} of {s}", bound[k][s]) for k, name in enumerate(COLUMNS))
            for s in self.symbols
        }
        for fields in self.fields.values():
            for f in fields:
                f.observe(lambda _: self.check(), "value")
        self.status = ipw.HTML()
        self.use = button("Use these sizes", self.confirm, primary=True)
        self.band = ipw.VBox(layout={"width": "100%"})
        facts = [(str(t.type), f"input {t.name}") for t in network.inputs]
        self.check()
        return [
            tiles(facts),
            note(
                "A dynamic size needs a range: tactics are checked at min, opt and max, timed at "
                "opt, and memory is planned at max. A shape outside is refused at run time."
            ),
            *self._editor(),
            row(self.use, self.status),
            self.band,
        ]

    # -- what the controls do -------------------------------------------------------------
    def set_sizes(self, symbol: str, low: int, mid: int, high: int) -> None:
        """Type values into the editor."""
        for f, value in zip(self.fields[symbol], (low, mid, high), strict=True):
            f.value = value

    def proposed(self) -> tuple[SetProfile, ...]:
        """The Actions for what the editor holds. Raises ConfigError."""
        sizes = {s: tuple(int(f.value) for f in fields) for s, fields in self.fields.items()}
        return self.session.profile_of({s: (v[0], v[1], v[2]) for s, v in sizes.items()})

    def confirm(self) -> None:
        """Take the editor's sizes."""
        if self.check():
            self.request(*self.proposed())

    def check(self) -> bool:
        """Say whether the editor's sizes are valid, and whether they are in use."""
        try:
            actions = self.proposed()
        except WorkbenchError as error:
            self.use.disabled = True
            self.status.value = f'<span class="wb-message" role="alert">✗ {text_of(error)}</span>'
            return False
        used = self.in_use is not None and _profile(actions).shapes == self.in_use.shapes
        self.use.disabled = used
        text = "in use" if used else "edited, not yet used"
        if self.in_use is None:
            text = "a suggestion: confirm it or change it; nothing is used until you do"
        self.status.value = f'<span class="wb-message" role="status">{text}</span>'
        self._draw_band()
        return True

    def _draw_band(self) -> None:
        ranges = [
            [{s: int(f[k].value) for s, f in self.fields.items()} for k in range(len(COLUMNS))]
        ]
        old = self.band.children
        box, self.figure = plot(sizes_figure(ranges, str(self.session.device)))
        self.band.children = (box,)
        for widget in old:
            widget.close()

    def _editor(self) -> list[ipw.Widget]:
        """A line a size: its name, min, opt and max."""
        return [
            row(ipw.HTML(f"<code>{text_of(s)}</code>"), *fields)
            for s, fields in self.fields.items()
        ]


def _field(name: str, label: str, value: int) -> ipw.BoundedIntText:
    return ipw.BoundedIntText(
        value=value,
        min=0,
        max=1 << 30,
        description=name,
        tooltip=label,
        style={"description_width": "initial"},
        layout={"width": "130px"},
    )


def _profile(actions: Sequence[SetProfile]) -> OptimizationProfile:
    profile = OptimizationProfile()
    for a in actions:
        profile.set_shape(a.input, a.min, a.opt, a.max)
    return profile
