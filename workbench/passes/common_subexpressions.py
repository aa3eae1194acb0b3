"""Common subexpressions: the same computation twice becomes one."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.passes.rule_pass import RulePass
from workbench.rewrite import RewriteRule
from workbench.rewrite.twins import Twins, read_the_first


@dataclass(frozen=True)
class CommonSubexpressions(RulePass):
    """Keeps the first of several layers that apply one operator to the same operands."""

    name: str = "common_subexpressions"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """One rule, rooted at the later layer."""
        return (
            RewriteRule(
                self.name,
                Twins(),
                read_the_first,
                shares_inner=True,
                exact=True,
                about="Two layers that compute the same value become one.",
            ),
        )
