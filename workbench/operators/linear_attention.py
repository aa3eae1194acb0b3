"""LinearAttention: a state of keys and values that each token decays, corrects and reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import REQUIRED, Attributes, Cost, Inference, Operator, TensorType
from workbench.errors import InferenceError
from workbench.operators.products import operand
from workbench.operators.rules import absent
from workbench.operators.tracking import Value, applied, stacked, tracked

GATED, CORRECTED = ("gated", "gated_delta"), ("delta", "gated_delta")


def _types(inference: Inference) -> tuple[TensorType, ...]:
    query, key, value = (inference.input(i) for i in range(3))
    a = inference.attributes
    rule, heads, groups = a["update_rule"], a["q_num_heads"], a["kv_num_heads"]
    if rule not in ("linear", *GATED, "delta"):
        raise InferenceError(f"update_rule is {rule!r}", remedy="use linear, gated, delta or both")
    if heads < 1 or groups < 1 or heads % groups:
        raise InferenceError(f"{heads} query heads on {groups} heads of keys")
    for index, what, wanted in ((4, "decay", rule in GATED), (5, "beta", rule in CORRECTED)):
        if absent(inference, index) == wanted:
            raise InferenceError(
                f"update_rule {rule} {'needs' if wanted else 'takes no'} {what}",
                remedy="change the rule or the inputs",
            )
    for t, count in ((query, heads), (key, groups), (value, groups)):
        if len(t.shape) != 3 or not isinstance(t.shape[2], int) or t.shape[2] % count:
            raise InferenceError(f"{t} does not divide into {count} heads")
    depth, width = query.shape[2] // heads, value.shape[2] // groups
    kind = query.dtype if absent(inference, 3) else inference.input(3).dtype
    state = (query.shape[0], groups, depth, width)
    return (
        TensorType(query.dtype, (*query.shape[:2], heads * width)),
        TensorType(kind, state),
    )


def _heads(x: Value, count: int) -> Value:
    """(batch, tokens, count x size) as (batch, count, tokens, size)."""
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(0, 2, 1, 3)


def _linear_attention(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    """Source: ONNX LinearAttention-27, equations of its four update rules."""
    heads, groups = attributes["q_num_heads"], attributes["kv_num_heads"]
    query, key, value = (
        _heads(x, n) for x, n in zip(inputs[:3], (heads, groups, groups), strict=True)
    )
    past, decay, beta = (operand(inputs, i) for i in (3, 4, 5))
    batch, _, tokens, depth = query.shape
    width = value.shape[3]
    scale = attributes["scale"] or 1 / math.sqrt(depth)
    kind = getattr(inputs[0], "dtype", np.float64)
    state: Value = np.zeros((batch, groups, depth, width), kind) if past is None else past
    if decay is not None:
        decay = _heads(decay, groups)
    if beta is not None:
        beta = _heads(beta, beta.shape[2])
    outputs: list[Value] = []
    for t in range(tokens):
        k, v = key[:, :, t, None, :], value[:, :, t, None, :]
        if decay is not None:
            state = state * applied(np.exp, decay[:, :, t, :])[..., None]
        if beta is not None:
            v = beta[:, :, t, :][..., None] * (v - k @ state)
        state = state + k.swapaxes(2, 3) * v
        # Query heads of one group read the same state.
        q = query[:, :, t, :].reshape(batch, groups, heads // groups, depth)
        outputs.append((q @ state * scale).reshape(batch, heads * width))
    return stacked(outputs, 1), state


def _cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    moved = sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)
    tokens = int(outputs[0].shape[1])
    heads = attributes["q_num_heads"] + 2 * attributes["kv_num_heads"]
    cells = int(dimensions.volume(outputs[1].shape)) // attributes["kv_num_heads"]
    return Cost(2 * tokens * heads * cells, moved)


LINEAR_ATTENTION = Operator(
    name="LinearAttention",
    infer=_types,
    reference=_linear_attention,
    bound=tracked(_linear_attention),
    layer_type="ATTENTION",
    family="recurrence",
    cost=_cost,
    attributes=MappingProxyType(
        {
            "chunk_size": 64,
            "kv_num_heads": REQUIRED,
            "q_num_heads": REQUIRED,
            "scale": 0.0,
            "update_rule": "gated_delta",
        }
    ),
)
