"""A constant per channel that multiplies a product."""

from __future__ import annotations

from workbench.fusions.anchors import (
    PRODUCTS,
    channel_axis,
    main_output,
    not_per_channel,
    per_channel,
    too_large,
)
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule


def _refuse(match: Match) -> Refusal | None:
    anchor, s = match.layer("anchor"), match["s"]
    out, axis = main_output(anchor), channel_axis(anchor)
    if not per_channel(s, out, axis):
        return not_per_channel(s, out, axis)
    return too_large(*match.layers)


SCALE = RewriteRule(
    "scale",
    lambda op, s: op.Mul(op.anchored(PRODUCTS).called("anchor"), op.constant(s)),
    refuse=_refuse,
    about="A product and the factors per channel that follow it are one kernel.",
)
