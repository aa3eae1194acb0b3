"""How a tactic is timed, and the TimingCache that keeps what was measured.

A timing is taken after warm-up, alone on the machine: microseconds, the median of several samples
(``Device.timer`` says in which state the caches are). Hopeless tactics are cut off early.
"""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.body import Body
from workbench.devices import Device, Fingerprint
from workbench.digests import sha256_hex
from workbench.errors import TimingCacheError
from workbench.files import read_file, write_atomically
from workbench.tactics.protocol import Tactic, tactic_to_json

PROTOCOLS = {"cpu": 5, "gpu": 4}
"""Version of the timing method of each kind of device; part of every key."""
STEADY_SAMPLES = 20
BUSY_SPREAD = 0.25
"""Spread of the fixed kernel from which on the device counts as busy."""
CUT_OFF = 4.0
"""A tactic whose first run takes this many times the best median so far is timed no further."""
RETAKES = 3
CONTENDS = 1.25
"""How often a noisy timing is taken anew, its samples joined, and up to which least time, as a
multiple of the best median so far: on a busy machine few samples are undisturbed, with several
threads fewer still."""


@dataclass(frozen=True)
class Timing:
    """A measured time in microseconds.

    spread_us: median absolute deviation, scaled to a standard deviation. noisy: the machine was
    too busy for the ranking to be trusted. cut_off: one sample only, far behind the best.
    """

    median_us: float
    min_us: float
    spread_us: float
    samples: int
    date: str
    noisy: bool = False
    cut_off: bool = False

    @classmethod
    def of(cls, samples_us: list[float], *, cut_off: bool = False) -> Timing:
        """From samples. A spread above a fifth of the median is noisy."""
        median = statistics.median(samples_us)
        spread = 1.4826 * statistics.median(abs(s - median) for s in samples_us)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        noisy = len(samples_us) > 2 and spread > 0.2 * median
        return cls(median, min(samples_us), spread, len(samples_us), today, noisy, cut_off)

    @property
    def likely_us(self) -> float:
        """What it takes when left alone: the median, or on a busy machine the least.

        What others take of a processor only ever adds.
        """
        return self.min_us if self.noisy else self.median_us

    def distinguishable(self, other: Timing) -> bool:
        """Whether the two medians differ by more than their spreads and 3%, or by half.

        However wide the spread: on a busy machine a tactic far behind must not pass for a tie.
        """
        gap = abs(self.median_us - other.median_us)
        less = min(self.median_us, other.median_us)
        noise = max(self.spread_us, other.spread_us, 0.03 * less)
        return gap > min(noise, 0.5 * less)


@dataclass(frozen=True)
class Steadiness:
    """How evenly a device runs one fixed kernel, alone: what timings taken there are worth.

    spread: between the fastest run and the ninth of ten, relative to the fastest.
    """

    median_us: float
    spread: float
    samples: int

    @property
    def busy(self) -> bool:
        """Whether something else runs there, or its clocks change: timings are noisy."""
        return self.spread > BUSY_SPREAD

    def __str__(self) -> str:
        state = "the device is busy" if self.busy else "the device is steady"
        return (
            f"{state}: a fixed kernel of {self.median_us:.0f} µs varies by {100 * self.spread:.0f}%"
        )


def steadiness(device: Device) -> Steadiness:
    """Time the device's fixed kernel, after warm-up, in a few milliseconds."""
    launch = device.fixed_work()
    for _ in range(3):
        launch()
    device.synchronize()
    samples = sorted(device.timer(launch, None)(STEADY_SAMPLES))
    ninth = samples[(9 * len(samples)) // 10]
    return Steadiness(statistics.median(samples), ninth / samples[0] - 1, len(samples))


def measure(
    launch: Callable[[], None],
    device: Device,
    *,
    iterations: int,
    best_us: float = float("inf"),
    stream: Any = None,
    threads: int = 1,
) -> Timing:
    """Time a bound launch. ``best_us``: the best median so far, for the early cut-off.

    threads: that it may use, of a CPU.
    """
    launch()
    device.synchronize(stream)
    timer = device.timer(launch, stream, threads)
    first = timer(1)[0]
    if first > CUT_OFF * best_us:
        # Twice more: one slow run may be the machine's fault, not the tactic's.
        first = min(first, *timer(2))
        if first > CUT_OFF * best_us:
            return Timing.of([first], cut_off=True)
    samples = timer(iterations)
    for _ in range(RETAKES):
        found = Timing.of(samples)
        if not found.noisy or found.min_us > CONTENDS * best_us:
            break
        samples += timer(iterations)
    return Timing.of(samples)


def measure_again(
    launch: Callable[[], None],
    device: Device,
    before: Timing,
    *,
    glance: int,
    iterations: int,
    threads: int,
) -> Timing:
    """The quieter, by the median, of what was timed and of what is timed now.

    It is timed as it was at first, ``iterations`` samples, where ``glance`` samples seem quieter.
    """
    timer = device.timer(launch, None, threads)
    if statistics.median(timer(glance)) >= before.median_us:
        return before
    return min(before, Timing.of(timer(iterations)), key=lambda t: t.median_us)


def _digest(parts: Mapping[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return sha256_hex(text.encode())[:32]


@dataclass(frozen=True)
class Entry:
    """What the cache keeps of one tactic: its timing, and what preparing and checking it gave.

    worst: largest error as a fraction of the bound; None when it was not checked. error: relative
    L2 distance to the exact result; None when it was not checked, or gives no floats.
    failure: why it was refused or is quarantined, or empty. kernel: the implementation's name; of
    several kernels together, what was decided (``runtime.early_starts``).
    """

    timing: Timing | None
    worst: float | None = None
    failure: str = ""
    quarantined: bool = False
    kernel: str = ""
    workspace_bytes: int = 0
    error: float | None = None


class TimingCache:
    """A keyed store of timings of one device. Merges; refuses another device's timings.

    hits, misses: lookups since it was made.
    """

    def __init__(self, device: Fingerprint) -> None:
        self.device = device
        self.entries: dict[str, Entry] = {}
        self.hits = 0
        self.misses = 0

    def key(
        self,
        tactic: Tactic,
        body: Body,
        threads: int,
        decided: str = "",
        other_sizes: Sequence[str] = (),
    ) -> str:
        """Identity of a timing: tactic, Body (with sizes and types), layouts, threads, device.

        decided: digest of the constants that sources decide by; see ``tactics.deciding``.
        other_sizes: signatures of the Body at which it was prepared and checked beside this one.
        """
        parts: dict[str, Any] = {
            "tactic": tactic_to_json(tactic),
            "body": body.signature,
            "threads": threads,
            "device": self.device.to_json(),
            "protocol": PROTOCOLS[self.device.kind],
        }
        if decided:
            parts["constants"] = decided
        if other_sizes:
            parts["sizes"] = list(other_sizes)
        return f"{tactic.source}/{tactic.name}/{_digest(parts)}"

    def key_of(self, what: str, names: Sequence[str]) -> str:
        """Identity of what was measured of several kernels together, and is called ``what``."""
        parts = {
            "names": list(names),
            "device": self.device.to_json(),
            "protocol": PROTOCOLS[self.device.kind],
        }
        return f"{what}/{_digest(parts)}"

    def query(self, key: str, *, checked: bool = False) -> Entry | None:
        """The entry that it ``holds``, or None; counts a hit or a miss."""
        if not self.holds(key, checked=checked):
            self.misses += 1
            return None
        self.hits += 1
        return self.entries[key]

    def holds(self, key: str, *, checked: bool = False) -> bool:
        """Whether a timing or a lasting failure is known; checked: of a kernel that was compared.

        An entry with neither, as older caches have, was over the workspace limit of then.
        """
        entry = self.entries.get(key)
        if entry is None or entry.failure:
            return entry is not None
        return entry.timing is not None and not (checked and entry.worst is None)

    def update(self, key: str, entry: Entry) -> None:
        self.entries[key] = entry

    def combine(self, other: TimingCache, ignore_mismatch: bool = False) -> bool:
        """Add another cache's entries that this one lacks. Raises TimingCacheError."""
        if not ignore_mismatch:
            self._refuse_other_device(other, "timing cache")
        self.entries = {**other.entries, **self.entries}
        return True

    def _refuse_other_device(self, other: TimingCache, place: str) -> None:
        if other.device != self.device:
            raise TimingCacheError(
                f"it was measured on {other.device}, this is {self.device}",
                place=place,
                remedy="measure on this device, with a cache of its own",
            )

    def _combine_file(self, path: Path) -> None:
        other = TimingCache.deserialize(read_file(path), place=str(path))
        self._refuse_other_device(other, str(path))
        self.combine(other)

    def reset(self) -> bool:
        self.entries.clear()
        return True

    def serialize(self) -> bytes:
        """The cache as bytes (JSON), sorted."""
        data = {
            "format": "inference-workbench-timing-cache",
            "protocol": PROTOCOLS[self.device.kind],
            "device": self.device.to_json(),
            "entries": {k: asdict(v) for k, v in sorted(self.entries.items())},
        }
        return json.dumps(data, indent=0, sort_keys=True).encode()

    @classmethod
    def deserialize(cls, data: bytes, *, place: str = "timing cache") -> TimingCache:
        """What ``serialize`` wrote. Raises TimingCacheError, which names ``place``."""
        try:
            values: Mapping[str, Any] = json.loads(data)
            if values["format"] != "inference-workbench-timing-cache":
                raise ValueError(values["format"])
            cache = cls(Fingerprint.from_json(values["device"]))
            for key, entry in values["entries"].items():
                timing = Timing(**entry["timing"]) if entry["timing"] else None
                fields: dict[str, Any] = {**entry, "timing": timing}
                cache.entries[key] = Entry(**fields)
        except (ValueError, KeyError, TypeError) as e:
            raise TimingCacheError(
                f"it is damaged ({e})", place=place, remedy="delete it and measure again"
            ) from None
        return cache

    def save(self, path: str | Path) -> None:
        """Merge into the file: what another process stored meanwhile is kept. Atomic."""
        target = Path(path)
        if target.exists():
            self._combine_file(target)
        write_atomically(target, self.serialize())

    @classmethod
    def load(cls, path: str | Path, device: Fingerprint) -> TimingCache:
        """The file's cache, or an empty one if there is none.

        Raises TimingCacheError where it is damaged or another device's, FileError where it cannot
        be read.
        """
        target = Path(path)
        cache = cls(device)
        if target.exists():
            cache._combine_file(target)
        return cache
