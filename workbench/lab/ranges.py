"""Range findings: tensors whose channels one INT8 scale cannot serve, why, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.builder import BuildState
from workbench.calibration import CalibrationResult, ChannelGroup, TensorRange, channel_groups
from workbench.calibration.channel_scaling import power_of_two
from workbench.calibration.equalization import equalizing_factors
from workbench.calibration.smoothing import smoothing_factors
from workbench.errors import CalibrationError
from workbench.network import NetworkDefinition
from workbench.records import Stage

FEW_STEPS = 8
"""A channel whose largest value spans fewer steps than this keeps less than three bits."""
WEAK_SHARE = 0.2
"""Share of such channels from which a tensor is a finding."""
ALPHA = 0.5
"""The smooth scaling that is tried, as its authors suggest."""


@dataclass(frozen=True)
class Finding:
    """A hazard in one tensor, what it rests on, and what mends it.

    layers: those that read it, and suffer.
    spread: largest over smallest channel range. weak_share, weak_after: share of channels with
    fewer than eight steps, now and under the remedy. setting: the config's name and value that
    apply the remedy, None where it is a precision request. code: the Python that does so.
    """

    tensor: str
    hazard: str
    evidence: str
    remedy: str
    code: str
    spread: float
    weak_share: float
    weak_after: float
    setting: tuple[str, Any] | None = None
    layers: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = ", ".join(self.layers) or "no layer"
        return f"{self.tensor}, read by {where}: {self.evidence}; remedy: {self.remedy}"


def range_findings(state: BuildState) -> tuple[Finding, ...]:
    """Findings about a build's calibrated tensors, the worst first.

    Raises CalibrationError where nothing was calibrated.
    """
    result = state.calibration
    if result is None:
        raise CalibrationError(
            "nothing was calibrated, so there are no ranges to look at",
            place=state.name,
            remedy="run Calibrate with calibration data",
        )
    weak = [r for r in result.ranges.values() if weak_share(r) >= WEAK_SHARE]
    if not weak:
        return ()
    remedies = _Remedies(state.networks[Stage.FOLD], result)
    scaled = state.config.equalize_channels or state.config.smooth_alpha is not None
    found = [remedies.finding(r, tried=scaled) for r in weak]
    return tuple(sorted(found, key=lambda f: (-f.weak_share, -f.spread)))


def steps_per_channel(found: TensorRange, divided_by: Array | None = None) -> Array:
    """INT8 steps that the largest value of each channel spans, at most 127; zeros left out.

    divided_by: factors per channel under which to look; the threshold then is the largest value.
    """
    if found.channels is None:
        return np.zeros(0)
    amax = found.channels.amax.astype(np.float64)
    threshold = found.threshold
    if divided_by is not None:
        amax = amax / divided_by
        threshold = float(amax.max(initial=0.0))
    if threshold == 0.0:
        return np.zeros(0)
    return np.minimum(127.0 * amax[amax > 0] / threshold, 127.0)


def weak_share(found: TensorRange, divided_by: Array | None = None) -> float:
    """Share of the channels with fewer than eight steps; 0 where channels were not measured."""
    steps = steps_per_channel(found, divided_by)
    return float(np.mean(steps < FEW_STEPS)) if steps.size else 0.0


class _Remedies:
    """What would mend a tensor of one network, tried on its measured ranges."""

    def __init__(self, network: NetworkDefinition, result: CalibrationResult) -> None:
        self.network, self.result = network, result
        self.groups = channel_groups(network)
        self._equal = [power_of_two(f) for f in equalizing_factors(self.groups)]

    def finding(self, found: TensorRange, *, tried: bool) -> Finding:
        assert found.channels is not None
        amax = found.channels.amax[found.channels.amax > 0]
        spread = float(amax.max() / amax.min())
        weak = weak_share(found)
        evidence = (
            f"channels reach from {amax.min():.3g} to {amax.max():.3g}, {spread:.0f} to 1; at one "
            f"scale of {found.scale:.3g}, {100 * weak:.0f}% of {amax.size} channels span fewer "
            f"than {FEW_STEPS} of 127 steps"
        )
        remedy, code, after, setting = self._remedy(found, weak, tried=tried)
        hazard = "one scale for channels of very different range"
        layers = tuple(u.name for u in self.network.tensor(found.tensor).users)
        return Finding(
            *(found.tensor, hazard, evidence, remedy, code, spread, weak, after, setting, layers)
        )

    def _remedy(
        self, found: TensorRange, weak: float, *, tried: bool
    ) -> tuple[str, str, float, tuple[str, Any] | None]:
        index = self._group_of(found.tensor)
        group = self.groups[index] if index is not None else None
        if group is None or group.refusal is not None or tried:
            return self._promote(found, group, weak, tried=tried)
        assert index is not None
        options: list[tuple[float, str, str, tuple[str, Any]]] = []
        smoothing = smoothing_factors(group, self.result, ALPHA)
        for factors, name, value in (
            (self._equal[index], "equalize_channels", True),
            (None if smoothing is None else power_of_two(smoothing), "smooth_alpha", ALPHA),
        ):
            if factors is not None:
                after = weak_share(found, group.of(factors, self.network.tensor(found.tensor)))
                options.append((after, name, f"config.{name} = {value!r}", (name, value)))
        after, name, code, setting = min(options, key=lambda o: o[0])
        if after >= weak:
            return self._promote(found, group, weak, tried=True)
        where = f"{_names(group.sources)} and {_names(group.sinks)}"
        what = "cross-layer equalisation" if name == "equalize_channels" else "smooth scaling"
        text = (
            f"{what} moves the difference into the weights of {where}, each of which has a scale "
            f"per channel; then {100 * after:.0f}% of the channels span fewer than {FEW_STEPS} "
            "steps, and the float function stays to the bit"
        )
        return text, code, after, setting

    def _group_of(self, name: str) -> int | None:
        """The tensor's group, or the refused one that ends at the layer which makes it."""
        for index, group in enumerate(self.groups):
            if name in group.places:
                return index
        maker = self.network.tensor(name).producer
        read = {t.name for t in maker.inputs if t is not None} if maker is not None else set[str]()
        for index, group in enumerate(self.groups):
            if group.refusal is not None and read & set(group.places):
                return index
        return None

    def _promote(
        self, found: TensorRange, group: ChannelGroup | None, weak: float, *, tried: bool
    ) -> tuple[str, str, float, None]:
        readers = [u for u in self.network.tensor(found.tensor).users if u.origin]
        node = readers[0].origin[0] if readers else found.tensor
        if group is None:
            why = "no weights before it could take factors"
        elif group.refusal is not None:
            why = f"its channels cannot be scaled: {group.refusal}"
        else:
            why = "scaling its channels does not help" + (" further" if tried else "")
        text = f"keep {_names(readers) or 'its readers'} in a wider type; {why}"
        return text, f"config.set_precision({node!r}, 'BF16')", weak, None


def _names(layers: Sequence[Any]) -> str:
    return ", ".join(x.name for x in layers)
