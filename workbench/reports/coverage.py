"""How much of a network really runs in the requested precision."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.datatypes import DataType
from workbench.selection import Tuned

PRODUCTS = ("Conv", "Gemm", "MatMul", "ConvTranspose")


@dataclass(frozen=True)
class Coverage:
    """Layers that multiply, and how many of them execute in ``precision``."""

    precision: DataType
    products: int
    executed: int
    emulated: int

    def __str__(self) -> str:
        text = f"{self.executed} of {self.products} Conv/Gemm/MatMul layers in "
        text += self.precision.info.label
        return f"{text} ({self.emulated} emulated on this device)" if self.emulated else text


def coverage(tuned: Tuned, precision: DataType) -> Coverage:
    """Coverage of one precision over the layers that carry a product."""
    products = [c for c in tuned.layers if any(o in PRODUCTS for o in c.operators)]
    own = [c for c in products if c.executed is precision]
    return Coverage(precision, len(products), len(own), sum(c.emulated for c in own))
