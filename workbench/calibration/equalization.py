"""Cross-layer equalisation: factors from the weights alone, so that channels use one range alike.

Source: M. Nagel, M. van Baalen, T. Blankevoort and M. Welling, "Data-Free Quantization Through
Weight Equalization and Bias Correction", ICCV 2019, section 4.1: s = sqrt(r1 * r2) / r2 makes the
range r1 of each output channel equal to the range r2 of the input channel that reads it. Here also
across residual additions and concatenations, whose branches share their factors, and rounded to
powers of two, which keeps the float network's bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.body import Array
from workbench.calibration.channel_groups import (
    PRODUCTS,
    ChannelGroup,
    channel_groups,
    is_depthwise,
    weight_axis,
)
from workbench.calibration.channel_scaling import power_of_two, scale_group
from workbench.network import Layer, NetworkDefinition
from workbench.records import Attempt

RULE = "cross_layer_equalization"
ROUNDS = 40
"""Passes over the groups; a chain of layers settles after about as many as it is long."""
SETTLED = 0.05
"""Change of log2 of a factor below which another round is not worth it: factors are rounded."""


def equalize(network: NetworkDefinition, *, verify: str = "distinct") -> tuple[Attempt, ...]:
    """Equalise every channel group of a float network in place; an Attempt for each group."""
    groups = channel_groups(network)
    factors = equalizing_factors(groups)
    return tuple(
        scale_group(network, g, power_of_two(f), RULE, verify=verify)
        for g, f in zip(groups, factors, strict=True)
    )


def equalizing_factors(groups: Sequence[ChannelGroup]) -> list[Array]:
    """What each group's tensors are to be divided by, float64; ones where it is refused.

    Groups share layers (a depthwise convolution ends one and begins the next), so they are
    equalised in turn until nothing moves.
    """
    ranges = WeightRanges()
    factors = [np.ones(max(g.channels, 1)) for g in groups]
    for _ in range(ROUNDS):
        moved = 0.0
        for group, total in zip(groups, factors, strict=True):
            if group.refusal is not None:
                continue
            made, read = ranges.made(group), ranges.read(group)
            usable = (made > 0) & (read > 0)
            step = np.sqrt(np.where(usable, made, 1.0) / np.where(usable, read, 1.0))
            ranges.scale(group, step)
            total *= step
            moved = max(moved, float(np.abs(np.log2(step)).max(initial=0.0)))
        if moved < SETTLED:
            break
    return factors


class WeightRanges:
    """Largest |w| per channel of every layer's weight, under the factors put on so far."""

    def __init__(self) -> None:
        self._magnitudes: dict[Layer, Array] = {}
        self._inner: dict[Layer, Array] = {}
        self._outer: dict[Layer, Array] = {}

    def made(self, group: ChannelGroup) -> Array:
        """Per channel of the group, the largest weight that makes it."""
        largest = np.zeros(group.channels)
        for layer in group.sources:
            place = group.places[layer.outputs[0].name]
            here = slice(place.offset, place.offset + place.width)
            largest[here] = np.maximum(largest[here], self._rows(layer))
        return largest

    def read(self, group: ChannelGroup) -> Array:
        """Per channel of the group, the largest weight that reads it."""
        largest = np.zeros(group.channels)
        for layer in group.sinks:
            tensor = layer.inputs[0]
            assert tensor is not None
            place = group.places[tensor.name]
            each = self._columns(layer).reshape(place.width, place.repeat).max(axis=1)
            here = slice(place.offset, place.offset + place.width)
            largest[here] = np.maximum(largest[here], each)
        return largest

    def scale(self, group: ChannelGroup, factors: Array) -> None:
        """Divide the group's tensors by ``factors``."""
        for layer in group.sources:
            self._known(layer)
            self._outer[layer] = self._outer[layer] * group.of(factors, layer.outputs[0])
        for layer in group.sinks:
            tensor = layer.inputs[0]
            assert tensor is not None
            self._known(layer)
            self._inner[layer] = self._inner[layer] * group.of(factors, tensor)

    def _rows(self, layer: Layer) -> Array:
        """Largest |w| per output channel."""
        matrix, inner, outer = self._known(layer)
        if is_depthwise(layer):
            return matrix[:, 0] * inner / outer
        return (matrix * inner.astype(np.float32)).max(axis=1) / outer

    def _columns(self, layer: Layer) -> Array:
        """Largest |w| per input channel."""
        matrix, inner, outer = self._known(layer)
        if is_depthwise(layer):
            return matrix[:, 0] * inner / outer
        return (matrix / outer.astype(np.float32)[:, None]).max(axis=0) * inner

    def _known(self, layer: Layer) -> tuple[Array, Array, Array]:
        """Largest |w| by (output channel, input channel), and the factors put on either."""
        if layer not in self._magnitudes:
            matrix = _magnitudes(layer)
            inputs = matrix.shape[0] if is_depthwise(layer) else matrix.shape[1]
            self._magnitudes[layer] = matrix
            self._inner[layer], self._outer[layer] = np.ones(inputs), np.ones(matrix.shape[0])
        return self._magnitudes[layer], self._inner[layer], self._outer[layer]


def _magnitudes(layer: Layer) -> Array:
    tensor = layer.inputs[1]
    assert tensor is not None and tensor.weight is not None
    weight = np.abs(tensor.weight.array)
    if layer.op not in PRODUCTS:
        return weight.reshape(-1, 1)
    if layer.op == "Conv":
        return weight.reshape(*weight.shape[:2], -1).max(axis=2)
    return weight if weight_axis(layer, reads=False) == 0 else weight.T
