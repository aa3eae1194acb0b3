"""Calibration: ranges of tensors from representative data, one pass, bounded memory."""

from workbench.calibration.calibrators import scale_threshold
from workbench.calibration.collect import CalibrationResult, TensorRange, calibrate, data_digest
from workbench.calibration.data import CalibrationData, load_data, random_inputs
from workbench.calibration.histogram import Histogram

__all__ = [
    "CalibrationData",
    "CalibrationResult",
    "Histogram",
    "TensorRange",
    "calibrate",
    "data_digest",
    "load_data",
    "random_inputs",
    "scale_threshold",
]
