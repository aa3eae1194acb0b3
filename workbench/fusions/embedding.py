"""Embeddings: rows looked up in tables are read where a norm wants them."""

from __future__ import annotations

from workbench.fusions.anchors import too_large
from workbench.fusions.rows import NORMS, feeds_only_the_rows, is_norm, row_axis, row_shape
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule, marked_output, not_constant, second_consumer


def _not_looked_up(match: Match) -> Refusal | None:
    gather, norm = match.layer("gather"), match.layer("anchor")
    table, index = gather.inputs[0], gather.inputs[1]
    made, shape = gather.outputs[0], row_shape(norm)
    assert table is not None and index is not None
    if not table.is_constant:
        return not_constant(table)
    if len(table.shape) != 2 or gather.attributes["axis"] % 2:
        return Refusal(
            f"'{gather.name}' takes parts along axis {gather.attributes['axis']} of {table.type}; "
            "an embedding takes rows of a table",
            code="axes",
            layers=(gather.name,),
        )
    if row_axis(norm.body) != len(shape) - 1 or table.shape[1:] != shape[-1:]:
        return Refusal(
            f"'{norm.name}' runs over {list(shape)}, the rows of '{table.name}' have "
            f"{table.shape[1]} elements",
            code="shape_mismatch",
        )
    if not feeds_only_the_rows(norm, made):
        return Refusal(
            f"'{made.name}' is not only what '{norm.name}' reduces", code="second_operand"
        )
    if made.is_network_output:
        return marked_output(made)
    others = [u for u in made.users if u is not norm]
    if others and made.shape != shape:
        return second_consumer(made, others)
    return too_large(*match.layers)


EMBEDDING = RewriteRule(
    "embedding",
    lambda op: op.layer(
        is_norm,
        op.Gather(...).called("gather"),
        described="a norm of rows",
        operators=NORMS,
    ).called("anchor"),
    refuse=_not_looked_up,
    shares_inner=True,
    about="Embeddings are summed and normalized where they are looked up.",
)
