"""Numbers written as strings, and read back: what Cast does to and from STRING.

Source: ONNX Cast: plain representation (no exponent); INF, -INF and NaN. Shortest digits that
give the number back; a half is written as the float32 that it equals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.datatypes import DataType


def is_text(array: Array) -> bool:
    """Whether an array holds strings; an object array may hold symbolic sizes instead."""
    if array.dtype == object:
        return not array.size or isinstance(array.reshape(-1)[0], str)
    return array.dtype.kind in "US"


def written(numbers: Array) -> Array:
    """Each number as a string."""
    return _each(_numeral, numbers)


def read(texts: Array, to: DataType) -> Array:
    """Each string as a number: float64, int64 or wider, bool. Raises ValueError at another text."""
    if to is DataType.BOOL:
        return _each(float, texts).astype(np.float64) != 0
    if to.is_float:
        return _each(float, texts).astype(np.float64)
    return _each(_whole, texts).astype(to.numpy if to.info.bits >= 8 else np.int32)


def _each(function: Callable[[Any], Any], values: Array) -> Array:
    made = np.empty(values.size, np.object_)
    for k, value in enumerate(values.reshape(-1)):
        made[k] = function(value)
    return made.reshape(values.shape)


def _numeral(number: Any) -> str:
    if not np.isfinite(number):
        return "NaN" if np.isnan(number) else "INF" if number > 0 else "-INF"
    if isinstance(number, np.floating):
        return np.format_float_positional(number, trim="-")
    return str(int(number))


def _whole(text: str) -> int:
    """An integer exactly; another number cut off."""
    try:
        return int(text)
    except ValueError:
        return int(float(text))
