"""The matrices of Winograd's transforms, and the lanes of their vectors; without numba.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

LANES = 16


@dataclass(frozen=True)
class Matrices:
    """Bᵀ (of the input), G (of the kernel) and Aᵀ (of the output)."""

    source: tuple[tuple[float, ...], ...]
    kernel: tuple[tuple[float, ...], ...]
    result: tuple[tuple[float, ...], ...]


F2 = Matrices(
    ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    ((1, 1, 1, 0), (0, 1, -1, -1)),
)
"""F(2x2, 3x3): 16 products for 4 results instead of 36."""
