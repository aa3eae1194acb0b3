"""Calibration ranges and histograms as rows."""

from __future__ import annotations

import math

import pandas as pd

from workbench.calibration import CalibrationResult, TensorRange


def calibration_rows(result: CalibrationResult) -> pd.DataFrame:
    """Columns: Tensor, Min, Max, Threshold, Scale, Clipped (%), SQNR (dB), Values, Note."""
    return pd.DataFrame(
        [
            (
                r.tensor,
                r.histogram.low if r.histogram.total else math.nan,
                r.histogram.high if r.histogram.total else math.nan,
                r.threshold,
                r.scale,
                100 * r.clipped_share,
                r.sqnr_db,
                r.histogram.total,
                _note(r),
            )
            for r in result.ranges.values()
        ],
        columns=[
            *("Tensor", "Min", "Max", "Threshold", "Scale"),
            *("Clipped (%)", "SQNR (dB)", "Values", "Note"),
        ],
    )


def _note(r: TensorRange) -> str:
    notes = ["threshold set by hand"] if r.by_hand else []
    if not r.histogram.total:
        notes.append("scale read from a cache without histograms")
    if r.constant:
        notes.append("always zero" if r.histogram.amax == 0 else f"always {r.histogram.low:.6g}")
    return ", ".join(notes)


def histogram_rows(found: TensorRange, *, bins: int = 256) -> pd.DataFrame:
    """The histogram merged to ``bins`` (a divisor of 2,048). Columns: Magnitude, Count."""
    counts = found.histogram.counts.reshape(bins, -1).sum(axis=1)
    width = found.histogram.limit / bins
    return pd.DataFrame({"Magnitude": [(i + 0.5) * width for i in range(bins)], "Count": counts})
