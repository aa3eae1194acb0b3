"""One figure for the errors on several inputs: the error on one is chance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def pooled_error(found: Mapping[str, Array], exact: Mapping[str, Array]) -> float:
    """Root mean square, over the draws, of the relative L2 distance; of the output that is worst.

    Names: an output's, a dot and the number of the draw.
    """
    squares: dict[str, list[float]] = {}
    for name, a in exact.items():
        error = np.linalg.norm(found[name].astype(np.float64) - a) / np.linalg.norm(a)
        squares.setdefault(name.rpartition(".")[0], []).append(float(error) ** 2)
    return math.sqrt(max(statistics.fmean(s) for s in squares.values()))
