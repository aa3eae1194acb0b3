"""The passes of the Fold stage, in order; to add one, add a file and a line."""

from __future__ import annotations

from workbench.network import NetworkDefinition
from workbench.passes.batch_norm_folding import BatchNormFolding
from workbench.passes.common_subexpressions import CommonSubexpressions
from workbench.passes.constant_folding import ConstantFolding
from workbench.passes.dead_layers import DeadLayers
from workbench.passes.expands import Expands
from workbench.passes.gelu_spelling import GeluSpelling
from workbench.passes.group_norm_spelling import GroupNormSpelling
from workbench.passes.identities import Identities
from workbench.passes.lossless_casts import LosslessCasts
from workbench.passes.norm_spelling import NormSpelling
from workbench.passes.reduction_shapes import ReductionShapes
from workbench.passes.row_products import RowProducts
from workbench.passes.rule_pass import Pass, RulePass, rules_of
from workbench.passes.scale_folding import ScaleFolding
from workbench.passes.shape_arithmetic import ShapeArithmetic
from workbench.passes.shuffles import Shuffles
from workbench.passes.softmax_spelling import SoftmaxSpelling
from workbench.passes.stored_shuffles import StoredShuffles
from workbench.passes.swish_spelling import SwishSpelling
from workbench.passes.transposes import Transposes
from workbench.passes.unbinding import Unbinding
from workbench.records import Attempt, Stage
from workbench.rewrite import RewriteRule, apply_rules

PASSES: tuple[Pass, ...] = (
    DeadLayers(),
    ShapeArithmetic(),
    ConstantFolding(),
    Identities(),
    LosslessCasts(),
    StoredShuffles(),
    CommonSubexpressions(),
    ReductionShapes(),
    # Operators written out.
    NormSpelling(),
    GroupNormSpelling(),
    SoftmaxSpelling(),
    GeluSpelling(),
    SwishSpelling(),
    Expands(),
    Unbinding(),
    Shuffles(),
    RowProducts(),
    Transposes(),
    BatchNormFolding(),
    ScaleFolding(),
)

RULES: tuple[RewriteRule, ...] = rules_of(PASSES)


def fold(
    network: NetworkDefinition, *, verify: str = "distinct", max_rewrites: int | None = None
) -> tuple[Attempt, ...]:
    """Run every pass together, to a fixpoint: the Fold stage. Edits the network in place."""
    return apply_rules(RULES, network, stage=Stage.FOLD, max_rewrites=max_rewrites, verify=verify)


__all__ = ["PASSES", "RULES", "Pass", "RulePass", "fold"]
