"""Averages over many rows in two passes: of stretches of them, then of the stretches' averages.

oneDNN adds up a window in one chain. Over SqueezeNet's last 13 by 13 image that chain's error was
all that the network's output had, 2.0e-7; the second pass takes 5 µs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from workbench.datatypes import DataType
from workbench.records import Refusal
from workbench.tactics.onednn.constants import Algorithm, Argument, Status
from workbench.tactics.onednn.descriptors import Attributes, MemoryDescriptor
from workbench.tactics.onednn.parts import Operand
from workbench.tactics.onednn.primitives import pooling_forward
from workbench.tactics.onednn.recipe import Describer, FirstPass

WORTH_TWO_PASSES = 100
"""Rows from which the error of one chain is worth a second pass."""
LEAST_STRETCHES = 4


def stretches(rows: int, operand: Operand) -> tuple[int, int] | None:
    """Into how many stretches of how many rows an average is cut; None for one pass."""
    if operand.type.dtype is not DataType.FLOAT or rows < WORTH_TWO_PASSES:
        return None
    count = next(n for n in range(math.isqrt(rows), 0, -1) if rows % n == 0)
    return (count, rows // count) if count >= LEAST_STRETCHES else None


def first_pass(
    d: Describer, x: Operand, sizes: Sequence[int], cut: tuple[int, int]
) -> tuple[FirstPass, MemoryDescriptor] | Refusal:
    """The averages of stretches, and how they lie: what the next pass reads as its source.

    sizes: images, channels and rows, the channels side by side in memory.
    """
    images, channels, rows = sizes
    count, length = cut
    strides = (rows * channels, 1, length * channels, channels)
    source = d.input(Argument.SRC, x, (images, channels, count, length), strides)
    element, shape = d.variant.element(DataType.FLOAT), (images, channels, count, 1)
    between = MemoryDescriptor.strided(
        d.library, shape, element, (count * channels, 1, channels, channels)
    )
    descriptor = pooling_forward(
        *(Algorithm.POOLING_AVERAGE_INCLUDE_PADDING, source, between),
        kernel=(1, length),
        strides=(1, 1),
        dilations=(1, 1),
        padding=((0, 0), (0, 0)),
        attributes=Attributes(d.library),
    )
    if isinstance(descriptor, Status):
        return d.layer.refusal(f"oneDNN has no pool of stretches of rows: {descriptor.words}")
    assert x.index is not None
    d.arguments.inputs[Argument.SRC] = (x.index, between)
    return FirstPass(descriptor, source), between
