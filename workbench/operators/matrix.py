"""Matrix products: Gemm, MatMul, Einsum, Attention."""

from __future__ import annotations

from workbench.body import Operator

MATRIX: tuple[Operator, ...] = ()
