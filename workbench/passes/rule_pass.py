"""RulePass: a pass made of rewrite rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from workbench.network import NetworkDefinition
from workbench.records import Attempt, Stage
from workbench.rewrite import RewriteRule, apply_rules


class Pass(Protocol):
    """A named set of rewrites of the Fold stage. The network is valid before and after."""

    @property
    def name(self) -> str: ...

    @property
    def rules(self) -> tuple[RewriteRule, ...]: ...

    def apply(self, network: NetworkDefinition) -> tuple[Attempt, ...]:
        """Rewrite the network in place; what was tried."""
        ...


@dataclass(frozen=True)
class RulePass:
    """The base of every pass: its rules, driven to a fixpoint."""

    name: str

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """The pass's rules, first things first."""
        raise NotImplementedError

    def apply(self, network: NetworkDefinition) -> tuple[Attempt, ...]:
        """Rewrite the network in place; what was tried."""
        return apply_rules(self.rules, network, stage=Stage.FOLD)


def rules_of(passes: Sequence[Pass]) -> tuple[RewriteRule, ...]:
    """The rules of several passes, in order."""
    return tuple(rule for one in passes for rule in one.rules)
