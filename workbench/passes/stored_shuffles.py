"""Stored integers, shuffled as integers: a quantized weight that is transposed is stored so."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.fusions.dequantize import DEQUANTIZE_LATER
from workbench.passes.rule_pass import RulePass
from workbench.rewrite import RewriteRule


@dataclass(frozen=True)
class StoredShuffles(RulePass):
    """Moves DequantizeLinear behind the shuffles before a product; those of constants then fold.

    The rule is the Fuse stage's too: the Calibrate stage writes such pairs.
    """

    name: str = "stored_shuffles"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """The rule of ``fusions.dequantize``."""
        return (DEQUANTIZE_LATER,)
