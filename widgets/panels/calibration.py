"""CalibrationPanel: the data, the calibrator, and each tensor's histogram with its clip line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

from widgets.figures import calibration_figure
from widgets.panels.base import Panel
from widgets.parts import button, dropdown, note, plot, row
from widgets.runner import Failure
from widgets.table import Table
from workbench.builder import BuildState
from workbench.calibration import CalibrationResult
from workbench.config import Calibrator
from workbench.errors import WorkbenchError
from workbench.records import Stage
from workbench.reports import calibration_rows, histogram_rows
from workbench.session import SetCalibrator


class CalibrationPanel(Panel):
    """Ranges of the tensors that INT8 would quantize, from representative data."""

    heading: ClassVar[str] = "Calibration"
    stage: ClassVar[Stage] = Stage.CALIBRATE
    reruns: ClassVar[Stage | None] = Stage.CALIBRATE

    def setup(self) -> None:
        self.tensor = ""
        self.path = ipw.Text(
            placeholder="an npz with one array an input",
            description="Data",
            style={"description_width": "initial"},
            layout={"width": "320px"},
        )

    def lasting(self) -> Sequence[ipw.Widget]:
        return (self.path,)

    def waiting(self) -> Sequence[ipw.Widget]:
        return [*super().waiting(), *self._data_controls()]

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        result = state.calibration
        if result is None:
            text = "Nothing was calibrated: there is no data, and no layer is requested in INT8."
            return [note(text), *self._data_controls()]
        self.result = result
        names = list(result.ranges)
        if self.tensor not in names:
            most = sorted(names, key=lambda n: -result.ranges[n].clipped_share)
            self.tensor = most[0] if most else ""
        values = [(c.value, c) for c in Calibrator]
        self.calibrator = dropdown("Calibrator", values, result.calibrator, self.set_calibrator)
        self.chooser = dropdown(
            "Tensor", names, self.tensor or None, self.show_tensor, width="380px"
        )
        self.table = Table(
            calibration_rows(result), label="calibrated tensors", selection="one", height=300
        )
        self.table.observe(self._picked, "selected")
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
            row(self.calibrator, self.chooser),
            self.picture,
            self.table,
            *self._data_controls(),
        ]

    # -- what the controls do -------------------------------------------------------------
    def set_calibrator(self, calibrator: Calibrator) -> None:
        """Read the same histograms with another calibrator."""
        self.request(SetCalibrator(calibrator))

    def show_tensor(self, name: str) -> None:
        """Draw a tensor's histogram."""
        self.tensor = name
        found = self.result.ranges[name]
        old = self.picture.children
        box, self.figure = plot(
            calibration_figure(
                histogram_rows(found),
                tensor=name,
                threshold=found.threshold,
                scale=found.scale,
                clipped_share=found.clipped_share,
                source=_source(self.result, str(self.session.device)),
            )
        )
        self.picture.children = (box,)
        self.chooser.value = name
        for widget in old:
            widget.close()

    def use_data(self, source: Any) -> None:
        """Calibrate on other data: a path, or ``"random"``. A misfit is shown, not raised."""
        try:
            self.session.use_calibration(source)
        except WorkbenchError as error:
            self.show_failure(Failure(error))
            return
        self.requested()

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


def _source(result: CalibrationResult, device: str) -> str:
    return f"{result.calibrator.value} calibrator, {result.samples} samples · {device}"
