"""Smooth scaling: outliers of activations, channel by channel, moved into the weights after them.

Source: G. Xiao, J. Lin, M. Seznec, H. Wu, J. Demouth and S. Han, "SmoothQuant", ICML 2023,
equation 4: s = max|x|^alpha / max|w|^(1 - alpha) for each input channel; x is divided by s and w
multiplied. Folded into the weights or the norm that makes x, never left as a layer; where that is
not possible the Attempt says why. s is rounded to a power of two, which keeps the float bits.
"""

from __future__ import annotations

import numpy as np

from workbench.body import Array
from workbench.calibration.channel_groups import ChannelGroup, channel_groups
from workbench.calibration.channel_scaling import power_of_two, scale_group
from workbench.calibration.collect import CalibrationResult
from workbench.calibration.equalization import WeightRanges
from workbench.network import NetworkDefinition
from workbench.records import Attempt, Refusal, Stage

RULE = "smooth_scaling"


def smooth(
    network: NetworkDefinition,
    measured: CalibrationResult,
    *,
    alpha: float,
    verify: str = "distinct",
) -> tuple[Attempt, ...]:
    """Smooth every channel group of a float network in place; an Attempt for each group.

    measured: a calibration of this network, with each channel's extremes. alpha: how much of the
    difficulty moves into the weights, 0 to 1.
    """
    attempts: list[Attempt] = []
    for group in channel_groups(network):
        found = smoothing_factors(group, measured, alpha) if group.refusal is None else None
        if group.refusal is None and found is None:
            why = Refusal("no tensor of it was calibrated", code="not_calibrated")
            attempts.append(Attempt(RULE, group.label, False, why, stage=Stage.CALIBRATE))
            continue
        factors = power_of_two(found if found is not None else np.ones(1))
        attempts.append(scale_group(network, group, factors, RULE, verify=verify))
    return tuple(attempts)


def smoothing_factors(
    group: ChannelGroup, measured: CalibrationResult, alpha: float
) -> Array | None:
    """max|x|^alpha / max|w|^(1 - alpha) per channel, float64; None where nothing was measured.

    A channel that is always zero, or that no weight reads, keeps its scale: 1.
    """
    reached = activation_amax(group, measured)
    if reached is None:
        return None
    weights = WeightRanges().read(group)
    usable = (reached > 0) & (weights > 0)
    x, w = np.where(usable, reached, 1.0), np.where(usable, weights, 1.0)
    return np.where(usable, x**alpha / w ** (1.0 - alpha), 1.0)


def activation_amax(group: ChannelGroup, measured: CalibrationResult) -> Array | None:
    """Largest |x| per channel of the group, over the tensors that its sinks read."""
    largest, found = np.zeros(group.channels), False
    for layer in group.sinks:
        tensor = layer.inputs[0]
        assert tensor is not None
        place = group.places[tensor.name]
        range_ = measured.ranges.get(tensor.name)
        channels = range_.channels if range_ is not None else None
        if channels is None or channels.axis != place.axis:
            continue
        each = channels.amax.astype(np.float64).reshape(place.width, place.repeat).max(axis=1)
        here = slice(place.offset, place.offset + place.width)
        largest[here] = np.maximum(largest[here], each)
        found = True
    return largest if found else None
