"""What depends on sizes alone: positions, causal masks, interpolated tables; one layer each.

Such a layer reads no data, so its result is the same in every run at the same shapes.
"""

from __future__ import annotations

from workbench.dimensions import is_static
from workbench.fusions.anchors import too_large
from workbench.network import Layer
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule


def depends_on_sizes_only(layer: Layer) -> bool:
    """Whether constants and free sizes alone decide the outputs.

    What constants alone decide is none: Fold has evaluated it, or kept it for a kernel.
    """
    return (
        not layer.on_host
        and all(n.operator.deterministic for n in layer.body.nodes)
        and all(t.is_constant for t in layer.operands)
        and not all(is_static(t.shape) for t in layer.outputs)
    )


def _continues(layer: Layer) -> bool:
    """Whether a layer reads nothing but constants and what depends on sizes only."""
    makers = [t.producer for t in layer.operands if not t.is_constant]
    return (
        bool(makers)
        and not layer.on_host
        and all(n.operator.deterministic for n in layer.body.nodes)
        and all(m is not None and depends_on_sizes_only(m) for m in makers)
    )


def _refuse(match: Match) -> Refusal | None:
    return too_large(*match.layers)


SIZES_ONLY = RewriteRule(
    "sizes_only",
    lambda op: op.layer(
        _continues,
        op.layer(depends_on_sizes_only, described="a layer that depends on sizes only").called(
            "first"
        ),
        described="a layer that reads no data",
    ),
    refuse=_refuse,
    shares_inner=True,
    about="What depends on sizes only is one layer, which a run need not compute again.",
)
"""Step by step. A value that other layers read too is written on the way."""
