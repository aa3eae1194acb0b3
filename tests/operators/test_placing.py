"""Operators that put elements elsewhere, norms, products so far, and random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_peer import against_peer, four_bounds_off, normal, one_node

from workbench.datatypes import DataType

PEERS: tuple[tuple[str, tuple[Any, ...], dict[str, Any], int], ...] = (
    (
        "Col2Im",
        (normal(0, 1, 8, 9), np.array([4, 4]), np.array([2, 2])),
        {},
        18,
    ),
    (
        "Col2Im",
        (normal(0, 2, 12, 4), np.array([5, 5]), np.array([2, 3])),
        {"strides": (2, 2), "pads": (0, 1, 0, 0), "dilations": (2, 1)},
        18,
    ),
    ("LpPool", (normal(1, 1, 2, 6, 5),), {"kernel_shape": (2, 3), "p": 3, "strides": (2, 1)}, 18),
    ("LpPool", (normal(1, 1, 2, 6, 5),), {"kernel_shape": (2, 2), "auto_pad": "SAME_UPPER"}, 18),
    ("GlobalLpPool", (normal(2, 2, 3, 4, 5),), {"p": 3}, 2),
    ("LpNormalization", (normal(3, 3, 4),), {"axis": 0, "p": 1}, 1),
    ("LpNormalization", (normal(4, 3, 4),), {}, 1),
    ("Det", (normal(5, 2, 3, 3),), {}, 11),
    ("CumSum", (normal(6, 3, 4), np.array(1)), {"reverse": 1, "exclusive": 1}, 14),
)


@pytest.mark.parametrize(("op", "inputs", "attributes", "opset"), PEERS, ids=lambda c: str(c)[:12])
def test_a_row_agrees_with_onnx_runtime_and_its_bound_bites(op, inputs, attributes, opset):
    found = against_peer(op, inputs, attributes, opset=opset)
    assert found, found.message
    body, values = one_node(op, inputs, attributes)
    assert not four_bounds_off(body, values)


def test_a_wrong_product_so_far_is_found():
    body, values = one_node("CumProd", (normal(0, 3, 5), np.array(1)), {"exclusive": 1})
    assert body.evaluate(values)["o0"][:, 0].tolist() == [1, 1, 1]
    assert not four_bounds_off(body, values)


def test_reverse_sequence_agrees_with_onnx_runtime():
    lengths = np.array([1, 4, 2], np.int64)
    found = against_peer("ReverseSequence", (normal(1, 4, 3, 2), lengths), opset=10)
    assert found, found.message
    inputs = normal(1, 3, 4), lengths
    found = against_peer("ReverseSequence", inputs, {"batch_axis": 0, "time_axis": 1}, opset=10)
    assert found, found.message


def test_max_unpool_undoes_max_pool():
    x = normal(2, 1, 2, 4, 6)
    pool, values = one_node("MaxPool", (x,), {"kernel_shape": (2, 2), "strides": (2, 2)}, outputs=2)
    pooled = pool.evaluate(values)
    inputs = (pooled["o0"], pooled["o1"])
    attributes = {"kernel_shape": (2, 2), "strides": (2, 2)}
    found = against_peer("MaxUnpool", inputs, attributes)
    assert found, found.message
    body, values = one_node("MaxUnpool", inputs, attributes)
    kept = body.evaluate(values)["o0"]
    assert np.all((kept == x) | (kept == 0))
    assert np.count_nonzero(kept) == pooled["o0"].size


def test_a_bit_cast_reads_the_stored_bits_of_a_half():
    x = np.array([1.0, -2.0, np.inf], np.float16)
    body, values = one_node("BitCast", (x,), {"to": DataType.BF16})
    assert body.evaluate(values)["o0"].tobytes() == x.tobytes()
    assert body.exact(values)["o0"][0].tolist() == body.evaluate(values)["o0"].tolist()


def test_a_cache_is_written_from_each_samples_index_on():
    cache, update = np.zeros((2, 4, 1), np.float32), np.ones((2, 2, 1), np.float32)
    inputs = (cache, update, np.array([1, 3]))
    body, values = one_node("TensorScatter", inputs, {"mode": "circular"})
    assert body.evaluate(values)["o0"][..., 0].tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]


def test_a_seed_makes_random_numbers_repeatable():
    body, values = one_node("RandomNormalLike", (np.zeros(8, np.float32),), {"seed": 3.0})
    first, second = (body.evaluate(values)["o0"] for _ in range(2))
    assert first.tolist() == second.tolist()
    assert not body.nodes[-1].operator.deterministic
    classes, values = one_node("Multinomial", (np.array([[0.0, 9.0]]),), {"sample_size": 200})
    drawn = classes.evaluate(values)["o0"]
    assert drawn.shape == (1, 200)
    assert drawn.mean() > 0.98
