"""How much of a network really runs in the requested precision."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.datatypes import DataType
from workbench.selection import LayerChoice, Tuned

PRODUCTS = ("Conv", "Gemm", "MatMul", "ConvTranspose")


@dataclass(frozen=True)
class Coverage:
    """Layers that multiply, and how many of them execute in ``precision``."""

    precision: DataType
    products: int
    executed: int
    emulated: int

    def __str__(self) -> str:
        what = "with weights" if self.precision is DataType.INT4 else "layers"
        text = f"{self.executed} of {self.products} Conv/Gemm/MatMul {what} in "
        text += self.precision.info.label
        return f"{text} ({self.emulated} emulated on this device)" if self.emulated else text


def coverage(tuned: Tuned, precision: DataType) -> Coverage:
    """Coverage of one precision over the layers that carry a product.

    INT4's products are floats': no device multiplies its numbers, so all of them count as emulated.
    """
    products = [c for c in tuned.layers if any(o in PRODUCTS for o in c.operators)]
    if precision is DataType.INT4:
        # Weights alone are INT4: the product unpacks them, or a layer of its own does.
        fused = [c for c in products if c.executed.is_float and _unpacks(c)]
        apart = [c for c in tuned.layers if c.operators == ("DequantizeLinear",)]
        own = [*fused, *(c for c in apart if c.executed is precision)]
        return Coverage(precision, len(products), len(own), len(own))
    own = [c for c in products if c.executed is precision]
    return Coverage(precision, len(products), len(own), sum(c.emulated for c in own))


def _unpacks(choice: LayerChoice) -> bool:
    """Whether a product in floats reads quantized weights, which are then of 4 bits."""
    return choice.executed is not DataType.FP8 and "DequantizeLinear" in choice.operators
