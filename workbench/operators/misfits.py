"""Values on which an operator is not defined: a divisor of zero, an index outside its axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.body import Array, Attributes

MOST_CHARACTERS = 1 << 27
"""Of the strings that one StringConcat gives."""


def divisor(attributes: Attributes, inputs: Sequence[Any]) -> str:
    """Integers have no quotient by zero; floats have one."""
    x, y = (np.asarray(v) for v in inputs[:2])
    if x.dtype.kind in "iu" and y.dtype.kind in "iu" and not y.all():
        where = [int(k) for k in np.argwhere(y == 0)[0]]
        return f"an integer is divided by zero, at {where} of the divisor"
    return ""


def along_axis(attributes: Attributes, inputs: Sequence[Any]) -> str:
    """Indices into one axis."""
    x, indices = inputs[0], inputs[1]
    return _outside(np.asarray(indices), x.shape[attributes["axis"]])


def tuples(attributes: Attributes, inputs: Sequence[Any]) -> str:
    """Index tuples, into the first axes after the batch axes."""
    x, indices = inputs[0], np.asarray(inputs[1])
    batch = attributes.get("batch_dims", 0)
    for k in range(indices.shape[-1]):
        if wrong := _outside(indices[..., k], x.shape[batch + k]):
            return f"{wrong} of axis {batch + k}"
    return ""


def _outside(indices: Array, size: int) -> str:
    if indices.dtype.kind not in "iu" or not indices.size:
        return ""
    low, high = int(indices.min()), int(indices.max())
    if -size <= low and high < size:
        return ""
    return f"index {low if low < -size else high} lies outside size {size}"


def joined_texts(attributes: Attributes, inputs: Sequence[Any]) -> str:
    """Texts that are put together may double with every node."""
    pairs = np.broadcast(*inputs)
    if pairs.size and sum(len(a) + len(b) for a, b in pairs) > MOST_CHARACTERS:
        return f"its texts would have more than {MOST_CHARACTERS:,} characters together"
    return ""
