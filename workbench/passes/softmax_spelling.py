"""Softmax written out: exp(x - max x) / Σ exp(x - max x)."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.network import NetworkDefinition
from workbench.passes.reduction_shapes import axes_of
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Element, Match, PatternBuilder, Replaced, RewriteRule
from workbench.rewrite.pattern import Variable


@dataclass(frozen=True)
class SoftmaxSpelling(RulePass):
    """Folds a softmax that subtracts its largest element into one operator.

    One that does not is left alone: it overflows where Softmax does not.
    """

    name: str = "softmax_spelling"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """One rule, rooted at the quotient."""
        return (SOFTMAX_SPELLING,)


def _no_softmax(match: Match) -> Refusal | None:
    top, total = match.layer("top"), match.layer("total")
    axes = axes_of(top)
    if axes is None or axes != axes_of(total):
        return Refusal(
            f"'{top.name}' is over axes {axes}, '{total.name}' over {axes_of(total)}", code="axes"
        )
    if len(axes) != 1:
        return Refusal(f"it is over axes {axes}; Softmax has one", code="axes")
    if not top.attributes["keepdims"] or not total.attributes["keepdims"]:
        return Refusal("a reduction drops its axis: it would not line up", code="axes")
    return None


def _one_softmax(network: NetworkDefinition, match: Match) -> Replaced:
    axes = axes_of(match.layer("total"))
    assert axes is not None
    attributes = {"axis": axes[0]}
    return network.add_layer("Softmax", [match["x"]], attributes, name=match.root.name).outputs[0]


def _pattern(op: PatternBuilder, x: Variable) -> Element:
    powers = op.Exp(op.Sub(x, op.ReduceMax(x, ...).called("top")))
    return op.Div(powers, op.ReduceSum(powers, ...).called("total"))


SOFTMAX_SPELLING = RewriteRule(
    "softmax_spelling",
    _pattern,
    _one_softmax,
    _no_softmax,
    shares_inner=True,
    about="A softmax written out is one operator.",
)
