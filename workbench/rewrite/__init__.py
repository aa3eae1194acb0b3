"""The rewriter: rules of pattern, replacement and refusal; every candidate leaves an Attempt."""

from workbench.rewrite.engine import apply_rules, replay
from workbench.rewrite.ledger import EdgeAnswer, FusionAnswers, why_not, why_not_fused
from workbench.rewrite.match import Finder, Match, Miss, PatternFinder
from workbench.rewrite.pattern import Element, PatternBuilder, is_pointwise
from workbench.rewrite.rule import (
    FUSE,
    Replaced,
    RewriteRule,
    marked_output,
    not_constant,
    not_same_shape,
    not_same_type,
    second_consumer,
)

__all__ = [
    "FUSE",
    "EdgeAnswer",
    "Element",
    "Finder",
    "FusionAnswers",
    "Match",
    "Miss",
    "PatternBuilder",
    "PatternFinder",
    "Replaced",
    "RewriteRule",
    "apply_rules",
    "is_pointwise",
    "marked_output",
    "not_constant",
    "not_same_shape",
    "not_same_type",
    "replay",
    "second_consumer",
    "why_not",
    "why_not_fused",
]
