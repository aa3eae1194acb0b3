"""Cast pairs that lose nothing."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.fusions.cast_pairs import CAST_EARLIER, CAST_PAIRS
from workbench.passes.rule_pass import RulePass
from workbench.rewrite import RewriteRule


@dataclass(frozen=True)
class LosslessCasts(RulePass):
    """Removes a Cast whose result is cast on, where the type between holds every value.

    Also where only shuffles lie between. The rules are the Fuse stage's too: the Precision stage
    writes such pairs.
    """

    name: str = "lossless_casts"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """The rules of ``fusions.cast_pairs``."""
        return (CAST_PAIRS, CAST_EARLIER)
