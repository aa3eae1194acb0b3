"""RNN, GRU, LSTM and LinearAttention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_peer import against_peer, four_bounds_off, normal, one_node

STEPS, BATCH, SIZE, HIDDEN = 4, 3, 2, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
PEERS_BOUNDS = 4.0
"""How many of our bounds ONNX Runtime may be off: 2.2 was the most in 250 random layers."""
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"linear_before_reset": 1},
    {"input_forget": 1},
    {"clip": 0.4},
    {"activations": ("HardSigmoid", "Softsign", "LeakyRelu"), "activation_alpha": (0.3, 0.1)},
)


def operands(op: str, directions: int, *, lengths: bool = True) -> tuple[Any, ...]:
    """All inputs that the operator takes."""
    rows = GATES[op] * HIDDEN
    inputs: list[Any] = [
        normal(0, STEPS, BATCH, SIZE),
        normal(1, directions, rows, SIZE),
        normal(2, directions, rows, HIDDEN),
        normal(3, directions, 2 * rows),
        np.array([4, 2, 1], np.int32) if lengths else None,
        normal(4, directions, BATCH, HIDDEN),
    ]
    if op == "LSTM":
        inputs += [normal(5, directions, BATCH, HIDDEN), normal(6, directions, 3 * HIDDEN)]
    return tuple(inputs)


def applies(op, variant):
    """Whether an operator has the attribute, and ONNX Runtime follows the standard in it.

    It does not clip what the last activation of an LSTM reads; the standard does.
    """
    if "linear_before_reset" in variant:
        return op == "GRU"
    if "input_forget" in variant:
        return op == "LSTM"
    return not ("clip" in variant and op == "LSTM")


CASES = [
    pytest.param(op, v, id=f"{op}-{next(iter(v), 'plain')}")
    for op in GATES
    for v in VARIANTS
    if applies(op, v)
]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "variant"), CASES)
def test_a_recurrent_layer_agrees_with_onnx_runtime(op, direction, variant):
    given = dict(variant)
    directions = 2 if direction == "bidirectional" else 1
    if "activations" in given:
        count = {"RNN": 1, "GRU": 2, "LSTM": 3}[op]
        given["activations"] = given["activations"][:count] * directions
        used = 2 if op == "LSTM" else 1
        given["activation_alpha"] = given["activation_alpha"][:used] * directions
    attributes = {"direction": direction, "hidden_size": HIDDEN, **given}
    outputs = 3 if op == "LSTM" else 2
    found = against_peer(op, operands(op, directions), attributes, outputs=outputs)
    assert found, found.message
    body, values = one_node(op, operands(op, directions), attributes, outputs=outputs)
    assert not four_bounds_off(body, values)


@pytest.mark.parametrize("op", GATES)
def test_layout_one_puts_the_batch_first(op):
    inputs = operands(op, 1)
    attributes = {"hidden_size": HIDDEN}
    body, values = one_node(op, inputs, attributes, outputs=2)
    plain = body.evaluate(values)
    swapped = list(inputs)
    for i in (0, 5, 6):
        if i < len(inputs):
            swapped[i] = inputs[i].swapaxes(0, 1)
    body, values = one_node(op, swapped, {**attributes, "layout": 1}, outputs=2)
    found = body.evaluate(values)
    np.testing.assert_array_equal(found["o0"], plain["o0"].transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(found["o1"], plain["o1"].transpose(1, 0, 2))


def test_linear_attention_with_neither_gate_nor_correction_sums_keys_times_values():
    query, key, value = normal(0, 1, 3, 4), normal(1, 1, 3, 4), normal(2, 1, 3, 4)
    attributes = {"q_num_heads": 1, "kv_num_heads": 1, "update_rule": "linear", "scale": 1.0}
    body, values = one_node("LinearAttention", (query, key, value), attributes, outputs=2)
    weights = np.tril(query[0] @ key[0].T)
    found = body.evaluate(values)
    np.testing.assert_allclose(found["o0"][0], weights @ value[0], rtol=1e-5, atol=1e-5)
    assert not four_bounds_off(body, values)


@settings(max_examples=12, deadline=None)
@given(
    op=st.sampled_from(sorted(GATES)),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    sizes=st.tuples(*[st.integers(1, 5)] * 4),
    biased=st.booleans(),
    data=st.data(),
)
def test_a_recurrent_layer_of_any_size_agrees_with_onnx_runtime(op, direction, sizes, biased, data):
    steps, batch, size, hidden = sizes
    directions = 2 if direction == "bidirectional" else 1
    rows = GATES[op] * hidden
    lengths = data.draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch))
    inputs = (
        normal(0, steps, batch, size),
        normal(1, directions, rows, size),
        normal(2, directions, rows, hidden),
        normal(3, directions, 2 * rows) if biased else None,
        np.array(lengths, np.int32),
    )
    attributes = {"direction": direction, "hidden_size": hidden}
    found = against_peer(op, inputs, attributes, outputs=3 if op == "LSTM" else 2)
    # Ours lies within the bound. ONNX Runtime's sigmoid and tanh here are rational approximations,
    # whose absolute error can be a little above the bound of a small result.
    assert found.worst < PEERS_BOUNDS, found.message
