"""Collect the histograms of a network's tensors over calibration batches, in one pass."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.calibration.calibrators import scale_threshold
from workbench.calibration.histogram import ChannelExtremes, Histogram
from workbench.calibration.noise import STEPS, sqnr_db
from workbench.config import PERCENTILE, Calibrator
from workbench.errors import CalibrationError, WorkbenchError
from workbench.records import Progress, ProgressMonitor

Batch = Mapping[str, Array]
Run = Callable[[Batch, tuple[str, ...]], Mapping[str, Array]]

SMALLEST = float(np.finfo(np.float32).tiny) * STEPS
"""The least threshold: its scale is float32's smallest normal number."""


@dataclass(frozen=True, eq=False)
class TensorRange:
    """The range of one tensor: real = scale * stored, stored in -127..127.

    threshold: magnitude beyond which values are clipped, > 0. scale: threshold / 127.
    channels: extremes of each channel, where they were measured. constant: it was always zero,
    or always one value. by_hand: the threshold was set, not read from the histogram. Without values
    (``histogram.total`` is 0) the scale came from elsewhere, such as TensorRT's cache.
    """

    tensor: str
    histogram: Histogram
    threshold: float
    constant: bool = False
    channels: ChannelExtremes | None = None
    by_hand: bool = False

    @property
    def scale(self) -> float:
        return self.threshold / STEPS

    @property
    def clipped_share(self) -> float:
        """Share of the calibration values that the threshold clips."""
        return self.histogram.clipped_share(self.threshold)

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise at this threshold, in decibels."""
        return sqnr_db(self.histogram, self.threshold)

    def clipped_at(self, threshold: float) -> TensorRange:
        """The same histogram, clipped at a threshold set by hand. Raises CalibrationError."""
        check_threshold(self.tensor, threshold)
        return replace(self, threshold=float(threshold), by_hand=True)


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """Ranges by tensor, and what they were computed from.

    digest: SHA-256 of the data. label: how the data is to be called (``random`` when it was
    made up). percentile: what the percentile calibrator keeps, in percent. before_smoothing: the
    same data's ranges before smooth scaling, from which its factors came.
    """

    ranges: Mapping[str, TensorRange]
    calibrator: Calibrator
    samples: int
    digest: str
    label: str = ""
    percentile: float = PERCENTILE
    before_smoothing: CalibrationResult | None = None

    def with_calibrator(
        self, calibrator: Calibrator, *, percentile: float = PERCENTILE
    ) -> CalibrationResult:
        """The same histograms read by a calibrator; thresholds set by hand are dropped."""
        same = calibrator is self.calibrator
        if calibrator is Calibrator.PERCENTILE:
            same = same and percentile == self.percentile
        if same and not any(r.by_hand for r in self.ranges.values()):
            return self
        ranges = {
            n: r
            if (same and not r.by_hand) or not r.histogram.total
            else tensor_range(n, r.histogram, calibrator, percentile, r.channels)
            for n, r in self.ranges.items()
        }
        return replace(self, ranges=ranges, calibrator=calibrator, percentile=percentile)

    def with_thresholds(self, thresholds: Mapping[str, float]) -> CalibrationResult:
        """The same histograms, some clipped where a person says. Raises CalibrationError."""
        if not thresholds:
            return self
        ranges = dict(self.ranges)
        for name, threshold in thresholds.items():
            if name not in ranges:
                raise CalibrationError(
                    "it was not calibrated",
                    place=f"dynamic range of tensor '{name}'",
                    remedy=f"calibrated are: {', '.join(ranges)}",
                )
            ranges[name] = ranges[name].clipped_at(threshold)
        return replace(self, ranges=ranges)


def check_threshold(tensor: str, threshold: float) -> None:
    """Raises CalibrationError unless the threshold gives a finite float32 scale above zero."""
    if not math.isfinite(threshold) or not SMALLEST <= threshold <= np.finfo(np.float32).max:
        raise CalibrationError(
            f"a threshold of {threshold} gives no usable scale",
            place=f"tensor '{tensor}'",
            remedy=f"give a finite number of at least {SMALLEST:.3g}",
        )


def calibrate(
    tensors: Sequence[str],
    batches: Iterable[Batch],
    run: Run,
    *,
    calibrator: Calibrator,
    monitor: ProgressMonitor,
    label: str = "",
    percentile: float = PERCENTILE,
    channel_axes: Mapping[str, int] | None = None,
) -> CalibrationResult:
    """Histograms and ranges of ``tensors``. ``run(batch, taps)`` gives their values.

    Batches are read once and not kept, so memory does not grow with them. channel_axes: tensors
    of which each channel's extremes are measured too, and on which axis. Raises CalibrationError
    naming tensor and batch: no data, an empty batch, NaN or infinity, data that fails.
    """
    histograms = {t: Histogram() for t in tensors}
    channels = {t: ChannelExtremes(axis) for t, axis in (channel_axes or {}).items()}
    digest, samples, index = DataDigest(), 0, -1
    steps = len(batches) if isinstance(batches, Sized) else 0
    with Progress(monitor, "Calibrate", steps) as progress:
        for index, batch in enumerate(_reading(batches)):
            check_batch(batch, index)
            digest.add(batch)
            samples += next(iter(batch.values())).shape[0]
            values = _run(run, batch, tuple(tensors), index)
            for name, histogram in histograms.items():
                place = f"tensor '{name}', calibration batch {index}"
                array = _finite(values[name], place)
                histogram.add(array)
                if name in channels:
                    _add_channels(channels[name], array, place)
            progress.step()
    if index < 0:
        raise CalibrationError("there is no calibration batch", place="Calibrate")
    ranges = {
        n: tensor_range(n, h, calibrator, percentile, channels.get(n))
        for n, h in histograms.items()
    }
    return CalibrationResult(ranges, calibrator, samples, digest.hex, label, percentile)


def _reading(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches; what the data itself raises names the batch that it was to be."""
    iterator = iter(batches)
    index = 0
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except WorkbenchError:
            raise
        except Exception as e:
            raise CalibrationError(
                f"reading it failed: {type(e).__name__}: {e}",
                place=f"calibration batch {index}",
                remedy="mend the data's own code",
            ) from e
        yield batch
        index += 1


def _run(run: Run, batch: Batch, taps: tuple[str, ...], index: int) -> Mapping[str, Array]:
    try:
        return run(batch, taps)
    except CalibrationError:
        raise
    except WorkbenchError as e:
        raise CalibrationError(
            f"the network cannot run on it: {e.problem}",
            place=f"calibration batch {index}" + (f", {e.place}" if e.place else ""),
            remedy=e.remedy,
        ) from e


def _finite(values: Array, place: str) -> Array:
    array = np.asarray(values, np.float32)
    if not np.all(np.isfinite(array)):
        raise CalibrationError(
            "it holds NaN or infinity",
            place=place,
            remedy="clean the data, or look for an overflow in the model",
        )
    return array


def _add_channels(channels: ChannelExtremes, array: Array, place: str) -> None:
    try:
        channels.add(array)
    except ValueError as e:
        raise CalibrationError(str(e), place=place) from None


def check_batch(batch: Batch, index: int) -> None:
    """Raises CalibrationError if a batch is empty or not finite."""
    if not batch:
        raise CalibrationError("it has no inputs", place=f"calibration batch {index}")
    for name, array in batch.items():
        place = f"input '{name}', calibration batch {index}"
        if not array.ndim or not array.size:
            raise CalibrationError(f"it is empty (shape {array.shape})", place=place)
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            raise CalibrationError("it holds NaN or infinity", place=place)


class DataDigest:
    """SHA-256 of batches' names, types, sample shapes and bytes, however they are batched."""

    def __init__(self) -> None:
        self._inputs: dict[str, Any] = {}
        self._kinds: dict[str, str] = {}

    def add(self, batch: Batch) -> None:
        """Take the next batch in."""
        for name, array in batch.items():
            found = self._inputs.setdefault(name, hashlib.sha256())
            kind = f"{array.dtype}:{array.shape[1:]};"
            if self._kinds.get(name) != kind:
                found.update(kind.encode())
                self._kinds[name] = kind
            found.update(np.ascontiguousarray(array).tobytes())

    @property
    def hex(self) -> str:
        parts = [f"{n}:{h.hexdigest()};" for n, h in sorted(self._inputs.items())]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def data_digest(batches: Iterable[Batch]) -> str:
    """SHA-256 of the batches' names, types, sample shapes and bytes, however they are batched."""
    digest = DataDigest()
    for batch in batches:
        digest.add(batch)
    return digest.hex


def tensor_range(
    name: str,
    histogram: Histogram,
    calibrator: Calibrator,
    percentile: float = PERCENTILE,
    channels: ChannelExtremes | None = None,
) -> TensorRange:
    """What a calibrator makes of a histogram; its scale is never zero, NaN or infinite."""
    if histogram.amax == 0.0:
        # A tensor that was always zero: any positive scale represents it exactly.
        return TensorRange(name, histogram, float(STEPS), constant=True, channels=channels)
    threshold: Any = scale_threshold(histogram, calibrator, percentile=percentile)
    constant = histogram.low == histogram.high
    if constant:
        threshold = histogram.amax
    return TensorRange(name, histogram, max(float(threshold), SMALLEST), constant, channels)
