"""The last products of a network: nothing after them averages their rounding errors."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.network import Layer
from workbench.tactics.arithmetic import PRODUCTS


def last_products(layers: Sequence[Layer]) -> frozenset[str]:
    """Names of the layers that sum products which no later layer sums products of.

    layers: of a network, each after those that it reads.
    """
    summed: set[str] = set()
    last: list[str] = []
    for layer in reversed(layers):
        later = any(t.name in summed for t in layer.outputs)
        sums = not PRODUCTS.isdisjoint(layer.operator_names)
        if sums and not later:
            last.append(layer.name)
        if sums or later:
            summed.update(t.name for t in layer.operands)
    return frozenset(last)
