"""Runtime, Engine, ExecutionContext: load a plan and run it. Needs no onnx, pandas or Plotly."""

from workbench.runtime.context import ExecutionContext
from workbench.runtime.device_arrays import run_on_device
from workbench.runtime.engine import Engine, Preparation, Runtime, TensorIOMode
from workbench.runtime.inspector import EngineInspector, LayerInformationFormat
from workbench.runtime.launching import ProfilingVerbosity
from workbench.runtime.pipeline import Pipeline
from workbench.runtime.profiler import LayerProfile, Profile, Profiler
from workbench.runtime.taps import Tap, TappedRun

__all__ = [
    "Engine",
    "EngineInspector",
    "ExecutionContext",
    "LayerInformationFormat",
    "LayerProfile",
    "Pipeline",
    "Preparation",
    "Profile",
    "Profiler",
    "ProfilingVerbosity",
    "Runtime",
    "Tap",
    "TappedRun",
    "TensorIOMode",
    "run_on_device",
]
