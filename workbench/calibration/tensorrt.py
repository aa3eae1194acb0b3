"""TensorRT's calibrators (up to 10.x) and its text cache, read and written.

A calibrator is any object with TensorRT's four methods; the base classes here carry TensorRT's
names, so that a calibrator written for it needs another import only. Independent of NVIDIA: its
libraries are neither used nor needed.
"""

from __future__ import annotations

import enum
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.calibration.collect import CalibrationResult, TensorRange, check_threshold
from workbench.calibration.histogram import Histogram
from workbench.calibration.noise import STEPS
from workbench.config import Calibrator
from workbench.errors import CalibrationError

METHODS = ("get_batch_size", "get_batch", "read_calibration_cache", "write_calibration_cache")
VERSION = 100300
"""TensorRT 10.3.0, as a cache's first line writes it. TensorRT skips a cache of another version
(NVIDIA/TensorRT#1378): pass yours."""


class CalibrationAlgoType(enum.Enum):
    """TensorRT's calibration algorithms."""

    LEGACY_CALIBRATION = 0
    ENTROPY_CALIBRATION = 1
    ENTROPY_CALIBRATION_2 = 2
    MINMAX_CALIBRATION = 3


_HEADERS = {
    CalibrationAlgoType.LEGACY_CALIBRATION: "LegacyCalibration",
    CalibrationAlgoType.ENTROPY_CALIBRATION: "EntropyCalibration",
    CalibrationAlgoType.ENTROPY_CALIBRATION_2: "EntropyCalibration2",
    CalibrationAlgoType.MINMAX_CALIBRATION: "MinMaxCalibration",
}
_CALIBRATORS = {
    CalibrationAlgoType.LEGACY_CALIBRATION: Calibrator.PERCENTILE,
    CalibrationAlgoType.ENTROPY_CALIBRATION: Calibrator.ENTROPY,
    CalibrationAlgoType.ENTROPY_CALIBRATION_2: Calibrator.ENTROPY,
    CalibrationAlgoType.MINMAX_CALIBRATION: Calibrator.MINMAX,
}


# -- calibrator objects -----------------------------------------------------------------------
class IInt8Calibrator:
    """Where batches come from, and where the cache is kept. Subclass one of those below.

    ``get_batch`` returns an array an input (NumPy, or what NumPy can read), or None at the end.
    """

    ALGORITHM = CalibrationAlgoType.ENTROPY_CALIBRATION_2

    def get_algorithm(self) -> CalibrationAlgoType:
        return self.ALGORITHM

    def get_batch_size(self) -> int:
        """Samples a batch."""
        raise NotImplementedError

    def get_batch(self, names: Sequence[str]) -> Sequence[Any] | None:
        """One array for each named input, or None when there is no more."""
        raise NotImplementedError

    def read_calibration_cache(self) -> bytes | None:
        """TensorRT's text cache, or None to calibrate."""
        return None

    def write_calibration_cache(self, cache: bytes) -> None:
        """Keep the text cache that a calibration gave."""


class IInt8EntropyCalibrator(IInt8Calibrator):
    """TensorRT's first entropy calibrator; here the same as the second."""

    ALGORITHM = CalibrationAlgoType.ENTROPY_CALIBRATION


class IInt8EntropyCalibrator2(IInt8Calibrator):
    """TensorRT's usual calibrator: Calibrator.ENTROPY."""


class IInt8MinMaxCalibrator(IInt8Calibrator):
    """The largest magnitude: Calibrator.MINMAX."""

    ALGORITHM = CalibrationAlgoType.MINMAX_CALIBRATION


class IInt8LegacyCalibrator(IInt8Calibrator):
    """TensorRT's percentile calibrator: Calibrator.PERCENTILE with ``get_quantile()`` of 0 to 1."""

    ALGORITHM = CalibrationAlgoType.LEGACY_CALIBRATION

    def get_quantile(self) -> float:
        return 0.9999

    def get_regression_cutoff(self) -> float:
        """Not used: ranges are read from histograms, never fitted."""
        return 1.0


def is_calibrator(value: object) -> bool:
    """Whether an object has TensorRT's calibrator methods."""
    return all(callable(getattr(value, m, None)) for m in METHODS)


def calibrator_of(source: Any, default: Calibrator) -> tuple[Calibrator, float | None]:
    """(our calibrator, percentile or None) for a calibrator object's ``get_algorithm()``.

    An object without that method is read by ``default``. TensorRT's own enum is known by name.
    """
    ask = getattr(source, "get_algorithm", None)
    if ask is None:
        return default, None
    algorithm = ask()
    name = getattr(algorithm, "name", str(algorithm))
    if name not in CalibrationAlgoType.__members__:
        raise CalibrationError(
            f"get_algorithm() gives {algorithm!r}",
            place=type(source).__name__,
            remedy=f"return one of {', '.join(CalibrationAlgoType.__members__)}",
        )
    found = _CALIBRATORS[CalibrationAlgoType[name]]
    quantile = getattr(source, "get_quantile", None)
    if found is Calibrator.PERCENTILE and quantile is not None:
        return found, 100.0 * float(quantile())
    return found, None


def batches_of(source: Any, names: Sequence[str]) -> Iterator[Mapping[str, Array]]:
    """The batches of a calibrator object, by input name. Raises CalibrationError."""
    place = type(source).__name__
    size = int(source.get_batch_size())
    index = 0
    while (given := source.get_batch(list(names))) is not None:
        if len(given) == 0 and not index:
            raise CalibrationError("get_batch gives an empty list", place=place)
        if len(given) == 0:
            return
        if len(given) != len(names):
            raise CalibrationError(
                f"get_batch gives {len(given)} arrays for {len(names)} inputs: {', '.join(names)}",
                place=f"{place}, calibration batch {index}",
            )
        batch = {
            n: _host(a, f"{place}, input '{n}', calibration batch {index}")
            for n, a in zip(names, given, strict=True)
        }
        sizes = {a.shape[0] for a in batch.values() if a.ndim}
        if any(s > size for s in sizes):
            raise CalibrationError(
                f"a batch has {max(sizes)} samples, get_batch_size() says {size}",
                place=f"{place}, calibration batch {index}",
            )
        yield batch
        index += 1


def _host(array: Any, place: str) -> Array:
    if isinstance(array, int):
        raise CalibrationError(
            "it is an address, as TensorRT takes them",
            place=place,
            remedy="return the array itself: NumPy, CuPy, or what NumPy can read",
        )
    if hasattr(array, "__cuda_array_interface__") and callable(getattr(array, "get", None)):
        array = array.get()
    return np.asarray(array)


# -- the text cache ---------------------------------------------------------------------------
@dataclass(frozen=True)
class TensorRTCache:
    """TensorRT's calibration cache: its version and algorithm, and a scale by tensor."""

    version: str
    algorithm: CalibrationAlgoType
    scales: Mapping[str, float]

    @classmethod
    def of(cls, result: CalibrationResult, *, version: int = VERSION) -> TensorRTCache:
        """The scales of a result. What TensorRT has no name for is called EntropyCalibration2."""
        algorithm = CalibrationAlgoType.ENTROPY_CALIBRATION_2
        if result.calibrator is Calibrator.MINMAX:
            algorithm = CalibrationAlgoType.MINMAX_CALIBRATION
        return cls(str(version), algorithm, {n: r.scale for n, r in result.ranges.items()})

    def to_text(self) -> str:
        """``TRT-<version>-<algorithm>``, then each tensor's name and float32 scale, big-endian hex.

        Source: the cache printed in NVIDIA/TensorRT#2036. 3c010204 is 1/127.
        """
        lines = [f"TRT-{self.version}-{_HEADERS[self.algorithm]}"]
        lines += [f"{n}: {struct.pack('>f', s).hex()}" for n, s in self.scales.items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_text(
        cls, text: str | bytes, *, place: str = "TensorRT calibration cache"
    ) -> TensorRTCache:
        """Read a cache. Raises CalibrationError naming the line, and the tensor of a bad scale."""
        whole = bytes(text).decode("utf-8", "replace") if not isinstance(text, str) else text
        header, *lines = whole.splitlines() or [""]
        found = re.fullmatch(r"TRT-(\w+)-(\w+)", header.strip())
        kinds = {v: k for k, v in _HEADERS.items()}
        if found is None or found[2] not in kinds:
            raise CalibrationError(
                f"its first line is {header[:60]!r}, not TRT-<version>-<algorithm>",
                place=place,
                remedy=f"known algorithms: {', '.join(kinds)}",
            )
        scales: dict[str, float] = {}
        for number, line in enumerate(lines, 2):
            if not line.strip():
                continue
            name, _, digits = line.rpartition(":")
            if not name or not re.fullmatch(r"\s*[0-9a-fA-F]{8}\s*", digits):
                raise CalibrationError(
                    f"{line[:60]!r} is not '<tensor>: <8 hex digits>'", place=f"{place}:{number}"
                )
            scales[name.strip()] = _scale(name.strip(), digits.strip(), f"{place}:{number}")
        return cls(found[1], kinds[found[2]], scales)

    def result(self, *, label: str = "TensorRT calibration cache") -> CalibrationResult:
        """The scales as ranges without histograms, so that no calibrator can read them anew."""
        ranges = {n: TensorRange(n, Histogram(), s * STEPS) for n, s in self.scales.items()}
        return CalibrationResult(ranges, _CALIBRATORS[self.algorithm], 0, "", label)


def _scale(name: str, digits: str, place: str) -> float:
    (scale,) = struct.unpack(">f", bytes.fromhex(digits))
    if not math.isfinite(scale) or scale <= 0:
        raise CalibrationError(
            f"tensor '{name}' has the scale {scale}", place=place, remedy="calibrate again"
        )
    check_threshold(name, float(scale) * STEPS)
    return float(scale)
