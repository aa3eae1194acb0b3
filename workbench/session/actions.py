"""Actions: what a person asked of a session, one frozen record each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.config import (
    BuilderConfig,
    BuilderFlag,
    Calibrator,
    MemoryPoolType,
    OptimizationProfile,
)
from workbench.datatypes import DataType
from workbench.errors import SessionError
from workbench.network.remedies import GraphEdits
from workbench.records import Stage


@dataclass(frozen=True)
class SetPrecision:
    """Request a precision for the model nodes that match a pattern."""

    pattern: str
    precision: DataType

    def apply(self, config: BuilderConfig) -> None:
        config.set_precision(self.pattern, self.precision)

    def code(self) -> str:
        return f"config.set_precision({self.pattern!r}, {self.precision.info.label!r})"


@dataclass(frozen=True)
class SetPrecisions:
    """Several requests as one action, which one undo takes back.

    requests: (pattern, precision) pairs, in order. default: of the nodes that none names, None to
    leave it. only: forget the requests before.
    """

    requests: tuple[tuple[str, DataType], ...]
    default: DataType | None = None
    only: bool = False

    def apply(self, config: BuilderConfig) -> None:
        if self.only:
            config.precisions = ()
        if self.default is not None:
            config.default_precision = self.default
        for pattern, precision in self.requests:
            config.set_precision(pattern, precision)

    def code(self) -> str:
        lines = ["config.precisions = ()"] if self.only else []
        if self.default is not None:
            lines.append(f"config.default_precision = wb.DataType.{self.default.name}")
        lines += [f"config.set_precision({p!r}, {k.info.label!r})" for p, k in self.requests]
        return "\n".join(lines)


@dataclass(frozen=True)
class SetDefaultPrecision:
    """The precision of every node that no pattern names."""

    precision: DataType

    def apply(self, config: BuilderConfig) -> None:
        config.default_precision = self.precision

    def code(self) -> str:
        return f"config.default_precision = wb.DataType.{self.precision.name}"


@dataclass(frozen=True)
class ClearPrecisions:
    """Forget every request that names nodes."""

    def apply(self, config: BuilderConfig) -> None:
        config.precisions = ()

    def code(self) -> str:
        return "config.precisions = ()"


@dataclass(frozen=True)
class SetProfile:
    """The smallest, the tuned-for and the largest shape of an input."""

    input: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def apply(self, config: BuilderConfig) -> None:
        given = config.optimization_profiles
        profile = OptimizationProfile(dict(given[0].shapes)) if given else OptimizationProfile()
        profile.set_shape(self.input, self.min, self.opt, self.max)
        config.optimization_profiles = (profile, *given[1:])

    def code(self) -> str:
        return f"profile.set_shape({self.input!r}, {self.min}, {self.opt}, {self.max})"


@dataclass(frozen=True)
class SetCalibrator:
    """How ranges are read from histograms."""

    calibrator: Calibrator

    def apply(self, config: BuilderConfig) -> None:
        config.calibrator = self.calibrator

    def code(self) -> str:
        return f"config.calibrator = wb.Calibrator.{self.calibrator.name}"


@dataclass(frozen=True)
class SetThreshold:
    """Clip one tensor at a magnitude set by hand; None lets calibration decide again."""

    tensor: str
    threshold: float | None

    def apply(self, config: BuilderConfig) -> None:
        if self.threshold is None:
            config.reset_dynamic_range(self.tensor)
        else:
            config.set_dynamic_range(self.tensor, -self.threshold, self.threshold)

    def code(self) -> str:
        if self.threshold is None:
            return f"config.reset_dynamic_range({self.tensor!r})"
        return f"config.set_dynamic_range({self.tensor!r}, {-self.threshold!r}, {self.threshold!r})"


@dataclass(frozen=True)
class SetOption:
    """One of the config's plain settings."""

    name: str
    value: Any

    NAMES = (
        "builder_optimization_level",
        "max_num_tactics",
        "avg_timing_iterations",
        "tactic_sources",
        "num_threads",
        "max_loop_steps",
        "max_aux_streams",
        "hardware_compatibility_level",
        "verify",
        "percentile",
        "weight_scales",
        "equalize_channels",
        "smooth_alpha",
    )

    def apply(self, config: BuilderConfig) -> None:
        if self.name not in self.NAMES:
            raise SessionError(f"no setting is called '{self.name}'", place="SetOption")
        setattr(config, self.name, self.value)

    def code(self) -> str:
        return f"config.{self.name} = {self.value!r}"


@dataclass(frozen=True)
class SetFlag:
    """Set one of the config's flags, or clear it."""

    flag: BuilderFlag
    on: bool = True

    def apply(self, config: BuilderConfig) -> None:
        (config.set_flag if self.on else config.clear_flag)(self.flag)

    def code(self) -> str:
        return f"config.{'set' if self.on else 'clear'}_flag(wb.BuilderFlag.{self.flag.name})"


@dataclass(frozen=True)
class SetWorkspace:
    """Largest scratch memory of a tactic, in bytes."""

    nbytes: int

    def apply(self, config: BuilderConfig) -> None:
        config.set_memory_pool_limit(MemoryPoolType.WORKSPACE, self.nbytes)

    def code(self) -> str:
        return f"config.set_memory_pool_limit(wb.MemoryPoolType.WORKSPACE, {self.nbytes})"


@dataclass(frozen=True)
class EditNetwork:
    """Change the network before a stage (Fold or Fuse): a remedy's edit, a tensor to mark."""

    edit: GraphEdits
    before: Stage = Stage.FUSE

    def apply(self, config: BuilderConfig) -> None:
        config.edit_network(self.edit, before=self.before)

    def code(self) -> str:
        return f"config.edit_network(remedies.{self.edit!r}, before={self.before.value!r})"


@dataclass(frozen=True)
class UseCalibrationData:
    """Calibrate on this data, known by its digest; the session keeps the batches."""

    digest: str
    label: str

    def apply(self, config: BuilderConfig) -> None:
        """The data is not part of the config."""

    def code(self) -> str:
        return f"# calibration data: {self.label}, SHA-256 {self.digest[:16]}..."


Action = (
    SetPrecision
    | SetPrecisions
    | SetDefaultPrecision
    | ClearPrecisions
    | SetProfile
    | SetCalibrator
    | SetThreshold
    | SetOption
    | SetFlag
    | SetWorkspace
    | EditNetwork
    | UseCalibrationData
)
