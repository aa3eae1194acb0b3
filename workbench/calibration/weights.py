"""Ranges of weights, per output channel or whole."""

from __future__ import annotations

import numpy as np

from workbench.body import Array
from workbench.calibration.collect import tensor_range
from workbench.calibration.histogram import Histogram
from workbench.calibration.noise import STEPS
from workbench.config import PERCENTILE, Calibrator
from workbench.errors import CalibrationError


def weight_scales(
    weight: Array,
    *,
    axis: int | None,
    calibrator: Calibrator = Calibrator.MINMAX,
    percentile: float = PERCENTILE,
    name: str = "weight",
) -> Array:
    """Symmetric INT8 scales of a constant, float32: (channels,) along ``axis``, () for None.

    Builds use MINMAX, as TensorRT does; the others are there to compare. Raises CalibrationError
    where the weight holds NaN or infinity, or nothing.
    """
    array = np.asarray(weight, np.float32)
    if not array.size or not np.all(np.isfinite(array)):
        what = "it holds NaN or infinity" if array.size else f"it is empty {array.shape}"
        raise CalibrationError(what, place=f"weight '{name}'")
    parts = [array] if axis is None else list(np.moveaxis(array, axis, 0))
    scales = [_scale(p, calibrator, percentile, name) for p in parts]
    return np.asarray(scales[0] if axis is None else scales, np.float32)


def _scale(values: Array, calibrator: Calibrator, percentile: float, name: str) -> float:
    histogram = Histogram()
    histogram.add(values)
    return tensor_range(name, histogram, calibrator, percentile).threshold / STEPS
