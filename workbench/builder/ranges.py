"""Where a build's ranges come from: a cache, a calibrator object of TensorRT's, or the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench import calibration, precision
from workbench.builder.state import Batch, BuildState
from workbench.builder.taps import TapEngine, Taps
from workbench.calibration import (
    CacheDifference,
    CalibrationCache,
    CalibrationResult,
    OnePass,
    TensorRTCache,
    calibrator_of,
    data_digest,
    is_calibrator,
    load_data,
    streamed,
)
from workbench.errors import CalibrationError
from workbench.files import read_file
from workbench.network import NetworkDefinition


def with_calibration(state: BuildState, source: Any) -> BuildState:
    """The build with calibration data, after Parse.

    source: what ``load_data`` takes; an iterator or a calibrator object is read in one pass, when
    Calibrate needs it, and not kept. Raises CalibrationError.
    """
    if isinstance(source, Iterator) or is_calibrator(source):
        if is_calibrator(source):
            config = state.config.clone()
            config.int8_calibrator = source
            return replace(state, config=config.frozen())
        data = streamed(source, state.network)
        return replace(state, calibration_data=data, calibration_label=data.label)
    kept = load_data(source, state.network)
    return replace(state, calibration_data=kept.batches, calibration_label=kept.label)


def has_ranges(state: BuildState) -> bool:
    """Whether ranges can be had: known already, in a cache, or from data."""
    cached = state.calibration_cache is not None and state.calibration_cache.exists()
    data = bool(state.calibration_data) or state.config.int8_calibrator is not None
    return state.calibration is not None or cached or data


def ranges_of(
    state: BuildState,
    network: NetworkDefinition,
    engine: TapEngine,
    before: tuple[NetworkDefinition, CalibrationResult] | None = None,
) -> CalibrationResult:
    """Ranges of a float network's quantizable tensors; a new calibration is written to the cache.

    before: the network before smooth scaling, and its ranges. Raises CalibrationError: a cache that
    is stale, data from which no range follows.
    """
    found = _kept_by_calibrator(state, network)
    found = found or _cached(state, network)
    if found is None:
        found = measured_ranges(state, network, engine)
        if before is not None:
            found = replace(found, before_smoothing=before[1])
        _keep(state, network, found, before)
    elif before is not None:
        found = replace(found, before_smoothing=before[1])
    return found


def ranges_before_smoothing(
    state: BuildState, network: NetworkDefinition, engine: TapEngine
) -> CalibrationResult:
    """Ranges of the network that smooth scaling is about to change."""
    if state.calibration is not None and state.calibration.before_smoothing is not None:
        return state.calibration.before_smoothing
    path = state.calibration_cache
    if path is not None and path.exists():
        cache = CalibrationCache.load(path)
        if cache.before_smoothing is None:
            raise CalibrationError(
                "it is of a build without smooth scaling",
                place=str(path),
                remedy="remove it and calibrate again, or name another file",
            )
        return _fitting(cache.before_smoothing, state, network, path)
    return measured_ranges(state, network, engine)


def measured_ranges(
    state: BuildState, network: NetworkDefinition, engine: TapEngine
) -> CalibrationResult:
    """Run the data through the network and read every quantizable tensor's range."""
    config = state.config
    calibrator, percentile = config.calibrator, None
    if config.int8_calibrator is not None and not state.calibration_data:
        calibrator, percentile = calibrator_of(config.int8_calibrator, calibrator)
    batches = _batches(state, network)
    return calibration.calibrate(
        precision.quantizable_tensors(network),
        batches,
        Taps(state, network, engine).run,
        calibrator=calibrator,
        monitor=config.progress_monitor,
        label=batches.label if isinstance(batches, OnePass) else state.calibration_label,
        percentile=config.percentile if percentile is None else percentile,
        channel_axes=precision.channel_axes(network),
    )


def _batches(state: BuildState, network: NetworkDefinition) -> Iterable[Batch]:
    if state.calibration_data or state.config.int8_calibrator is None:
        return state.calibration_data
    return streamed(state.config.int8_calibrator, network)


# -- caches ---------------------------------------------------------------------------------
def _kept_by_calibrator(state: BuildState, network: NetworkDefinition) -> CalibrationResult | None:
    """What a calibrator object's own cache holds; None where it asks for a calibration."""
    source = state.config.int8_calibrator
    if source is None or state.calibration_data:
        return None
    text = source.read_calibration_cache()
    if not text:
        return None
    place = f"{type(source).__name__}.read_calibration_cache()"
    return _from_tensorrt(bytes(text), network, place)


def _cached(state: BuildState, network: NetworkDefinition) -> CalibrationResult | None:
    path = state.calibration_cache
    if path is None or not path.exists():
        return None
    data = read_file(path)
    if data.startswith(b"TRT-"):
        return _from_tensorrt(data, network, str(path))
    cache = CalibrationCache.from_bytes(data, place=str(path))
    found = _fitting(cache, state, network, path)
    return found.with_calibrator(state.config.calibrator, percentile=state.config.percentile)


def _fitting(
    cache: CalibrationCache, state: BuildState, network: NetworkDefinition, path: Path
) -> CalibrationResult:
    tensors = precision.quantizable_tensors(network)
    digest = data_digest(state.calibration_data) if state.calibration_data else None
    return cache.result_for(network, tensors, data=digest, place=str(path))


def _from_tensorrt(data: bytes, network: NetworkDefinition, place: str) -> CalibrationResult:
    """TensorRT's scales. They carry no digests: only names can tell whether they fit."""
    cache = TensorRTCache.from_text(data, place=place)
    wanted = precision.quantizable_tensors(network)
    if not set(wanted) & set(cache.scales):
        difference = CacheDifference(new=wanted, missing=tuple(cache.scales))
        raise CalibrationError(
            f"it is another network's: {difference}", place=place, remedy="calibrate again"
        )
    return cache.result(label=place)


def _keep(
    state: BuildState,
    network: NetworkDefinition,
    found: CalibrationResult,
    before: tuple[NetworkDefinition, CalibrationResult] | None,
) -> None:
    if state.calibration_cache is not None:
        cache_of(network, found, before).save(state.calibration_cache)
    source = state.config.int8_calibrator
    if source is not None and not state.calibration_data:
        source.write_calibration_cache(TensorRTCache.of(found).to_text().encode())


def cache_of(
    network: NetworkDefinition,
    found: CalibrationResult,
    before: tuple[NetworkDefinition, CalibrationResult] | None,
) -> CalibrationCache:
    """The cache of a network's ranges, with those before smooth scaling."""
    cache = CalibrationCache.of(found, network)
    if before is None:
        return cache
    return replace(cache, before_smoothing=CalibrationCache.of(before[1], before[0]))
