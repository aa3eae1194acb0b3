"""The trtexec command that builds an exported model as its config says."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from workbench.config import BuilderConfig, BuilderFlag, MemoryPoolType
from workbench.gpu_targets import HardwareCompatibilityLevel


def trtexec_line(path: str | PathLike[str], config: BuilderConfig | None = None) -> str:
    """The command for an ONNX file that ``export_onnx`` wrote: its types are the graph's own.

    ``--stronglyTyped`` is for TensorRT 10; 11 is always so. Options as of TensorRT 10.16 and 11.1.
    Nothing that 11 removed is used: precisions, ranges and calibration are in the file.
    """
    config = config or BuilderConfig()
    target = Path(path)
    words = ["trtexec", f"--onnx={target}", "--stronglyTyped"]
    shapes = config.optimization_profiles[0].shapes if config.optimization_profiles else {}
    if shapes:
        for index, option in enumerate(("minShapes", "optShapes", "maxShapes")):
            words.append(f"--{option}={_shapes(shapes, index)}")
    mebibytes = max(1, config.get_memory_pool_limit(MemoryPoolType.WORKSPACE) >> 20)
    words.append(f"--builderOptimizationLevel={config.builder_optimization_level}")
    words.append(f"--memPoolSize=workspace:{mebibytes}M")
    if not config.get_flag(BuilderFlag.TF32):
        words.append("--noTF32")
    if config.get_flag(BuilderFlag.REFIT):
        words.append("--refit")
    if config.hardware_compatibility_level is HardwareCompatibilityLevel.AMPERE_PLUS:
        words.append("--hardwareCompatibilityLevel=ampere+")
    words.append(f"--saveEngine={target.with_suffix('.engine')}")
    return shlex.join(words)


def _shapes(
    shapes: Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]], index: int
) -> str:
    return ",".join(f"{n}:{'x'.join(map(str, s[index]))}" for n, s in sorted(shapes.items()))
