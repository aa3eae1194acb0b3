"""Layers that work on rows: softmax, norms, reductions; with the pointwise layers around them.

A row is what the layer reduces over, its innermost axes. A row kernel keeps it in fast memory, so
that what comes before is computed once and what comes after costs no pass of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.body import CONSTANT, Body
from workbench.fusions.anchors import node_of, too_large
from workbench.fusions.attention import is_attention
from workbench.fusions.quantize import per_tensor
from workbench.network import Layer, Tensor
from workbench.records import Refusal
from workbench.rewrite import Match, RewriteRule, marked_output, not_same_shape

REDUCTIONS = frozenset(
    {
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "ReduceSumSquare",
    }
)

CHANNEL_NORMS = {"GroupNormalization": 1, "InstanceNormalization": 2}
"""Norms of images, and the first of the axes that lie in one of their rows or reach across it."""

ROWS = (
    REDUCTIONS
    | CHANNEL_NORMS.keys()
    | {"LayerNormalization", "LogSoftmax", "RMSNormalization", "Softmax"}
)
"""Operators that work on rows; sums of products anchor layers of their own."""

NORMS = frozenset({"LayerNormalization", "RMSNormalization"})
"""Norms of tokens: what follows a residual sum, or comes before one."""

MAX_OPERANDS = 12
"""Tensors that one generated kernel reads."""


def is_rows(layer: Layer) -> bool:
    """Whether a row operator anchors the layer, on its own or already fused."""
    return layer.op in ROWS and not is_attention(layer)


def is_norm(layer: Layer) -> bool:
    """Whether a norm of tokens anchors the layer."""
    return layer.op in NORMS and is_rows(layer)


def row_axis(body: Body) -> int | None:
    """The first of the innermost axes that the anchor reduces over; None where these are others."""
    node = body.anchor_node
    assert node is not None
    rank = len(body.types[node.inputs[0]].shape)
    if node.op in CHANNEL_NORMS:
        return CHANNEL_NORMS[node.op]
    if node.op not in REDUCTIONS:
        axis = node.attributes["axis"] % rank
        return axis if axis == rank - 1 or node.op.endswith("Normalization") else None
    given = node_of(body, node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    if given is None:
        return 0 if len(node.inputs) < 2 or not node.inputs[1] else None
    axes = {int(a) % rank for a in given.attributes["value"].values}
    innermost = axes == set(range(rank - len(axes), rank))
    return rank - len(axes) if axes and innermost and given.operator is CONSTANT else None


def finished(layer: Layer) -> Tensor:
    """The output that the anchor's rows end in; others are sums written on the way."""
    body = layer.body
    assert body.anchor is not None
    after = set(body.nodes[body.anchor].outputs)
    for n in body.nodes[body.anchor + 1 :]:
        if after & set(n.inputs):
            after |= set(n.outputs)
    return next(t for t, o in zip(layer.outputs, body.outputs, strict=True) if o in after)


def _other_rows(anchor: Layer) -> Refusal | None:
    if row_axis(anchor.body) is not None:
        return None
    return Refusal(
        f"'{anchor.name}' does not reduce over the innermost axes: its rows are no rows in memory",
        remedy="transpose its input",
        code="axes",
        layers=(anchor.name,),
    )


def _broken_rows(tensors: Sequence[Tensor], shape: Sequence[Any], axis: int) -> Refusal | None:
    """A tensor that is broadcast along a part of the rows only, if there is one."""
    for t in tensors:
        sizes = (*(1,) * (len(shape) - len(t.shape)), *t.shape)[axis:]
        whole = sizes == tuple(shape[axis:])
        if t.value is not None and t.value.size == 1:
            continue
        if not whole and any(d != 1 for d in sizes):
            return Refusal(
                f"'{t.name}' has shape {list(t.shape)}: along a row of {list(shape[axis:])} it is "
                "neither one value nor as long",
                code="shape_mismatch",
                tensors=(t.name,),
            )
    return None


def _too_many(*layers: Layer) -> Refusal | None:
    made = {t for x in layers for t in x.outputs}
    read = {t for x in layers for t in x.operands} - made
    if len(read) > MAX_OPERANDS:
        return Refusal(
            f"together they read {len(read)} tensors, one kernel reads {MAX_OPERANDS}",
            code="too_large",
        )
    return too_large(*layers)


def left_to_a_norm(total: Tensor) -> Refusal | None:
    """Why a product does not take in a sum of 16 bits that one norm alone reads.

    The norm adds in float32 and never rounds the sum; what is read and written is as much.
    """
    if total.dtype.info.bits != 16 or total.is_network_output or len(total.users) != 1:
        return None
    norm = total.users[0]
    if not is_norm(norm) or not feeds_only_the_rows(norm, total):
        return None
    if _other_rows(norm) is not None:
        return None
    return Refusal(
        f"'{norm.name}' alone reads '{total.name}': it adds in float32, where the product would "
        f"round the sum to {total.dtype.value}",
        code="left_to_norm",
        layers=(norm.name,),
        tensors=(total.name,),
    )


# -- before -------------------------------------------------------------------------------
def feeds_only_the_rows(anchor: Layer, tensor: Tensor) -> bool:
    """Whether the tensor is read on the way to the anchor's data, and nowhere else."""
    body, node = anchor.body, anchor.body.anchor_node
    assert node is not None and body.anchor is not None
    names = {i.name for i, t in zip(body.inputs, anchor.operands, strict=True) if t is tensor}
    readers = {k for k, n in enumerate(body.nodes) if names & set(n.inputs)}
    beside = bool(names & set(node.inputs[1:]))
    return not beside and all(k == body.anchor or k in body.prologue for k in readers)


def row_shape(anchor: Layer) -> tuple[Any, ...]:
    """The shape of the data that the anchor reads."""
    node = anchor.body.anchor_node
    assert node is not None
    return anchor.body.types[node.inputs[0]].shape


def _not_before(match: Match) -> Refusal | None:
    anchor, before = match.layer("anchor"), match.layer("before")
    refusal = _other_rows(anchor)
    if refusal is not None:
        return refusal
    made, shape = before.outputs[0], row_shape(anchor)
    if made.shape != shape:
        return Refusal(
            f"'{made.name}' is {made.type}: it is broadcast to rows of {list(shape)}, which would "
            "compute it again for each",
            code="shape_mismatch",
            tensors=(made.name,),
        )
    if not feeds_only_the_rows(anchor, made):
        return Refusal(
            f"'{made.name}' is not only what '{anchor.name}' reduces", code="second_operand"
        )
    axis = row_axis(anchor.body)
    assert axis is not None
    return _broken_rows(before.operands, shape, axis) or _too_many(*match.layers)


ROW_PROLOGUE = RewriteRule(
    "row_prologue",
    lambda op: op.layer(
        is_rows, op.pointwise().called("before"), described="a layer of rows", operators=ROWS
    ).called("anchor"),
    refuse=_not_before,
    about="A row's scale, mask or sum is computed where the row is read.",
)


def _not_residual(match: Match) -> Refusal | None:
    before = match.layer("before").outputs[0]
    if before.is_network_output:
        return marked_output(before)
    if match.layer("anchor").op in REDUCTIONS:
        return Refusal(
            f"'{match.layer('anchor').name}' writes one number a row, '{before.name}' all",
            code="shape_mismatch",
        )
    return _not_before(match)


RESIDUAL_NORM = RewriteRule(
    "residual_norm",
    lambda op: op.layer(
        is_rows,
        op.layer(
            lambda x: x.op == "Add" or (x.fused is not None and x.op == "Pointwise"),
            described="a sum",
        ).called("before"),
        described="a layer of rows",
        operators=ROWS,
    ).called("anchor"),
    refuse=_not_residual,
    shares_inner=True,
    about="A residual sum that others read too is written by the norm that reads it first.",
)


# -- after --------------------------------------------------------------------------------
def _not_after(match: Match) -> Refusal | None:
    anchor, after = match.layer("anchor"), match.root
    refusal = _other_rows(anchor)
    if refusal is not None:
        return refusal
    out, result = finished(anchor), after.outputs[0]
    if out not in after.operands:
        return Refusal(
            f"'{after.name}' reads what '{anchor.name}' read, not its result", code="second_output"
        )
    if result.shape != out.shape:
        return not_same_shape(result, out, reader=after)
    axis = row_axis(anchor.body)
    assert axis is not None
    others = [t for t in after.operands if t is not out]
    if anchor.op in REDUCTIONS:
        # Past the reduction there is one number a row.
        kept = len(out.shape) == len(row_shape(anchor))
        axis = axis if kept else len(out.shape)
    return _broken_rows(others, out.shape, axis) or _too_many(*match.layers)


ROW_EPILOGUE = RewriteRule(
    "row_epilogue",
    lambda op: op.pointwise(op.layer(is_rows, described="a layer of rows").called("anchor")),
    refuse=_not_after,
    about="A row is finished, by any pointwise formula, while it is at hand.",
)


def _not_quantized(match: Match) -> Refusal | None:
    anchor = match.layer("anchor")
    out = finished(anchor)
    if match.root.inputs[0] is not out:
        return Refusal(
            f"'{match.root.name}' reads what '{anchor.name}' read, not its result",
            code="second_output",
        )
    if out.is_network_output:
        return marked_output(out)
    return _other_rows(anchor) or per_tensor(match.root) or _too_many(*match.layers)


def _one_number_a_row(match: Match) -> Refusal | None:
    anchor = match.layer("anchor")
    if anchor.op in REDUCTIONS:
        return Refusal(f"'{anchor.name}' writes one number a row", code="reduction")
    return None


ROW_QUANTIZE = RewriteRule(
    "row_quantize",
    lambda op: op.QuantizeLinear(
        op.layer(is_rows, described="a layer of rows").called("anchor"), ...
    ),
    refuse=_not_quantized,
    shares_inner=True,
    about="A norm writes what an INT8 product reads; also in float, where something else reads it.",
)

NORM_QUANTIZE = replace(
    ROW_QUANTIZE, refuse=lambda match: _not_quantized(match) or _one_number_a_row(match)
)
"""The rule on a CPU, where a kernel has no launch to save."""
