"""Random operators: shapes, types, ranges and moments; the same numbers for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_peer import one_node

from workbench.checks import check_outputs
from workbench.datatypes import DataType

SHAPE = (50, 40)
SHAPED = ("RandomNormal", "RandomUniform")
LIKE = ("RandomNormalLike", "RandomUniformLike")


def drawn(op, inputs=(), **attributes):
    body, values = one_node(op, inputs, attributes)
    return body.evaluate(values)["o0"]


def asked(op, **attributes):
    if op in SHAPED:
        return drawn(op, shape=SHAPE, **attributes)
    return drawn(op, [np.zeros(SHAPE, np.float32)], **attributes)


@pytest.mark.parametrize("op", [*SHAPED, *LIKE])
def test_a_seed_gives_the_same_numbers_and_another_seed_others(op):
    np.testing.assert_array_equal(asked(op, seed=3.0), asked(op, seed=3.0))
    assert (asked(op, seed=3.0) != asked(op, seed=3.5)).any()
    assert (asked(op) != asked(op)).any()


@pytest.mark.parametrize("op", [*SHAPED, *LIKE])
def test_the_type_is_the_one_asked_for(op):
    assert asked(op).dtype == np.float32
    for kind in (DataType.HALF, DataType.DOUBLE):
        assert asked(op, dtype=kind).dtype == kind.numpy


@pytest.mark.parametrize("op", ["RandomNormal", "RandomNormalLike"])
def test_normal_numbers_have_their_mean_and_spread(op):
    x = asked(op, mean=3.0, scale=2.0, seed=1.0)
    assert x.shape == SHAPE
    # Within five standard errors of 2,000 draws.
    assert abs(x.mean() - 3) < 5 * 2 / np.sqrt(x.size)
    assert abs(x.std() - 2) < 5 * 2 / np.sqrt(2 * x.size)


@pytest.mark.parametrize("op", ["RandomUniform", "RandomUniformLike"])
def test_uniform_numbers_fill_their_range(op):
    x = asked(op, low=-1.0, high=3.0, seed=1.0)
    assert x.shape == SHAPE
    assert -1 <= x.min() < -0.9 and 2.9 < x.max() <= 3


def test_classes_are_drawn_by_their_probability():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.0001, 0.9998, 0.0001]], np.float32))
    y = drawn("Multinomial", [logits], sample_size=2000, seed=4.0, dtype=DataType.INT32)
    assert y.shape == (2, 2000) and y.dtype == np.int32
    share = np.bincount(y[0], minlength=3) / 2000
    np.testing.assert_allclose(share, [0.7, 0.2, 0.1], atol=0.06)
    assert (y[1] == 1).mean() > 0.99


@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=3),
    low=st.floats(-5, 5, width=32),
    width=st.floats(0.125, 8, width=32),
)
def test_two_draws_are_within_the_bound_of_each_other_and_others_are_not(shape, low, width):
    attributes = {"shape": tuple(shape), "low": low, "high": low + width}
    body, values = one_node("RandomUniform", (), attributes)
    y = body.evaluate(values)["o0"]
    assert y.shape == tuple(shape) and y.dtype == np.float32
    assert check_outputs(body, values, {"o0": y}).passed
    if y.size:
        assert not check_outputs(body, values, {"o0": y + np.float32(3 * width)}).passed
