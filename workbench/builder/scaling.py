"""The channel scalings that a config asks for, on the folded float network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workbench import calibration
from workbench.builder.ranges import cache_of, ranges_before_smoothing
from workbench.builder.state import BuildState
from workbench.builder.taps import TapEngine
from workbench.calibration import CalibrationResult
from workbench.errors import BuildError
from workbench.network import NetworkDefinition
from workbench.records import Attempt, Stage
from workbench.runtime import Engine


@dataclass(frozen=True, eq=False)
class Scaled:
    """The folded float network under the channel scalings that the config asks for.

    attempts: empty where it asks for none; the network is then the folded one itself. before: the
    network that smooth scaling started from, and its ranges.
    """

    network: NetworkDefinition
    attempts: tuple[Attempt, ...] = ()
    before: tuple[NetworkDefinition, CalibrationResult] | None = None


def scaled_channels(state: BuildState, engine: TapEngine) -> Scaled:
    """Equalise and smooth the folded network's channels, as far as the config asks for it."""
    config, network = state.config, state.networks[Stage.FOLD]
    if not config.equalize_channels and config.smooth_alpha is None:
        return Scaled(network)
    network = network.clone()
    attempts: tuple[Attempt, ...] = ()
    if config.equalize_channels:
        attempts = calibration.equalize(network, verify=config.verify)
    if config.smooth_alpha is None:
        return Scaled(network, attempts)
    measured = ranges_before_smoothing(state, network, engine)
    plain, network = network, network.clone()
    smoothed = calibration.smooth(
        network, measured, alpha=config.smooth_alpha, verify=config.verify
    )
    return Scaled(network, (*attempts, *smoothed), (plain, measured))


def keep_ranges(state: BuildState, path: Path) -> None:
    """Write the build's ranges as a calibration cache. Raises BuildError before Calibrate."""
    if state.calibration is None:
        raise BuildError("nothing is calibrated", place=state.name, remedy="run Calibrate")

    def no_engine(network: NetworkDefinition, config: object, name: str) -> Engine:
        raise BuildError("its smooth scaling was never measured", place=state.name)

    scaled = scaled_channels(state, no_engine)
    cache_of(scaled.network, state.calibration, scaled.before).save(path)
