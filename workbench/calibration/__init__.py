"""Calibration: ranges of tensors from representative data, one pass, bounded memory."""

from workbench.calibration.cache import CacheDifference, CalibrationCache
from workbench.calibration.calibrators import scale_threshold
from workbench.calibration.channel_groups import ChannelGroup, channel_groups
from workbench.calibration.collect import (
    CalibrationResult,
    TensorRange,
    calibrate,
    check_threshold,
    data_digest,
)
from workbench.calibration.data import (
    CalibrationData,
    OnePass,
    load_data,
    random_inputs,
    streamed,
)
from workbench.calibration.equalization import equalize
from workbench.calibration.histogram import ChannelExtremes, Histogram
from workbench.calibration.noise import mean_squared_errors, sqnr_db
from workbench.calibration.smoothing import smooth
from workbench.calibration.tensorrt import (
    CalibrationAlgoType,
    IInt8Calibrator,
    IInt8EntropyCalibrator,
    IInt8EntropyCalibrator2,
    IInt8LegacyCalibrator,
    IInt8MinMaxCalibrator,
    TensorRTCache,
    calibrator_of,
    is_calibrator,
)
from workbench.calibration.weights import weight_scales

__all__ = [
    "CacheDifference",
    "CalibrationAlgoType",
    "CalibrationCache",
    "CalibrationData",
    "CalibrationResult",
    "ChannelExtremes",
    "ChannelGroup",
    "Histogram",
    "IInt8Calibrator",
    "IInt8EntropyCalibrator",
    "IInt8EntropyCalibrator2",
    "IInt8LegacyCalibrator",
    "IInt8MinMaxCalibrator",
    "OnePass",
    "TensorRTCache",
    "TensorRange",
    "calibrate",
    "calibrator_of",
    "channel_groups",
    "check_threshold",
    "data_digest",
    "equalize",
    "is_calibrator",
    "load_data",
    "mean_squared_errors",
    "random_inputs",
    "scale_threshold",
    "smooth",
    "sqnr_db",
    "streamed",
    "weight_scales",
]
