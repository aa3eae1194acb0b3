"""Shapes as data, and constants made from them."""

from __future__ import annotations

from workbench.body import Operator

SHAPE: tuple[Operator, ...] = ()
