"""Calibration: ranges of tensors from representative data, one pass, bounded memory."""

from workbench.calibration.calibrators import scale_threshold
from workbench.calibration.channel_groups import ChannelGroup, channel_groups
from workbench.calibration.collect import (
    CalibrationResult,
    TensorRange,
    calibrate,
    check_threshold,
    data_digest,
)
from workbench.calibration.data import CalibrationData, load_data, random_inputs
from workbench.calibration.equalization import equalize
from workbench.calibration.histogram import ChannelExtremes, Histogram
from workbench.calibration.noise import mean_squared_errors, sqnr_db
from workbench.calibration.smoothing import smooth
from workbench.calibration.weights import weight_scales

__all__ = [
    "CalibrationData",
    "CalibrationResult",
    "ChannelGroup",
    "ChannelExtremes",
    "Histogram",
    "TensorRange",
    "calibrate",
    "channel_groups",
    "check_threshold",
    "data_digest",
    "equalize",
    "load_data",
    "mean_squared_errors",
    "random_inputs",
    "scale_threshold",
    "smooth",
    "sqnr_db",
    "weight_scales",
]
