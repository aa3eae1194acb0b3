"""Operators that have no row of their own are written as others, and give the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx_cases import (
    Case,
    assert_same,
    ints,
    model_of,
    numbers,
    positive,
    run_onnx_runtime,
    run_ours,
)

from workbench.errors import ParserError
from workbench.onnx_parser import parse_model
from workbench.onnx_parser.expansion import LOWERED, STANDARD_BODIES
from workbench.operators import OPERATORS

RNG = np.random.default_rng(5)


def whole(kind: Any, low: int, high: int, *shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(low, high, shape).astype(kind)


IMAGE = numbers(2, 6, 4, 5)
HEADS = numbers(2, 3, 4, 8)
KEYS, VALUES = numbers(2, 3, 5, 8), numbers(2, 3, 5, 6)
SEEN = RNG.random((4, 5)) > 0.3
SEEN[:, 0] = True
BYTES, SIGNED = whole(np.uint8, 0, 255, 3, 6), whole(np.int8, -127, 127, 6, 4)

CASES = (
    Case("Hardmax", 13, [numbers(2, 3, 4)], attributes={"axis": 1}),
    Case("Hardmax", 11, [numbers(2, 3, 4)]),
    Case("CastLike", 15, [IMAGE], [np.float16(1)]),
    Case("MatMulInteger", 10, [BYTES, SIGNED]),
    Case("MatMulInteger", 10, [BYTES, SIGNED], [np.uint8(5), np.int8(7)]),
    Case("MatMulInteger", 10, [BYTES, SIGNED], [np.uint8(5), whole(np.int8, -9, 9, 4)]),
    Case(
        "ConvInteger", 10, [whole(np.uint8, 0, 255, 1, 3, 6, 6), whole(np.uint8, 0, 9, 4, 3, 3, 3)]
    ),
    Case(
        "ConvInteger",
        10,
        [whole(np.uint8, 0, 255, 1, 3, 6, 6), whole(np.uint8, 0, 9, 4, 3, 3, 3)],
        [np.uint8(120), np.uint8(4)],
        {"pads": [1, 0, 1, 1], "strides": [2, 1]},
    ),
    Case(
        "QLinearConv",
        10,
        [whole(np.uint8, 0, 255, 1, 3, 6, 6)],
        [
            np.float32(0.02),
            np.uint8(120),
            whole(np.int8, -127, 127, 4, 3, 3, 3),
            positive(4) / 50,
            np.zeros(4, np.int8),
            np.float32(0.1),
            np.uint8(128),
            whole(np.int32, -1000, 1000, 4),
        ],
        {"pads": [1, 1, 1, 1]},
    ),
    Case(
        "QLinearMatMul",
        10,
        [BYTES],
        [
            np.float32(0.02),
            np.uint8(120),
            SIGNED,
            np.float32(0.03),
            np.int8(3),
            np.float32(0.1),
            np.uint8(128),
        ],
    ),
    Case("Shrink", 9, [IMAGE], attributes={"bias": 0.1, "lambd": 0.3}),
    Case("MeanVarianceNormalization", 13, [IMAGE]),
    Case("HannWindow", 17, [], [np.int64(8)]),
    Case("HammingWindow", 17, [], [np.int64(8)], {"periodic": 0}),
    Case("BlackmanWindow", 17, [], [np.int64(8)]),
    Case("CenterCropPad", 18, [numbers(5, 6)], [ints(3, 9)]),
    Case("CenterCropPad", 18, [numbers(5, 6)], [ints(4)], {"axes": [1]}),
    Case("NegativeLogLikelihoodLoss", 13, [numbers(3, 5), ints(0, 4, 2)]),
    Case("SoftmaxCrossEntropyLoss", 13, [numbers(3, 5), ints(0, 4, 2)], outputs=2),
    Case("RotaryEmbedding", 23, [HEADS], [numbers(50, 4), numbers(50, 4), whole(int, 0, 50, 2, 4)]),
    Case(
        "RotaryEmbedding",
        23,
        [numbers(2, 4, 24)],
        [numbers(2, 4, 4), numbers(2, 4, 4)],
        {"num_heads": 3, "interleaved": 1},
    ),
    Case("Attention", 23, [HEADS, KEYS, VALUES]),
    Case("Attention", 23, [HEADS, HEADS, HEADS], attributes={"is_causal": 1}),
    Case(
        "Attention",
        23,
        [numbers(2, 4, 24), numbers(2, 5, 8), numbers(2, 5, 12)],
        attributes={"q_num_heads": 6, "kv_num_heads": 2, "scale": 0.3},
    ),
    Case("Attention", 23, [numbers(2, 6, 4, 8), KEYS, VALUES], [numbers(4, 5)]),
    Case("Attention", 23, [HEADS, KEYS, VALUES, numbers(2, 1, 4, 5)], attributes={"softcap": 0.7}),
    Case("Attention", 23, [HEADS, KEYS, VALUES, SEEN]),
    Case("Attention", 23, [HEADS, KEYS, VALUES], [SEEN], {"is_causal": 1}),
    Case("Attention", 23, [HEADS, HEADS, HEADS, numbers(4, 9), KEYS, KEYS], outputs=3),
    Case("Attention", 24, [HEADS, HEADS, HEADS]),
    # Rare forms, left to the standard's own body.
    Case("Attention", 24, [HEADS, KEYS, VALUES, SEEN], [None, None, ints(3, 4)]),
)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("batch", [False, True], ids=["fixed", "dynamic"])
def test_an_expanded_operator_gives_what_onnx_runtime_gives(case: Case, batch: bool) -> None:
    assert_same(run_ours(case, batch=batch and bool(case.inputs)), run_onnx_runtime(case))


def test_every_expanded_operator_is_tried_and_none_has_a_row() -> None:
    expanded = set(LOWERED) | set(STANDARD_BODIES)
    untried = expanded - {case.operator for case in CASES}
    # Of opsets 27 and 28 and of a preview, which ONNX Runtime does not read yet, and random.
    preview = "ai.onnx.preview::FlexAttention"
    assert untried == {"CausalConvWithState", "SwiGLU", "Bernoulli", preview}
    assert not expanded & set(OPERATORS)


def test_swiglu_is_the_swish_of_its_gate_times_its_value() -> None:
    gate, rest = numbers(2, 6), numbers(2, 6)
    (ours,) = run_ours(Case("SwiGLU", 28, [gate, rest], attributes={"alpha": 1.5}))
    np.testing.assert_allclose(ours, gate / (1 + np.exp(-1.5 * gate)) * rest, rtol=1e-5)


def softmax(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def flex_attention(score: str, *, outer: str = "") -> str:
    """A model whose scores pass through a graph of its own; ``outer`` is an input around it."""
    more = f", float[1] {outer}" if outer else ""
    return (
        '<ir_version: 13, opset_import: ["": 26, "ai.onnx.preview": 1]> '
        f"g (float[2,3,4,8] q, float[2,3,5,8] k, float[2,3,5,6] v{more}) => (float[2,3,4,6] y) "
        "{ y = ai.onnx.preview.FlexAttention <score_mod: graph = bend (float[B,H,L,S] s) => "
        f"(float[B,H,L,S] t) {{ {score} }}> (q, k, v) }}"
    )


def test_flex_attention_runs_the_graphs_that_it_carries() -> None:
    text = flex_attention("h = Tanh(s) t = Add(h, h)")
    network = parse_model(onnx.parser.parse_model(text).SerializeToString())
    feeds = {"q": HEADS, "k": KEYS, "v": VALUES}
    scores = HEADS @ KEYS.swapaxes(2, 3) / np.sqrt(8)
    wanted = softmax(2 * np.tanh(scores)) @ VALUES
    np.testing.assert_allclose(network.run(feeds)["y"], wanted, rtol=1e-4, atol=1e-5)
    names = set(network.model_nodes)
    assert len(names) == 3
    assert names <= {n for x in network.layers for n in x.origin} | set(network.absorbed)


def test_a_graph_of_flex_attention_that_reads_from_around_it_is_refused() -> None:
    text = flex_attention("t = Mul(s, factor)", outer="factor")
    with pytest.raises(ParserError, match="reads factor from around it"):
        parse_model(onnx.parser.parse_model(text).SerializeToString())


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_of_halves_is_as_exact_as_its_last_rounding(causal: int) -> None:
    halves = [x.astype(np.float16) for x in (HEADS, KEYS, VALUES)]
    (ours,) = run_ours(Case("Attention", 23, halves, attributes={"is_causal": causal}))
    q, k, v = (x.astype(np.float64) for x in halves)
    scores = q @ k.swapaxes(2, 3) / np.sqrt(8)
    if causal:
        scores = np.where(np.tri(4, 5, dtype=bool), scores, -np.inf)
    assert ours.dtype == np.float16
    np.testing.assert_allclose(ours, softmax(scores) @ v, rtol=4e-3, atol=4e-3)


def test_an_expanded_node_is_the_origin_of_all_its_layers() -> None:
    network = parse_model(model_of(CASES[0], batch=True))
    assert {x.origin for x in network.layers} == {("node",)}
    assert network.model_nodes == ("node",)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (
            Case("Attention", 23, [numbers(2, 4, 24)] * 3, (), {"q_num_heads": 5}),
            "input 0 has 24 numbers a token, which 5 heads do not divide",
        ),
    ],
    ids=["heads"],
)
def test_an_attention_that_cannot_be_is_refused_with_its_reason(case: Case, words: str) -> None:
    with pytest.raises(ParserError, match=words):
        parse_model(model_of(case, batch=False))


def test_the_parts_of_attention_must_have_the_same_rank() -> None:
    case = Case("Attention", 23, [HEADS, numbers(2, 5, 24), numbers(2, 5, 24)])
    with pytest.raises(ParserError, match="inputs 0 and 1 have ranks 4 and 3"):
        parse_model(model_of(case, batch=False))


def test_a_type_that_an_expanded_operator_does_not_take_is_refused_in_its_own_words() -> None:
    case = Case("Attention", 23, [ints(1, 2), ints(1, 2), ints(1, 2)])
    with pytest.raises(ParserError, match=r"Q \('x0'\) is INT64, Attention takes FLOAT"):
        parse_model(model_of(case, batch=False))
