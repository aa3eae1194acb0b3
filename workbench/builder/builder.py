"""Builder: TensorRT's object, and ``build``, every stage in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.builder.ranges import with_calibration
from workbench.builder.stages import run_stages, start
from workbench.builder.state import Batch, BuildState
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.devices import Device, open_device
from workbench.network import NetworkDefinition
from workbench.records import Stage, StageRecord
from workbench.runtime import Engine, Runtime


def build(
    model: Any,
    config: BuilderConfig | None = None,
    *,
    device: str | Device = "cpu",
    calibration: Any = None,
    calibration_cache: str | Path | None = None,
    name: str = "",
    tell: Callable[[StageRecord], None] = lambda record: None,
) -> BuildState:
    """Every stage in one call, from an ONNX path, bytes or a network.

    calibration: what ``workbench.calibration.load_data`` takes (a path, arrays, batches,
    ``"random"``); an iterator, or a calibrator object with TensorRT's methods, is read once and not
    kept. calibration_cache: a file of ranges, read if it is there and else written; TensorRT's text
    caches are read, too. ``tell`` hears each stage's record. Raises a WorkbenchError.
    """
    state = run_stages(start(model, config, device=device, name=name), until=Stage.PARSE, tell=tell)
    if calibration is not None:
        state = with_calibration(state, calibration)
    if calibration_cache is not None:
        state = replace(state, calibration_cache=Path(calibration_cache))
    return run_stages(state, tell=tell)


class Builder:
    """TensorRT's Builder: makes networks, configs and profiles, and builds plans."""

    def __init__(self, *, device: str | Device = "cpu") -> None:
        self.device = open_device(device) if isinstance(device, str) else device
        self.last_build: BuildState | None = None

    def create_network(self, name: str = "network") -> NetworkDefinition:
        return NetworkDefinition(name)

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig()

    def create_optimization_profile(self) -> OptimizationProfile:
        return OptimizationProfile()

    def build_serialized_network(
        self,
        network: NetworkDefinition,
        config: BuilderConfig,
        *,
        calibration_data: Iterable[Batch] = (),
    ) -> bytes:
        """The plan file's bytes. Raises a WorkbenchError naming what stops it, never None."""
        state = start(network, config, device=self.device, calibration_data=calibration_data)
        self.last_build = run_stages(state)
        assert self.last_build.plan_bytes is not None
        return self.last_build.plan_bytes

    def build_engine_with_config(
        self,
        network: NetworkDefinition,
        config: BuilderConfig,
        *,
        calibration_data: Iterable[Batch] = (),
    ) -> Engine:
        """The engine, loaded from the plan's bytes."""
        data = self.build_serialized_network(network, config, calibration_data=calibration_data)
        return Runtime(self.device).deserialize(data)
