"""What arithmetic a Body asks for, and whether float32 kernels only emulate it."""

from __future__ import annotations

from workbench.body import Body
from workbench.datatypes import DataType

PRODUCTS = frozenset(
    {"Conv", "ConvTranspose", "ConvInteger", "Gemm", "MatMul", "MatMulInteger", "Einsum"}
)
"""Operators that multiply and sum."""

MOVEMENT_FAMILIES = frozenset({"constant", "movement", "shape", "quantization"})
"""Families that copy, convert and round, but neither multiply nor add."""


def is_reduced(dtype: DataType) -> bool:
    """Whether it is a float type narrower than float32."""
    return dtype.is_float and dtype.itemsize < 4


def computes(body: Body) -> bool:
    """Whether some node does arithmetic, beyond copying, converting and rounding."""
    return any(n.operator.family not in MOVEMENT_FAMILIES for n in body.nodes)


def has_product(body: Body) -> bool:
    """Whether some node multiplies and sums."""
    return any(n.op in PRODUCTS for n in body.nodes)


def emulated_in_float(body: Body) -> bool:
    """Whether a kernel that computes in float32 (or wider) only emulates the Body's arithmetic.

    True where the anchor works in half types, or in 8-bit integers with a product; False for
    copies, and for types whose arithmetic the kernel does natively.
    """
    dtype = body.compute_type
    if is_reduced(dtype):
        return computes(body)
    return dtype.is_integer and dtype.info.bits <= 8 and has_product(body)
