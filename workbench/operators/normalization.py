"""Normalizations over channels, layers, groups and neighbours."""

from __future__ import annotations

from workbench.body import Operator

NORMALIZATION: tuple[Operator, ...] = ()
