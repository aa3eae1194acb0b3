"""BuilderConfig and its switches: what a build is allowed to do."""

from __future__ import annotations

import builtins
import copy
import enum
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from workbench.datatypes import PRECISIONS, DataType
from workbench.errors import ConfigError
from workbench.gpu_targets import HardwareCompatibilityLevel
from workbench.network.remedies import GraphEdits, edit_from_json, edit_to_json
from workbench.optimization_profile import OptimizationProfile
from workbench.patterns import check_pattern, matches
from workbench.records import ProgressMonitor, Stage


class BuilderFlag(enum.Enum):
    """Switches of a build, named as TensorRT names them.

    TF32, set unless cleared as in TensorRT: a GPU's products may read float32 factors as TF32.
    FP16, BF16, INT8 (TensorRT ≤ 10, removed in 11): weak typing. The tuner may choose these types
    by time; its choice is written into the graph and built strongly typed.
    """

    DEBUG = "DEBUG"
    REFIT = "REFIT"
    DISABLE_TIMING_CACHE = "DISABLE_TIMING_CACHE"
    ERROR_ON_TIMING_CACHE_MISS = "ERROR_ON_TIMING_CACHE_MISS"
    TF32 = "TF32"
    FP16 = "FP16"
    BF16 = "BF16"
    INT8 = "INT8"


WEAK_FLAGS = frozenset({BuilderFlag.FP16, BuilderFlag.BF16, BuilderFlag.INT8})
"""Those of weak typing."""


class MemoryPoolType(enum.Enum):
    """Memory pools that have a limit."""

    WORKSPACE = "WORKSPACE"


class Calibrator(enum.Enum):
    """How a tensor's range is found from its calibration histogram."""

    ENTROPY = "entropy"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"


PERCENTILE = 99.99
"""Share of the magnitudes that the percentile calibrator keeps unless told, in percent."""


MOST_AUX_STREAMS = 16


class BuilderConfig:
    """What a build may do. Mutable until a build takes a frozen copy; JSON round trip.

    precisions: (pattern over model node names, DataType) pairs; the last match wins, else
    ``default_precision``. Patterns: names, shell-style (``blocks.*.attn.*``), ``re:`` a regular
    expression, ``op:MatMul`` an operator, ``at:0:4`` places.
    percentile: what Calibrator.PERCENTILE keeps, in percent. weight_scales: one INT8 scale a
    ``channel`` of a weight, or one a ``tensor``. equalize_channels: cross-layer equalisation
    before calibration. smooth_alpha: smooth scaling of activations into weights, 0 to 1; None
    leaves it out. dynamic_ranges: largest magnitude by tensor, set by hand, not calibrated.
    int8_calibrator: an object with TensorRT's calibrator methods; not part of the JSON.
    builder_optimization_level: 0 takes the first tactic that fits, untimed; 1 to 5 time more and
    more. max_num_tactics: timed a layer at most, sources taking turns; -1: the level decides.
    avg_timing_iterations: samples behind each median. tactic_sources: None for all.
    max_loop_steps: iterations after which a Loop counts as endless; None: 20,000.
    max_aux_streams: streams beside the caller's on which a GPU may run branches of the network.
    hardware_compatibility_level: on which other GPUs the plan must load; its name will do.
    network_edits: what ``edit_network`` asked for, in order.
    """

    _JSON = (
        "default_precision precisions calibrator percentile weight_scales equalize_channels "
        "smooth_alpha dynamic_ranges flags memory_pool_limits optimization_profiles "
        "builder_optimization_level max_num_tactics avg_timing_iterations tactic_sources "
        "num_threads verify allow_host_layers max_loop_steps network_edits max_aux_streams "
        "hardware_compatibility_level"
    ).split()

    def __init__(self) -> None:
        self.default_precision = DataType.FLOAT
        self.precisions: tuple[tuple[str, DataType], ...] = ()
        self.calibrator = Calibrator.ENTROPY
        self.percentile = PERCENTILE
        self.weight_scales = "channel"
        self.equalize_channels = False
        self.smooth_alpha: float | None = None
        self.dynamic_ranges: dict[str, float] = {}
        self.int8_calibrator: Any = None
        self.flags: frozenset[BuilderFlag] = frozenset({BuilderFlag.TF32})
        self.memory_pool_limits: dict[MemoryPoolType, int] = {MemoryPoolType.WORKSPACE: 1 << 30}
        self.optimization_profiles: tuple[OptimizationProfile, ...] = ()
        self.builder_optimization_level = 3
        self.max_num_tactics = -1
        self.avg_timing_iterations = 8
        self.tactic_sources: tuple[str, ...] | None = None
        self.num_threads: int | None = None
        self.verify = "distinct"
        self.allow_host_layers = False
        self.max_loop_steps: int | None = None
        self.max_aux_streams = 0
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.network_edits: tuple[tuple[Stage, GraphEdits], ...] = ()
        self.timing_cache: Any = None
        self.progress_monitor = ProgressMonitor()
        self._frozen = False

    def __setattr__(self, name: str, value: object) -> None:
        if getattr(self, "_frozen", False):
            raise ConfigError(
                f"'{name}' cannot change while building", remedy="copy it: config.clone()"
            )
        if name == "verify" and value not in ("distinct", "all", "none"):
            raise ConfigError(f"verify is {value!r}", remedy="use 'distinct', 'all' or 'none'")
        if name == "builder_optimization_level" and value not in range(6):
            raise ConfigError(f"builder_optimization_level is {value!r}", remedy="use 0 to 5")
        if name == "num_threads" and isinstance(value, int) and value < 1:
            raise ConfigError(f"num_threads is {value}", remedy="use 1 or more, or None for all")
        if name == "max_num_tactics" and (not isinstance(value, int) or value < 1) and value != -1:
            raise ConfigError(
                f"max_num_tactics is {value!r}", remedy="use 1 or more, or -1: the level decides"
            )
        if name == "avg_timing_iterations" and (not isinstance(value, int) or value < 1):
            raise ConfigError(f"avg_timing_iterations is {value!r}", remedy="use 1 or more")
        if name == "max_aux_streams" and value not in range(MOST_AUX_STREAMS + 1):
            raise ConfigError(
                f"max_aux_streams is {value!r}", remedy=f"use 0 to {MOST_AUX_STREAMS}"
            )
        if name in ("percentile", "weight_scales", "smooth_alpha"):
            _check_calibration(name, value)
        if name == "hardware_compatibility_level":
            value = _level(value)
        super().__setattr__(name, value)

    # -- TensorRT's methods ---------------------------------------------------------------
    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags = self.flags | {flag}

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags = self.flags - {flag}

    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self.flags

    def set_memory_pool_limit(self, pool: MemoryPoolType, nbytes: int) -> None:
        """Largest bytes a tactic may take from a pool."""
        self.memory_pool_limits = {**self.memory_pool_limits, pool: int(nbytes)}

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        return self.memory_pool_limits[pool]

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        """Add a profile; returns its index."""
        self.optimization_profiles = (*self.optimization_profiles, profile)
        return len(self.optimization_profiles) - 1

    def set_tactic_sources(self, sources: Iterable[str]) -> None:
        """Only these sources (by name) may offer tactics; they are asked in this order.

        The build raises ConfigError for a name that no source has.
        """
        self.tactic_sources = tuple(sources)

    def set_timing_cache(self, cache: Any) -> None:
        """Look timings up in this TimingCache, and add what is measured."""
        self.timing_cache = cache

    def edit_network(self, edit: GraphEdits, *, before: Stage | str = Stage.FUSE) -> None:
        """Change the network before Fold or before Fuse: a remedy's edit, a tensor to mark.

        Raises ConfigError for another stage. An edit that does not fit stops the build there.
        """
        stage = Stage(before)
        if stage not in (Stage.FOLD, Stage.FUSE):
            raise ConfigError(
                f"no edit is made before {stage.value}", remedy="edit before 'Fold' or 'Fuse'"
            )
        self.network_edits = (*self.network_edits, (stage, edit))

    # -- precision ------------------------------------------------------------------------
    def set_precision(self, pattern: str, precision: DataType | str) -> None:
        """Request a precision for the model nodes that match; see ``patterns.matches``.

        By name with wildcards, or ``re:`` expression, ``op:`` operator, ``at:`` places.
        """
        check_pattern(pattern)
        kind = DataType.of(precision)
        if kind not in PRECISIONS:
            names = ", ".join(p.info.label for p in PRECISIONS)
            raise ConfigError(f"{kind.value} cannot be requested for '{pattern}'; use {names}")
        kept = tuple(p for p in self.precisions if p[0] != pattern)
        self.precisions = (*kept, (pattern, kind))

    def precision_of(self, node: str, *, op: str = "", place: int = 0, of: int = 0) -> DataType:
        """What is requested for a model node: of that operator, at this place among ``of``."""
        for pattern, kind in reversed(self.precisions):
            if matches(pattern, node, op=op, place=place, of=of):
                return kind
        return self.default_precision

    def set_dynamic_range(self, tensor: str, min: float, max: float) -> None:
        """Quantize a tensor over [min, max], made symmetric, whatever calibration finds.

        TensorRT's ITensor.set_dynamic_range. Raises ConfigError unless min <= max, both finite.
        """
        place = f"dynamic range of tensor '{tensor}'"
        if not (math.isfinite(min) and math.isfinite(max)) or min > max:
            raise ConfigError(f"{min}..{max} is no range", place=place, remedy="give min <= max")
        largest = float(builtins.max(abs(min), abs(max)))
        if largest == 0.0:
            raise ConfigError("a range of zero has no scale", place=place)
        self.dynamic_ranges = {**self.dynamic_ranges, tensor: largest}

    def reset_dynamic_range(self, tensor: str) -> None:
        """Let calibration decide again."""
        self.dynamic_ranges = {k: v for k, v in self.dynamic_ranges.items() if k != tensor}

    # -- copies and JSON ------------------------------------------------------------------
    def clone(self) -> BuilderConfig:
        """An independent, editable copy (the timing cache and monitor are shared)."""
        twin = BuilderConfig()
        for k, v in self.__dict__.items():
            if k != "_frozen":
                setattr(twin, k, copy.copy(v) if isinstance(v, dict) else v)
        twin.optimization_profiles = tuple(
            OptimizationProfile(dict(p.shapes)) for p in self.optimization_profiles
        )
        return twin

    def frozen(self) -> BuilderConfig:
        """A copy that refuses changes."""
        twin = self.clone()
        object.__setattr__(twin, "_frozen", True)
        return twin

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the plan (neither cache nor monitor)."""
        return {
            "default_precision": self.default_precision.value,
            "precisions": [[p, d.value] for p, d in self.precisions],
            "calibrator": self.calibrator.value,
            "percentile": self.percentile,
            "weight_scales": self.weight_scales,
            "equalize_channels": self.equalize_channels,
            "smooth_alpha": self.smooth_alpha,
            "dynamic_ranges": dict(sorted(self.dynamic_ranges.items())),
            "flags": sorted(f.value for f in self.flags),
            "memory_pool_limits": {k.value: v for k, v in self.memory_pool_limits.items()},
            "optimization_profiles": [p.to_json() for p in self.optimization_profiles],
            "builder_optimization_level": self.builder_optimization_level,
            "max_num_tactics": self.max_num_tactics,
            "avg_timing_iterations": self.avg_timing_iterations,
            "tactic_sources": None if self.tactic_sources is None else list(self.tactic_sources),
            "num_threads": self.num_threads,
            "verify": self.verify,
            "allow_host_layers": self.allow_host_layers,
            "max_loop_steps": self.max_loop_steps,
            "max_aux_streams": self.max_aux_streams,
            "hardware_compatibility_level": self.hardware_compatibility_level.value,
            "network_edits": [[s.value, edit_to_json(e)] for s, e in self.network_edits],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> BuilderConfig:
        """What ``to_json`` wrote. Raises ConfigError on an unknown key."""
        values = json.loads(data) if isinstance(data, str) else dict(data)
        unknown = sorted(set(values) - set(cls._JSON))
        if unknown:
            raise ConfigError(f"unknown setting {', '.join(unknown)}", place="BuilderConfig")
        read: dict[str, Any] = {
            "default_precision": DataType,
            "precisions": lambda v: tuple((p, DataType(d)) for p, d in v),
            "calibrator": Calibrator,
            "hardware_compatibility_level": HardwareCompatibilityLevel,
            "flags": lambda v: frozenset(BuilderFlag(f) for f in v),
            "memory_pool_limits": lambda v: {MemoryPoolType(k): n for k, n in v.items()},
            "optimization_profiles": lambda v: tuple(map(OptimizationProfile.from_json, v)),
            "tactic_sources": lambda v: None if v is None else tuple(v),
            "network_edits": lambda v: tuple((Stage(s), edit_from_json(e)) for s, e in v),
        }
        config = cls()
        for k, v in values.items():
            setattr(config, k, read[k](v) if k in read else v)
        return config

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BuilderConfig) and self.to_json() == other.to_json()

    __hash__ = None  # pyright: ignore


def _level(value: object) -> HardwareCompatibilityLevel:
    """The level of this name, or itself. Raises ConfigError."""
    try:
        return HardwareCompatibilityLevel(value)
    except ValueError:
        names = ", ".join(x.value for x in HardwareCompatibilityLevel)
        raise ConfigError(
            f"hardware_compatibility_level is {value!r}", remedy=f"use {names}"
        ) from None


def _check_calibration(name: str, value: object) -> None:
    """Raises ConfigError for a value that a calibration setting cannot have."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "percentile" and not (number and 50 < float(value) <= 100):  # pyright: ignore
        raise ConfigError(f"percentile is {value!r}", remedy="give more than 50, at most 100")
    if name == "weight_scales" and value not in ("channel", "tensor"):
        raise ConfigError(f"weight_scales is {value!r}", remedy="use 'channel' or 'tensor'")
    fits = value is None or (number and 0 <= float(value) <= 1)  # pyright: ignore
    if name == "smooth_alpha" and not fits:
        raise ConfigError(f"smooth_alpha is {value!r}", remedy="give 0 to 1, or None")
