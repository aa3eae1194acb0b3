"""A constant per channel, added to a product: the kernel starts from it."""

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
    anchor, b = match.layer("anchor"), match["b"]
    out, axis = main_output(anchor), channel_axis(anchor)
    if not per_channel(b, out, axis):
        return not_per_channel(b, out, axis)
    return too_large(*match.layers)


BIAS = RewriteRule(
    "bias",
    lambda op, b: op.Add(op.anchored(PRODUCTS).called("anchor"), op.constant(b)),
    refuse=_refuse,
    about="A product and the bias that follows it are one kernel.",
)
