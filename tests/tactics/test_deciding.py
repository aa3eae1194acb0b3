"""Layers of one Body share tactics and timings, unless a constant decides which kernel runs."""

from __future__ import annotations

import time

import numpy as np
from tactic_bodies import Draft, conv, quantized_conv

from workbench.body import Array, Body
from workbench.checks import sample_inputs
from workbench.tactics.deciding import Deciding


def constants(body: Body, seed: int = 0) -> dict[str, Array]:
    drawn = sample_inputs(body, seed=seed)
    return {i.name: drawn[i.name] for i in body.inputs if i.constant}


def masked(tokens: int) -> Body:
    """Attention with a stored mask."""
    d = Draft()
    q, k, v = d.input(2, tokens, 8), d.input(2, 8, tokens), d.input(2, tokens, 8)
    scores = d("Add", d("MatMul", q, k), d.weight(tokens, tokens))
    return d.body(d("MatMul", d.anchored("Softmax", scores, axis=-1), v))


def test_layers_alike_but_for_their_weights_are_one():
    body = conv()(2)
    assert Deciding().digest(body, constants(body, 1)) == ""
    int8, digests = quantized_conv(2), set()
    for seed in range(3):
        given = constants(int8, seed)
        given[int8.nodes[-1].inputs[2]] = np.int8(0)
        digests.add(Deciding().digest(int8, given))
    assert len(digests) == 1


def test_another_zero_point_is_another_layer():
    body = quantized_conv(2)
    point = body.nodes[-1].inputs[2]
    given = constants(body)
    first, second = ({**given, point: np.array(z, np.int8)} for z in (0, 3))
    assert Deciding().digest(body, first) != Deciding().digest(body, second)


def test_a_causal_mask_is_not_any_mask():
    body = masked(160)
    (name,) = (i.name for i in body.inputs if i.constant)
    causal = np.triu(np.full((160, 160), -1e9, np.float32), 1)
    assert causal.nbytes > 1 << 16
    shared, found = Deciding(), set()
    for mask in (causal, causal.T.copy(), causal.copy(), causal):
        found.add(shared.digest(body, {name: mask}))
    assert len(found) == 2


def test_a_factor_and_equal_scales_count():
    d = Draft()
    body = d.body(d("Mul", d.input(2, 3), d.weight(1)))
    one, two = ({"w1": np.full(1, v, np.float32)} for v in (1.0, 2.0))
    assert Deciding().digest(body, one) != Deciding().digest(body, two)
    d = Draft()
    body = d.body(d.quantize(d("MaxPool", d.quantized(1, 4, 6, 6), kernel_shape=(2, 2))))
    before, after = (n.inputs[1] for n in (body.nodes[0], body.nodes[-1]))
    given = {**constants(body), before: np.float32(0.5)}
    kept, changed = ({**given, after: np.float32(s)} for s in (0.5, 0.25))
    assert Deciding().digest(body, kept) != Deciding().digest(body, changed)


def test_a_mask_that_thousands_of_layers_read_is_read_once():
    body = masked(1024)
    (name,) = (i.name for i in body.inputs if i.constant)
    given = {name: np.zeros((1024, 1024), np.float32)}
    shared, start = Deciding(), time.perf_counter()
    for _ in range(2000):
        shared.digest(body, given)
    assert time.perf_counter() - start < 2.0
