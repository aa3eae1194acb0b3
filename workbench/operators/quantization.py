"""Affine quantization: QuantizeLinear, DequantizeLinear."""

from __future__ import annotations

from workbench.body import Operator

QUANTIZATION: tuple[Operator, ...] = ()
