"""Ranges of inner tensors: the folded float network, run with them as outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.body import Array
from workbench.builder.state import Batch, BuildState
from workbench.config import WEAK_FLAGS, BuilderConfig, Calibrator, OptimizationProfile
from workbench.datatypes import DataType
from workbench.errors import CalibrationError
from workbench.network import NetworkDefinition
from workbench.runtime import Engine

TapEngine = Callable[[NetworkDefinition, BuilderConfig, str], Engine]
"""(network, config, name) -> its engine: every stage of a build."""


class Taps:
    """Runs the float network with inner tensors as outputs: a level-0 build of its own."""

    def __init__(self, state: BuildState, network: NetworkDefinition, engine: TapEngine) -> None:
        self.state = state
        self.network = network
        self.engine = engine
        self._engines: dict[Any, Engine] = {}

    def run(self, batch: Batch, taps: tuple[str, ...]) -> dict[str, Array]:
        """Values of ``taps`` on one batch."""
        inner = tuple(t for t in taps if not self.network.tensor(t).is_network_input)
        shapes = tuple(sorted((k, v.shape) for k, v in batch.items()))
        key = (inner, shapes)
        if key not in self._engines:
            self._engines[key] = self._build(batch, inner)
        outputs = self._engines[key].create_execution_context().run(batch)
        return {t: outputs[t] if t in inner else batch[t] for t in taps}

    def _build(self, batch: Batch, taps: tuple[str, ...]) -> Engine:
        network = self.network.clone()
        for t in taps:
            network.mark_output(network.tensor(t))
        config = self.state.config.clone()
        config.builder_optimization_level = 0
        config.precisions, config.default_precision = (), DataType.FLOAT
        config.flags = config.flags - WEAK_FLAGS
        config.calibrator = Calibrator.MINMAX
        config.equalize_channels, config.smooth_alpha = False, None
        config.dynamic_ranges, config.int8_calibrator = {}, None
        config.timing_cache = None
        config.network_edits = ()  # they are made
        profile = OptimizationProfile()
        for tensor in network.inputs:
            if tensor.name not in batch:
                raise CalibrationError(
                    f"a batch has no input '{tensor.name}' (it has {', '.join(batch)})",
                    place="Calibrate",
                )
            shape = batch[tensor.name].shape
            # Level 0 checks at the smallest shape: one sample, where the network allows it.
            open_batch = bool(shape) and not isinstance(tensor.shape[0], int)
            smallest = (1, *shape[1:]) if open_batch else shape
            profile.set_shape(tensor.name, smallest, shape, shape)
        config.optimization_profiles = (profile,)
        return self.engine(network, config, f"{self.state.name} (taps)")
