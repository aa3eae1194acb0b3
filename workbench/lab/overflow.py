"""The hunt for NaN and overflow: which layer, which sample, which value, beyond which limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from workbench.body import Array
from workbench.config import BuilderConfig
from workbench.datatypes import CALIBRATED, DataType
from workbench.lab.trials import PrecisionTrials
from workbench.precision import PrecisionDecision, resolve
from workbench.records import Progress, ProgressMonitor

BEYOND = "beyond the limit"
INHERITED = "from NaN or infinity before it"
INSIDE = "inside the layer"
FLOAT_TOO = "in the float model too"


@dataclass(frozen=True)
class Overflow:
    """Where a layer's output stops being finite, at its first sample.

    sample: number of the sample, over all batches. index: of the element in that sample whose float
    value is largest. value: in the float model; found: in the build. limit: largest finite number
    of the type that the layer is built in. cause: ``beyond the limit``; ``from NaN or infinity
    before it``; ``inside the layer`` (its sum or a part of it, for the value itself fits); ``in the
    float model too``. samples: how many samples are hit.
    """

    layer: str
    op: str
    nodes: tuple[str, ...]
    built: DataType
    sample: int
    index: tuple[int, ...]
    value: float
    found: float
    limit: float
    cause: str
    samples: int

    def __str__(self) -> str:
        where = f"{self.layer} ({self.op}), sample {self.sample}, element {self.index}"
        return (
            f"{where}: {self.value:.6g} became {self.found:.6g} in {self.built.info.label}, "
            f"whose largest number is {self.limit:.6g}; {self.cause}; {self.samples} samples"
        )


@dataclass(frozen=True)
class Headroom:
    """The largest value of a layer in the float model, beside the limit of its type."""

    layer: str
    largest: float
    sample: int
    limit: float

    @property
    def share(self) -> float:
        """Largest value over the limit; from 1 on it overflows."""
        return self.largest / self.limit


@dataclass(frozen=True, eq=False)
class OverflowHunt:
    """Layers whose values stop being finite, in the network's order, and every layer's headroom.

    samples: how many were looked at.
    """

    overflows: tuple[Overflow, ...]
    headroom: tuple[Headroom, ...]
    samples: int

    @property
    def causes(self) -> tuple[Overflow, ...]:
        """Those that inherit nothing: what is to be mended."""
        return tuple(o for o in self.overflows if o.cause != INHERITED)

    @property
    def nearest(self) -> Headroom | None:
        """The layer with the least headroom."""
        return max(self.headroom, key=lambda h: h.share, default=None)


def hunt_overflow(
    trials: PrecisionTrials,
    kind: DataType = DataType.HALF,
    *,
    config: BuilderConfig | None = None,
    monitor: ProgressMonitor | None = None,
) -> OverflowHunt:
    """Run a build on every sample kept, and look at each layer's output by taps.

    config: what to build; by default every layer in ``kind``. The plan is the delivered one.
    """
    config = config or trials.lowered(kind)
    decisions = {d.layer: d for d in resolve(trials.network, config)}
    state = trials.build(config)
    hits: dict[str, Overflow] = {}
    hit_samples: dict[str, set[int]] = {}
    room: dict[str, Headroom] = {}
    at, steps = 0, len(trials.inner_reference)
    with Progress(monitor or ProgressMonitor(), "Overflow", steps) as progress:
        for exact, found in trials.watched(state):
            size = 0
            for d in _in_order(trials, decisions, found):
                bad = _not_finite(found[d.layer])
                if bad.size and d.layer not in hits:
                    row = int(bad[0])
                    hits[d.layer] = _hit(d, exact[d.layer][row], found[d.layer][row], at + row)
                if bad.size:
                    hit_samples.setdefault(d.layer, set()).update(at + int(r) for r in bad)
                _measure(d, exact[d.layer], at, room)
                size = len(exact[d.layer])
            at += size
            progress.step()
    order = [x.name for x in trials.network.layers]
    rows = tuple(_caused(hits[x], trials, hit_samples) for x in order if x in hits)
    return OverflowHunt(rows, tuple(room[x] for x in order if x in room), at)


def _in_order(
    trials: PrecisionTrials, decisions: dict[str, PrecisionDecision], found: dict[str, Array]
) -> Iterator[PrecisionDecision]:
    for layer in trials.network.layers:
        if layer.name in decisions and layer.name in found:
            yield decisions[layer.name]


def _not_finite(found: Array) -> Array:
    """The samples of a batch that hold NaN or infinity."""
    return np.flatnonzero(~np.isfinite(found).reshape(len(found), -1).all(axis=1))


def _hit(d: PrecisionDecision, exact: Array, found: Array, sample: int) -> Overflow:
    """The element of one sample whose float value is largest, of those that are not finite."""
    bad = ~np.isfinite(found)
    places = np.argwhere(bad)
    sizes = np.nan_to_num(np.abs(exact[bad].astype(np.float64)), nan=np.inf)
    index = tuple(int(i) for i in places[int(sizes.argmax())])
    value, limit = float(exact[index]), _limit(d)
    cause = BEYOND if abs(value) > limit else INSIDE
    cause = cause if np.isfinite(value) else FLOAT_TOO
    return Overflow(
        *(d.layer, d.op, d.origin, d.arithmetic, sample, index),
        *(value, float(found[index]), limit, cause, 1),
    )


def _caused(hit: Overflow, trials: PrecisionTrials, samples: dict[str, set[int]]) -> Overflow:
    """The hit with its samples and cause: what reads what was not finite there inherits it."""
    hit = replace(hit, samples=len(samples[hit.layer]))
    todo, seen = [trials.network.layer(hit.layer)], set[str]()
    while todo:
        for t in todo.pop().inputs:
            made = t.producer if t is not None else None
            if made is None or made.name in seen:
                continue
            seen.add(made.name)
            if hit.sample in samples.get(made.name, ()):
                return replace(hit, cause=INHERITED)
            todo.append(made)
    return hit


def _measure(d: PrecisionDecision, exact: Array, at: int, room: dict[str, Headroom]) -> None:
    sizes = np.abs(exact.astype(np.float64)).reshape(len(exact), -1).max(axis=1, initial=0.0)
    row = int(sizes.argmax())
    if d.layer not in room or sizes[row] > room[d.layer].largest:
        room[d.layer] = Headroom(d.layer, float(sizes[row]), at + row, _limit(d))


def _limit(d: PrecisionDecision) -> float:
    """The largest finite number of what the layer stores; quantized types clip, by their scales."""
    kind = d.arithmetic if d.arithmetic not in CALIBRATED else DataType.FLOAT
    return kind.info.high
