"""CalibrationPanel: the data, the calibrator, and each tensor's histogram with its clip line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

from widgets.panels.base import Panel, within
from widgets.panels.clip import ClipControl
from widgets.parts import button, dropdown, note, row
from widgets.runner import Failure
from widgets.table import Table
from workbench.builder import BuildState
from workbench.calibration import CalibrationResult, scale_threshold
from workbench.calibration.data import RANDOM
from workbench.config import Calibrator
from workbench.errors import WorkbenchError
from workbench.lab import ClipEditor, Clipped, Finding, range_findings
from workbench.network import NetworkDefinition
from workbench.records import Stage
from workbench.reports import calibration_rows
from workbench.session import SetCalibrator, SetOption, SetThreshold

OFF = "off"
ALPHAS = (OFF, 0.25, 0.5, 0.75)
"""Choices of smooth scaling: how much moves into the weights."""


class CalibrationPanel(Panel):
    """Ranges of the tensors that INT8 would quantize, from representative data."""

    heading: ClassVar[str] = "Calibration"
    stage: ClassVar[Stage] = Stage.CALIBRATE
    reruns: ClassVar[Stage | None] = Stage.CALIBRATE

    def setup(self) -> None:
        self.tensor = ""
        self.table: Table | None = None
        self._editor: tuple[NetworkDefinition, ClipEditor] | None = None
        self._showing = False
        self._make_choices()
        self.path = ipw.Text(
            placeholder="an npz with one array an input",
            description="Data",
            style={"description_width": "initial"},
            layout={"width": "320px"},
        )

    def lasting(self) -> Sequence[ipw.Widget]:
        made = (self.path, self._choices)
        return made if self.table is None else (self.table, *made)

    def waiting(self) -> Sequence[ipw.Widget]:
        return [*super().waiting(), *self._data_controls()]

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        result = state.calibration
        if result is None:
            text = "Nothing was calibrated: there is no data, and no layer is requested in INT8."
            return [note(text), *self._data_controls()]
        self.result, self._built = result, state
        names = list(result.ranges)
        if self.tensor not in names:
            most = sorted(names, key=lambda n: -result.ranges[n].clipped_share)
            self.tensor = most[0] if most else ""
        self._show_choices(result)
        table = self._filled_table(result)
        self.picture = ipw.VBox(layout={"width": "100%"})
        if names:
            self.show_tensor(self.tensor)
        digest = result.digest[:16]
        return [
            note(
                f"{result.samples} samples ({result.label or 'unnamed data'}, SHA-256 {digest}…). "
                "Values beyond the clip line become ±127; the step between stored values is the "
                "scale."
            ),
            *self._findings(state),
            self._choices,
            self.picture,
            table,
            *self._data_controls(),
        ]

    # -- what the controls do -------------------------------------------------------------
    def set_calibrator(self, calibrator: Calibrator) -> None:
        """Read the same histograms with another calibrator."""
        self.request(SetCalibrator(calibrator))

    def set_equalize(self, on: bool) -> None:
        """Move differences between channels into the weights, or no longer."""
        self.request(SetOption("equalize_channels", on))

    def set_smooth(self, alpha: float | str) -> None:
        """Move outliers of activations into the weights, or no longer (``off``)."""
        self.request(SetOption("smooth_alpha", None if alpha == OFF else alpha))

    def set_threshold(self, tensor: str, threshold: float | None) -> None:
        """Clip a tensor by hand; None lets calibration decide again."""
        self.request(SetThreshold(tensor, threshold))

    def show_tensor(self, name: str) -> None:
        """Draw a tensor's histogram, with the line to drag."""
        self.tensor = name
        found = self.result.ranges[name]
        old = self.picture.children
        percentile = self.result.percentile
        others = {
            c.value: scale_threshold(found.histogram, c, percentile=percentile)
            for c in Calibrator
            if found.histogram.amax > 0 and (found.by_hand or c is not self.result.calibrator)
        }
        self.clip = ClipControl(
            found,
            others=others,
            source=_source(self.result, name, str(self.session.device)),
            judge=self._judge,
            apply=self.set_threshold,
        )
        self.figure = self.clip.figure
        self.picture.children = (self.clip,)
        self._showing = True
        self.chooser.value = name
        self._showing = False
        for widget in (w for c in old for w in within(c)):
            widget.close()

    def use_data(self, source: Any) -> None:
        """Calibrate on other data: a path, or ``"random"``. A misfit is shown, not raised."""
        try:
            self.session.use_calibration(source)
        except WorkbenchError as error:
            self.show_failure(Failure(error))
            return
        self.requested()

    def _judge(self, tensor: str, threshold: float) -> Clipped:
        """What a threshold does; the editor's engines are built on the first question."""
        network = self._built.networks[Stage.CALIBRATE]
        if self._editor is None or self._editor[0] is not network:
            self._editor = (network, ClipEditor(self._built))
        return self._editor[1].at(tensor, threshold)

    def _findings(self, state: BuildState) -> list[ipw.Widget]:
        """What one scale cannot serve, and a button for what would mend it."""
        findings = range_findings(state)
        if not findings:
            return []
        worst = findings[0]
        names = ", ".join(f.tensor for f in findings)
        parts: list[ipw.Widget] = [
            note(
                f"Finding: {worst.hazard} in {names}. Worst, {worst.tensor}: {worst.evidence}. "
                f"Remedy: {worst.remedy}."
            )
        ]
        if worst.setting is not None:
            parts.append(row(button(worst.code, lambda: self._mend(worst), primary=True)))
        return parts

    def _mend(self, finding: Finding) -> None:
        assert finding.setting is not None
        self.request(SetOption(*finding.setting))

    def _make_choices(self) -> None:
        """Controls made once: a list that a person has open outlives a redrawing."""
        values = [(c.value, c) for c in Calibrator]
        self.calibrator = dropdown("Calibrator", values, Calibrator.ENTROPY, self._calibrator)
        self.chooser = dropdown("Tensor", (), None, self._chosen, width="380px")
        self.equalize = ipw.Checkbox(
            description="Equalise channels",
            tooltip="cross-layer equalisation: the float function stays to the bit",
            indent=False,
            layout={"width": "auto"},
        )
        self.equalize.observe(self._ticked, "value")
        self.smooth = dropdown("Smooth scaling", ALPHAS, OFF, self._smoothed)
        self._choices = row(self.calibrator, self.chooser, self.equalize, self.smooth)

    def _show_choices(self, result: CalibrationResult) -> None:
        """Set the controls to what was built."""
        config = self.session.config
        alpha = OFF if config.smooth_alpha is None else config.smooth_alpha
        self._showing = True
        self.calibrator.value = result.calibrator
        self.chooser.options = list(result.ranges)
        self.chooser.value = self.tensor or None
        self.equalize.value = config.equalize_channels
        self.smooth.options = tuple(dict.fromkeys((*ALPHAS, alpha)))
        self.smooth.value = alpha
        self._showing = False

    def _calibrator(self, calibrator: Calibrator) -> None:
        if not self._showing:
            self.set_calibrator(calibrator)

    def _chosen(self, tensor: str) -> None:
        if not self._showing:
            self.show_tensor(tensor)

    def _ticked(self, change: Any) -> None:
        if not self._showing:
            self.set_equalize(change["new"])

    def _smoothed(self, alpha: float | str) -> None:
        if not self._showing:
            self.set_smooth(alpha)

    def _filled_table(self, result: CalibrationResult) -> Table:
        rows = calibration_rows(result)
        if self.table is None:
            self.table = Table(rows, label="calibrated tensors", selection="one", height=300)
            self.table.observe(self._picked, "selected")
            return self.table
        if list(self.table.rows["Tensor"]) != list(rows["Tensor"]):
            self.table.selected = []
        self.table.rows = rows
        return self.table

    def _picked(self, change: Any) -> None:
        if change["new"]:
            self.show_tensor(list(self.result.ranges)[change["new"][0]])

    def _data_controls(self) -> list[ipw.Widget]:
        load = button("Load", lambda: self.use_data(self.path.value.strip()))
        made_up = button(
            "Use random data",
            lambda: self.use_data("random"),
            tooltip="made-up values, labelled so: ranges from them say little about real inputs",
        )
        return [row(self.path, load, made_up)]


def _source(result: CalibrationResult, tensor: str, device: str) -> str:
    by_hand = result.ranges[tensor].by_hand
    chosen = "clipped by hand" if by_hand else f"{result.calibrator.value} calibrator"
    data = "random samples" if result.label == RANDOM else "samples"
    return f"{chosen}, {result.samples} {data} · {device}"
