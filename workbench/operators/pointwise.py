"""Pointwise operators: arithmetic, activations, comparisons, logic, casts."""

from __future__ import annotations

from workbench.body import Operator

POINTWISE: tuple[Operator, ...] = ()
