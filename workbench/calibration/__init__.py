"""Calibration: ranges of tensors from representative data, one pass, bounded memory."""

from workbench.calibration.calibrators import scale_threshold
from workbench.calibration.collect import (
    CalibrationResult,
    TensorRange,
    calibrate,
    check_threshold,
    data_digest,
)
from workbench.calibration.data import CalibrationData, load_data, random_inputs
from workbench.calibration.histogram import ChannelExtremes, Histogram
from workbench.calibration.noise import mean_squared_errors, sqnr_db
from workbench.calibration.weights import weight_scales

__all__ = [
    "CalibrationData",
    "CalibrationResult",
    "ChannelExtremes",
    "Histogram",
    "TensorRange",
    "calibrate",
    "check_threshold",
    "data_digest",
    "load_data",
    "mean_squared_errors",
    "random_inputs",
    "scale_threshold",
    "sqnr_db",
    "weight_scales",
]
