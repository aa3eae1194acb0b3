"""Convolutions: Conv and ConvTranspose."""

from __future__ import annotations

from workbench.body import Operator

CONVOLUTION: tuple[Operator, ...] = ()
