"""CalibrationCache: a calibration kept in a file, with what it belongs to.

A cache is for one network and one set of data. Each tensor is stored with a digest of everything
that computes it, so that a cache that does not fit says which tensors are new, gone or changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.calibration.collect import CalibrationResult, TensorRange, check_threshold
from workbench.calibration.histogram import BINS, ChannelExtremes, Histogram
from workbench.config import Calibrator
from workbench.datatypes import DataType
from workbench.errors import CalibrationError
from workbench.files import read_file, write_atomically
from workbench.network import NetworkDefinition, Tensor

FORMAT = "inference-workbench calibration 1"
SHOWN = 8
"""Names that a difference lists before it counts the rest."""


@dataclass(frozen=True)
class CacheDifference:
    """How a cache and a network with its data differ; false where they do not.

    new: tensors to calibrate that the cache lacks. missing: tensors of the cache that the network
    has no longer. changed: tensors that another network computes. data: (digest in the cache,
    digest of the data), or None where it is the same or unknown.
    """

    new: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    data: tuple[str, str] | None = None

    def __bool__(self) -> bool:
        return bool(self.new or self.missing or self.changed or self.data)

    def __str__(self) -> str:
        parts = [
            f"{len(names)} {word}: {_listed(names)}"
            for word, names in (
                ("new", self.new),
                ("missing", self.missing),
                ("changed", self.changed),
            )
            if names
        ]
        if self.data:
            kept, given = (d[:16] for d in self.data)
            parts.append(f"the data is another (SHA-256 {kept}... kept, {given}... given)")
        return "; ".join(parts) or "nothing differs"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


@dataclass(frozen=True, eq=False)
class CalibrationCache:
    """A calibration result and, by tensor, the digest of what computed it.

    before_smoothing: the same of the network before smooth scaling, where that was asked for.
    """

    result: CalibrationResult
    digests: Mapping[str, str]
    before_smoothing: CalibrationCache | None = None

    @classmethod
    def of(cls, result: CalibrationResult, network: NetworkDefinition) -> CalibrationCache:
        """The cache of a calibration of ``network``; thresholds set by hand are no part of it."""
        result = result.with_calibrator(result.calibrator, percentile=result.percentile)
        return cls(result, tensor_digests(network, tuple(result.ranges)))

    @property
    def graph(self) -> str:
        """SHA-256 over all tensors' digests."""
        text = json.dumps(dict(sorted(self.digests.items())))
        return hashlib.sha256(text.encode()).hexdigest()

    def difference(
        self, network: NetworkDefinition, tensors: Sequence[str], data: str | None = None
    ) -> CacheDifference:
        """How this cache differs from what a calibration of ``tensors`` would need.

        data: digest of the data; None where it is not at hand.
        """
        wanted = tensor_digests(network, tensors)
        kept, given = self.result.digest, data
        return CacheDifference(
            tuple(t for t in wanted if t not in self.digests),
            tuple(t for t in self.digests if t not in wanted),
            tuple(t for t, d in wanted.items() if self.digests.get(t, d) != d),
            (kept, given) if given is not None and given != kept else None,
        )

    def result_for(
        self,
        network: NetworkDefinition,
        tensors: Sequence[str],
        *,
        data: str | None = None,
        place: str = "calibration cache",
    ) -> CalibrationResult:
        """The result, if it is that of this network and data. Raises CalibrationError if stale."""
        difference = self.difference(network, tensors, data)
        if difference:
            raise CalibrationError(
                f"it is stale: {difference}",
                place=place,
                remedy="remove it and calibrate again, or name another file",
            )
        return self.result

    # -- file -----------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write the file atomically; equal calibrations give equal bytes. Raises FileError."""
        write_atomically(Path(path), json.dumps(self.to_json(), indent=1).encode() + b"\n")

    @classmethod
    def load(cls, path: str | Path) -> CalibrationCache:
        """Read what ``save`` wrote. Raises FileError, and CalibrationError where it is damaged."""
        return cls.from_bytes(read_file(Path(path)), place=str(path))

    @classmethod
    def from_bytes(cls, data: bytes, *, place: str = "calibration cache") -> CalibrationCache:
        """Read a file's bytes. Raises CalibrationError where they are something else."""
        try:
            return cls.from_json(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as e:
            raise CalibrationError(
                f"it is no calibration cache, or damaged: {e}",
                place=place,
                remedy="remove it and calibrate again",
            ) from None

    def to_json(self) -> dict[str, Any]:
        r = self.result
        data: dict[str, Any] = {
            "format": FORMAT,
            "graph": self.graph,
            "data": r.digest,
            "label": r.label,
            "samples": r.samples,
            "calibrator": r.calibrator.value,
            "percentile": r.percentile,
            "tensors": {
                n: {"digest": self.digests[n], **_range_to_json(t)} for n, t in r.ranges.items()
            },
        }
        if self.before_smoothing is not None:
            data["before_smoothing"] = self.before_smoothing.to_json()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CalibrationCache:
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r}, not {FORMAT!r}")
        before = cls.from_json(data["before_smoothing"]) if "before_smoothing" in data else None
        tensors: dict[str, Any] = data["tensors"]
        result = CalibrationResult(
            {n: _range_from_json(n, t) for n, t in tensors.items()},
            Calibrator(data["calibrator"]),
            int(data["samples"]),
            str(data["data"]),
            str(data["label"]),
            float(data["percentile"]),
            before.result if before is not None else None,
        )
        cache = cls(result, {n: str(t["digest"]) for n, t in tensors.items()}, before)
        if cache.graph != data["graph"]:
            raise ValueError("its digests do not belong together")
        return cache


# -- JSON of a range ------------------------------------------------------------------------
def _range_to_json(found: TensorRange) -> dict[str, Any]:
    h = found.histogram
    data: dict[str, Any] = {
        "threshold": found.threshold,
        "constant": found.constant,
        "limit": h.limit,
        "amax": h.amax,
        "low": h.low if h.total else None,
        "high": h.high if h.total else None,
        "total": h.total,
        "counts": _packed(h.counts.astype("<i8")),
    }
    c = found.channels
    if c is not None and c.low is not None and c.high is not None:
        sides = {"low": _packed(c.low.astype("<f4")), "high": _packed(c.high.astype("<f4"))}
        data["channels"] = {"axis": c.axis, **sides}
    return data


def _range_from_json(name: str, data: Mapping[str, Any]) -> TensorRange:
    h = Histogram()
    h.counts = _unpacked(data["counts"], "<i8").astype(np.int64)
    if h.counts.shape != (BINS,):
        raise ValueError(f"tensor '{name}' has {h.counts.size} bins, not {BINS}")
    h.limit, h.amax, h.total = float(data["limit"]), float(data["amax"]), int(data["total"])
    if h.total:
        h.low, h.high = float(data["low"]), float(data["high"])
    channels = None
    if "channels" in data:
        channels = ChannelExtremes(int(data["channels"]["axis"]))
        channels.low = _unpacked(data["channels"]["low"], "<f4").astype(np.float32)
        channels.high = _unpacked(data["channels"]["high"], "<f4").astype(np.float32)
    check_threshold(name, float(data["threshold"]))
    return TensorRange(name, h, float(data["threshold"]), bool(data["constant"]), channels)


def _packed(array: Array) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def _unpacked(text: str, dtype: str) -> Array:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


# -- digests --------------------------------------------------------------------------------
def tensor_digests(network: NetworkDefinition, tensors: Sequence[str]) -> dict[str, str]:
    """Of each tensor, a digest of the layers, weights and inputs that compute it (32 hex digits).

    A tensor that the network does not have gets none.
    """
    known: dict[Tensor, str] = {}
    for tensor in network.inputs:
        known[tensor] = _digest("input", tensor.name, str(tensor.type))
    for layer in network.layers:
        for t in layer.operands:
            if t not in known:
                known[t] = _constant_digest(t)
        operands = [known[t] for t in layer.operands]
        for index, t in enumerate(layer.outputs):
            known[t] = _digest(layer.body.signature, str(index), *operands)
    wanted = (network.tensors[n] for n in tensors if n in network.tensors)
    return {t.name: known.get(t) or _constant_digest(t) for t in wanted}


def _constant_digest(tensor: Tensor) -> str:
    if tensor.weight is None:
        return _digest("value", repr(tensor.value))
    array = tensor.weight.array
    stored = np.ascontiguousarray(array)
    data = repr(array.tolist()).encode() if array.dtype == object else stored.tobytes()
    kind = DataType.of(array).value
    return _digest("constant", kind, str(array.shape), hashlib.sha256(data).hexdigest())


def _digest(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]
