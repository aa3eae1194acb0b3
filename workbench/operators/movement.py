"""Data movement: reshaping, joining, slicing, gathering, padding."""

from __future__ import annotations

from workbench.body import Operator

MOVEMENT: tuple[Operator, ...] = ()
