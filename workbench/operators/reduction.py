"""Reductions along axes, softmax, cumulative sums, arg-max and top-k."""

from __future__ import annotations

from workbench.body import Operator

REDUCTION: tuple[Operator, ...] = ()
