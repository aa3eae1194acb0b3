"""ClipControl: one tensor's clip line, moved by hand, with what that does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as ipw

from widgets.figures import calibration_figure
from widgets.parts import button, failure_html, note, plot, row, tiles
from widgets.runner import Failure
from workbench.calibration import TensorRange
from workbench.errors import WorkbenchError
from workbench.lab import Clipped
from workbench.reports import histogram_rows

DECADES = 3.0
"""How far below the largest value the slider reaches, in powers of ten."""


class ClipControl(ipw.VBox):
    """The histogram with a line to drag, a slider, and the numbers that follow.

    judge: gives what a threshold does. apply: takes the threshold, or None for the calibrated one.
    """

    def __init__(
        self,
        found: TensorRange,
        *,
        others: Mapping[str, float],
        source: str,
        judge: Callable[[str, float], Clipped],
        apply: Callable[[str, float | None], None],
    ) -> None:
        self.found, self._others, self._source = found, others, source
        self._judge, self._apply = judge, apply
        self._setting = False
        self.threshold = found.threshold
        self._box, self.figure = plot(self._drawn(found.threshold), movable_shapes=True)
        self._layout: Any = self.figure.layout
        self._layout.on_change(self._dragged, "shapes")
        largest = max(found.histogram.amax, found.threshold, *others.values())
        top = math.log10(largest) + 0.1
        self.slider = ipw.FloatLogSlider(
            value=found.threshold,
            min=min(top - DECADES, math.log10(found.threshold)),
            max=top,
            step=0.002,
            description="Clip at",
            readout_format=".4g",
            continuous_update=False,
            layout={"width": "420px"},
        )
        self.slider.observe(self._slid, "value")
        self.number = ipw.FloatText(
            value=_short(found.threshold),
            step=None,
            description="or exactly",
            tooltip="a magnitude; Enter measures it",
            style={"description_width": "initial"},
            layout={"width": "170px"},
        )
        self.number.observe(self._typed, "value")
        self.apply_button = button(
            "Use this threshold",
            lambda: self._apply(found.tensor, self.threshold),
            tooltip="build with it instead of the calibrated one",
            primary=True,
        )
        self.reset_button = button(
            "Let calibration decide", lambda: self._apply(found.tensor, None)
        )
        self.reset_button.disabled = not found.by_hand
        self.numbers = tiles(_of_histogram(found.scale, found.clipped_share, found.sqnr_db))
        self.words = note(
            "Drag the red line, move the slider or type a number, to see what another clip does."
        )
        controls = row(self.slider, self.number, self.apply_button, self.reset_button)
        super().__init__([self._box, controls, self.numbers, self.words])

    def set_threshold(self, threshold: float) -> None:
        """Clip here, and show what that does."""
        self.words.value = note("Measuring (the first time, two engines are built)…").value
        begin = time.perf_counter()
        try:
            clipped = self._judge(self.found.tensor, threshold)
        except WorkbenchError as error:
            self.words.value = failure_html(Failure(error))
            return
        self.threshold = threshold
        took_ms = 1e3 * (time.perf_counter() - begin)
        self._setting = True
        try:
            self.slider.value = min(max(threshold, 10**self.slider.min), 10**self.slider.max)
            self.number.value = _short(threshold)
            self._move(clipped)
        finally:
            self._setting = False
        pairs = _of_histogram(clipped.scale, clipped.clipped_share, clipped.sqnr_db)
        end = clipped.end
        if end is None:
            said = "No INT8 layer reads this tensor: nothing behind it changes."
        else:
            pairs.append((f"{end.sqnr_db:.1f} dB", "SQNR of the outputs"))
            pairs.append((f"{end.cosine:.5f}", "cosine of the outputs"))
            if end.agreement is not None:
                pairs.append((f"{end.agreement:.4g}%", "same answer as float"))
            if end.accuracy is not None:
                pairs.append((f"{end.accuracy:.4g}%", "right answers"))
            said = (
                f"Outputs of {end.samples} calibration samples beside the float network's; "
                f"measured here in {took_ms:.0f} ms. Nothing is built until you use it."
            )
        self.numbers.value = tiles(pairs).value
        self.words.value = note(said).value

    # -- inner ----------------------------------------------------------------------------
    def _drawn(self, threshold: float) -> Any:
        found = self.found
        return calibration_figure(
            histogram_rows(found),
            tensor=found.tensor,
            threshold=threshold,
            scale=threshold / 127,
            clipped_share=found.histogram.clipped_share(threshold),
            source=self._source,
            others=self._others,
            thick=True,
        )

    def _move(self, clipped: Clipped) -> None:
        """Draw the line, its words and the colours of the bars for another threshold."""
        fresh = self._drawn(clipped.threshold)
        with self.figure.batch_update():
            traces: Any = zip(self.figure.data, fresh.data, strict=True)
            for old, new in traces:
                old.x, old.y = new.x, new.y
            self._layout.shapes = fresh.layout.shapes
            self._layout.annotations = fresh.layout.annotations

    def _dragged(self, _layout: Any, shapes: Any) -> None:
        if self._setting or not shapes:
            return
        # Whichever end was taken: the line is upright again afterwards.
        moved = [x for x in (shapes[0].x0, shapes[0].x1) if x != self.threshold]
        if moved:
            at = sum(moved) / len(moved)
            self.set_threshold(max(float(at), 10**self.slider.min))

    def _slid(self, change: Any) -> None:
        if not self._setting:
            self.set_threshold(float(change["new"]))

    def _typed(self, change: Any) -> None:
        if not self._setting and change["new"] != _short(self.threshold):
            self.set_threshold(float(change["new"]))


def _short(threshold: float) -> float:
    """Four digits: what a person types, and the calibrated number without its noise."""
    return float(f"{threshold:.4g}")


def _of_histogram(scale: float, clipped_share: float, sqnr_db: float) -> list[tuple[str, str]]:
    sqnr = "exact" if math.isinf(sqnr_db) else f"{sqnr_db:.1f} dB"
    if math.isnan(sqnr_db):
        sqnr = "unknown"
    return [
        (f"{scale:.4g}", "scale"),
        (f"{100 * clipped_share:.3g}%", "values clipped"),
        (sqnr, "SQNR of this tensor"),
    ]
