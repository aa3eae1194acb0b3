"""What is rounded on the way through a Body: bounds of values that are stored in fewer bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.body.values import Array


def whole_steps(exact: Array, bound: Any) -> tuple[Array, Array]:
    """A quantized value as the integer that is stored, and how far a correct one may lie.

    bound: as QuantizeLinear gives it, half a step of rounding included.
    """
    rounded, off = np.rint(exact), np.maximum(bound - 0.5, 0.0)
    up, down = np.rint(exact + off) - rounded, rounded - np.rint(exact - off)
    return rounded, np.maximum(up, down)


def rounded_factors(args: Sequence[Any], bounds: Sequence[Any], factor_eps: float) -> list[Any]:
    """The bounds of a product's operands once its float factors were rounded."""
    return [
        b if k > 1 or x is None or x.dtype.kind != "f" else b + factor_eps * np.abs(x)
        for k, (x, b) in enumerate(zip(args, bounds, strict=True))
    ]
