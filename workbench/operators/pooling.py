"""Pooling: windows and global."""

from __future__ import annotations

from workbench.body import Operator

POOLING: tuple[Operator, ...] = ()
