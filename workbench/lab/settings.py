"""compare_settings: calibrators and channel scalings, tried before any layer is kept."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.calibration import channel_groups
from workbench.config import BuilderConfig, Calibrator
from workbench.datatypes import DataType
from workbench.lab.search import default_metric
from workbench.lab.trial_record import Trial
from workbench.lab.trials import PrecisionTrials
from workbench.records import Progress, ProgressMonitor


@dataclass(frozen=True)
class ChannelScaling:
    """What is done to the channels before calibration."""

    equalize: bool = False
    smooth: float | None = None

    def __str__(self) -> str:
        parts = ["equalised"] if self.equalize else []
        parts += [] if self.smooth is None else [f"smoothed {self.smooth:g}"]
        return " and ".join(parts) or "as they are"


SCALINGS = (
    ChannelScaling(),
    ChannelScaling(equalize=True),
    ChannelScaling(smooth=0.5),
    ChannelScaling(equalize=True, smooth=0.5),
)


@dataclass(frozen=True, eq=False)
class SettingTrial:
    """All layers lowered under one calibrator and channel scaling. loss: of the metric."""

    calibrator: Calibrator
    scaling: ChannelScaling
    loss: float
    trial: Trial

    def applied(self, config: BuilderConfig) -> BuilderConfig:
        """A copy of the config with these settings: the base of a search."""
        return _with(config, self.calibrator, self.scaling)

    @property
    def code(self) -> str:
        """The Python that sets it."""
        lines = [f"config.calibrator = wb.Calibrator.{self.calibrator.name}"]
        if self.scaling.equalize:
            lines.append("config.equalize_channels = True")
        if self.scaling.smooth is not None:
            lines.append(f"config.smooth_alpha = {self.scaling.smooth!r}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return (
            f"{self.calibrator.value}, channels {self.scaling}: loses {self.loss:.4g}, "
            f"{self.trial.coverage}"
        )


def compare_settings(
    trials: PrecisionTrials,
    kind: DataType = DataType.INT8,
    *,
    metric: str = "",
    calibrators: Sequence[Calibrator] = tuple(Calibrator),
    scalings: Sequence[ChannelScaling] = SCALINGS,
    monitor: ProgressMonitor | None = None,
) -> tuple[SettingTrial, ...]:
    """Every layer lowered under each setting, the one that loses least first.

    The data runs once for each channel scaling; the calibrators read the same histograms. Where no
    channels of the network can be scaled, only those as they are are tried.
    """
    name = metric or default_metric(trials)
    if all(g.refusal is not None for g in channel_groups(trials.network)):
        scalings = tuple(s for s in scalings if s == ChannelScaling())
    pairs = list(itertools.product(scalings, calibrators))
    found: list[SettingTrial] = []
    with Progress(monitor or ProgressMonitor(), "Settings", len(pairs)) as progress:
        for scaling, calibrator in pairs:
            base = _with(trials.config, calibrator, scaling)
            trial = trials.measure(trials.lowered(kind, base=base), kind)
            loss = trial.quality.loss(name, trials.reference_quality)
            found.append(SettingTrial(calibrator, scaling, loss, trial))
            progress.step()
    return tuple(sorted(found, key=lambda s: s.loss))


def _with(config: BuilderConfig, calibrator: Calibrator, scaling: ChannelScaling) -> BuilderConfig:
    made = config.clone()
    made.calibrator = calibrator
    made.equalize_channels, made.smooth_alpha = scaling.equalize, scaling.smooth
    return made
