"""EngineInspector: an engine described with TensorRT 11's JSON field names."""

from __future__ import annotations

import enum
import json
from typing import Any

from workbench.body import Body
from workbench.dimensions import SymbolicDim
from workbench.formats import Format
from workbench.plan import PlanStep, PlanTensor
from workbench.runtime.engine import Engine


class LayerInformationFormat(enum.Enum):
    """How the inspector answers."""

    ONELINE = "ONELINE"
    JSON = "JSON"


class EngineInspector:
    """Answers what an engine is made of, layer by layer."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        """Every layer and I/O tensor: ``{"Layers": [...], "I/O Tensors": [...]}``."""
        if format is LayerInformationFormat.ONELINE:
            indices = range(self.engine.num_layers)
            return "\n".join(self.get_layer_information(i, format) for i in indices)
        return json.dumps(
            {
                "Layers": [self._layer(s) for s in self.engine.plan.steps],
                "I/O Tensors": [self._io(t) for t in self.engine.io_tensors],
            },
            indent=1,
        )

    def get_layer_information(self, index: int, format: LayerInformationFormat) -> str:
        """One layer."""
        step = self.engine.plan.steps[index]
        if format is LayerInformationFormat.JSON:
            return json.dumps(self._layer(step), indent=1)
        ins, outs = ", ".join(step.inputs), ", ".join(step.outputs)
        return f"{step.name} [{step.type}] {ins} -> {outs} {step.tactic.title}"

    def _layer(self, step: PlanStep) -> dict[str, Any]:
        return {
            "Name": step.name,
            "LayerType": step.type,
            "ParameterType": step.type,
            "Operators": list(step.body.operator_names),
            "Inputs": [self._tensor(n) for n in step.inputs],
            "Outputs": [self._tensor(n) for n in step.outputs],
            "Constants": list(step.constants),
            "TacticName": step.tactic.title,
            "TacticValue": f"0x{abs(hash_of(step)):016x}",
            "Origin": "REFORMAT" if step.cause else "GRAPH",
            "Cause": step.cause,
            "Metadata": "\x1e".join(f"[ONNX Layer: {o}]" for o in step.origin),
            "RequestedPrecision": step.requested.value,
            "BuiltPrecision": step.built.value,
            "ExecutedPrecision": step.executed.value,
            "Emulated": step.tactic.emulated,
            "StreamId": step.stream,
            "LetsNextStart": step.lets_next_start,
        }

    def _tensor(self, name: str) -> dict[str, Any]:
        t = self.engine.tensor(name)
        return {
            "Name": t.name,
            "Location": self._location(),
            "Dimensions": _sizes(t),
            "Format": _format(t.format),
            "DataType": t.type.dtype.value,
        }

    def _io(self, t: PlanTensor) -> dict[str, Any]:
        profiles = [p.shapes.get(t.name) for p in self.engine.plan.profiles]
        return {
            "Name": t.name,
            "IOMode": "Input" if t.kind == "input" else "Output",
            "DataType": t.type.dtype.value,
            "Dimensions": _sizes(t),
            "Location": self._location(),
            "IsShapeInferenceIO": False,
            "ProfileInfo": [
                {
                    "MinShape": list(s[0]),
                    "OptShape": list(s[1]),
                    "MaxShape": list(s[2]),
                    "Format": _format(t.format),
                }
                for s in profiles
                if s is not None
            ],
        }

    def _location(self) -> str:
        return "Host" if self.engine.device.kind == "cpu" else "Device"


def _sizes(t: PlanTensor) -> list[int]:
    return [-1 if isinstance(d, SymbolicDim) else d for d in t.type.shape]


def _format(layout: Format) -> str:
    names = {
        "LINEAR": "Row major linear format",
        "HWC": "Channel last format",
        "CHW16": "Sixteen wide channel vectorized row major format",
        "CHW32": "Thirty-two wide channel vectorized row major format",
    }
    return names.get(layout.name, f"{layout} vectorized format")


def hash_of(step: PlanStep) -> int:
    """A stable 64-bit number of a step's tactic (TensorRT's tactic hash)."""
    import hashlib

    body: Body = step.body
    text = f"{step.tactic.title}|{step.tactic.parameters}|{body.signature}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)
