"""Runtime, Engine, ExecutionContext: load a plan and run it. Needs no onnx, pandas or Plotly."""

from workbench.runtime.context import ExecutionContext
from workbench.runtime.engine import Engine, Preparation, Runtime, TensorIOMode
from workbench.runtime.inspector import EngineInspector, LayerInformationFormat
from workbench.runtime.profiler import LayerProfile, Profile, Profiler
from workbench.runtime.taps import Tap, TappedRun

__all__ = [
    "Engine",
    "EngineInspector",
    "ExecutionContext",
    "LayerInformationFormat",
    "LayerProfile",
    "Preparation",
    "Profile",
    "Profiler",
    "Runtime",
    "Tap",
    "TappedRun",
    "TensorIOMode",
]
