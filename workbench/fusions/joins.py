"""Concatenations with what is around them: parts are computed where they are joined.

Rotary embeddings are such a layer: halves swapped and joined, multiplied, and added to the whole.
So are new keys behind those that are kept, and DenseNet's activations of all that came before.
"""

from __future__ import annotations

from workbench.body import RESHAPES, VIEWS
from workbench.fusions.anchors import too_large
from workbench.network import Layer
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule, is_pointwise, not_same_shape
from workbench.tactics.strided import whole_axes

MAX_OPERANDS = 12
"""Tensors that one generated kernel reads."""


def is_join(layer: Layer) -> bool:
    """Whether a Concat of numbers anchors the layer, on its own or already fused."""
    return layer.op == "Concat" and not layer.on_host


def _prepares(layer: Layer) -> bool:
    if layer.operator is not None and layer.operator.name in VIEWS:
        return all(t is None or t.value is not None for t in layer.inputs[1:])
    return is_pointwise(layer)


def _too_many(*layers: Layer) -> Refusal | None:
    made = {t for x in layers for t in x.outputs}
    read = {t for x in layers for t in x.operands} - made
    if len(read) > MAX_OPERANDS:
        return Refusal(
            f"together they read {len(read)} tensors, one kernel reads {MAX_OPERANDS}",
            code="too_large",
        )
    return too_large(*layers)


def _not_prepared(match: Match) -> Refusal | None:
    join, before = match.layer("anchor"), match.layer("before")
    body, made = join.body, set(before.outputs)
    names = {i.name for i, t in zip(body.inputs, join.operands, strict=True) if t in made}
    readers = [k for k, n in enumerate(body.nodes) if names & set(n.inputs)]
    if is_pointwise(before):
        if len(readers) > 1:
            return Refusal(
                f"'{join.name}' reads '{before.outputs[0].name}' in {len(readers)} places, which "
                "would compute it again for each",
                code="second_operand",
                tensors=(before.outputs[0].name,),
            )
        reader = body.nodes[readers[0]]
        part = next(body.types[v] for v in reader.inputs if v in names)
        if readers[0] != body.anchor and part.shape != body.types[reader.outputs[0]].shape:
            return not_same_shape(before.outputs[0], join.outputs[0])
        return _too_many(*match.layers)
    x, y = before.inputs[0], before.outputs[0]
    if before.op in RESHAPES and x is not None and not whole_axes(x.shape, y.shape):
        return Refusal(
            f"'{before.name}' reshapes {x.type} to {y.type}: not whole axes, so it takes a copy",
            code="mixes_axes",
        )
    return _too_many(*match.layers)


JOIN_PROLOGUE = RewriteRule(
    "join_prologue",
    lambda op: op.layer(
        is_join,
        op.layer(_prepares, described="a shuffle or a pointwise layer").called("before"),
        described="a concatenation",
        operators={"Concat"},
    ).called("anchor"),
    refuse=_not_prepared,
    about="The parts of a concatenation are computed where they are joined.",
)


def _not_finished(match: Match) -> Refusal | None:
    join, after = match.layer("anchor"), match.root
    out, result = join.outputs[0], after.outputs[0]
    if result.shape != out.shape:
        return not_same_shape(result, out, reader=after)
    return _too_many(*match.layers)


JOIN_EPILOGUE = RewriteRule(
    "join_epilogue",
    lambda op: op.pointwise(op.layer(is_join, described="a concatenation").called("anchor")),
    refuse=_not_finished,
    about="What is joined is finished, by any pointwise formula, before it is written.",
)
