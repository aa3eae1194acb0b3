"""Collect the histograms of a network's tensors over calibration batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.calibration.calibrators import scale_threshold
from workbench.calibration.histogram import Histogram
from workbench.config import Calibrator
from workbench.errors import CalibrationError
from workbench.records import Progress, ProgressMonitor

Batch = Mapping[str, Array]
Run = Callable[[Batch, tuple[str, ...]], Mapping[str, Array]]


@dataclass(frozen=True, eq=False)
class TensorRange:
    """The range of one tensor: real = scale * stored, stored in -127..127.

    threshold: magnitude beyond which values are clipped, > 0. scale: threshold / 127.
    """

    tensor: str
    histogram: Histogram
    threshold: float
    constant: bool = False

    @property
    def scale(self) -> float:
        return self.threshold / 127.0

    @property
    def clipped_share(self) -> float:
        """Share of the calibration values that the threshold clips."""
        return self.histogram.clipped_share(self.threshold)


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """Ranges by tensor, and what they were computed from.

    digest: SHA-256 of the data. label: how the data is to be called (``random`` when it was
    made up).
    """

    ranges: Mapping[str, TensorRange]
    calibrator: Calibrator
    samples: int
    digest: str
    label: str = ""

    def with_calibrator(self, calibrator: Calibrator) -> CalibrationResult:
        """The same histograms read by another calibrator."""
        return CalibrationResult(
            {n: _range(n, r.histogram, calibrator) for n, r in self.ranges.items()},
            calibrator,
            self.samples,
            self.digest,
            self.label,
        )


def calibrate(
    tensors: Sequence[str],
    batches: Iterable[Batch],
    run: Run,
    *,
    calibrator: Calibrator,
    monitor: ProgressMonitor,
    label: str = "",
) -> CalibrationResult:
    """Histograms and ranges of ``tensors``. ``run(batch, taps)`` gives their values.

    Raises CalibrationError naming tensor and batch: no data, an empty batch, NaN or infinity.
    """
    histograms = {t: Histogram() for t in tensors}
    listed = list(batches)
    if not listed:
        raise CalibrationError("there is no calibration batch", place="Calibrate")
    samples = 0
    with Progress(monitor, "Calibrate", len(listed)) as progress:
        for index, batch in enumerate(listed):
            check_batch(batch, index)
            samples += next(iter(batch.values())).shape[0]
            values = run(batch, tuple(tensors))
            for name, histogram in histograms.items():
                array = np.asarray(values[name], np.float32)
                if not np.all(np.isfinite(array)):
                    raise CalibrationError(
                        "it holds NaN or infinity",
                        place=f"tensor '{name}', calibration batch {index}",
                        remedy="clean the data, or look for an overflow in the model",
                    )
                histogram.add(array)
            progress.step()
    ranges = {n: _range(n, h, calibrator) for n, h in histograms.items()}
    return CalibrationResult(ranges, calibrator, samples, data_digest(listed), label)


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


def data_digest(batches: Iterable[Batch]) -> str:
    """SHA-256 of the batches' names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for batch in batches:
        for name, array in sorted(batch.items()):
            digest.update(f"{name}:{array.dtype}:{array.shape};".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _range(name: str, histogram: Histogram, calibrator: Calibrator) -> TensorRange:
    if histogram.amax == 0.0:
        # A tensor that was always zero: any positive scale represents it exactly.
        return TensorRange(name, histogram, 127.0, constant=True)
    tiny = float(np.finfo(np.float32).tiny) * 127.0
    threshold: Any = max(scale_threshold(histogram, calibrator), tiny)
    return TensorRange(name, histogram, float(threshold))
