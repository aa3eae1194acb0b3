"""An inference-optimization workbench in TensorRT's style: build, inspect and run engines.

Public names are resolved on first use, so that ``import workbench`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Builder": "workbench.builder",
    "BuilderConfig": "workbench.config",
    "BuilderFlag": "workbench.config",
    "CalibrationAlgoType": "workbench.calibration",
    "CalibrationCache": "workbench.calibration",
    "Calibrator": "workbench.config",
    "DataType": "workbench.datatypes",
    "Engine": "workbench.runtime",
    "ExecutionContext": "workbench.runtime",
    "HardwareCompatibilityLevel": "workbench.gpu_targets",
    "IInt8Calibrator": "workbench.calibration",
    "IInt8EntropyCalibrator": "workbench.calibration",
    "IInt8EntropyCalibrator2": "workbench.calibration",
    "IInt8LegacyCalibrator": "workbench.calibration",
    "IInt8MinMaxCalibrator": "workbench.calibration",
    "MemoryPoolType": "workbench.config",
    "NetworkDefinition": "workbench.network",
    "OnnxParser": "workbench.onnx_parser",
    "OptimizationProfile": "workbench.config",
    "Pipeline": "workbench.runtime",
    "Plan": "workbench.plan",
    "ProfilingVerbosity": "workbench.runtime",
    "open_device": "workbench.devices",
    "Runtime": "workbench.runtime",
    "Session": "workbench.session",
    "TimingCache": "workbench.timing",
    "WorkbenchError": "workbench.errors",
    "build": "workbench.builder",
    "bisect_rewrites": "workbench.lab",
    "bundled": "workbench.bundle",
    "type_table": "workbench.reports",
    "export_onnx": "workbench.onnx_export",
    "inspect_model": "workbench.lab",
    "trtexec_line": "workbench.onnx_export",
    "support_matrix": "workbench.reports.support",
}

__all__ = [*_PUBLIC, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
