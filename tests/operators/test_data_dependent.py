"""NonZero, Unique, Compress, NonMaxSuppression against ONNX Runtime and the standard's text."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from one_node import run_node, texts, types_of, unknown
from onnx_peer import peer

from workbench.body import UnrankedType
from workbench.datatypes import DataType
from workbench.errors import ExecutionError, InferenceError

NUMBERS = st.sampled_from([np.float32, np.int64, np.int8, np.bool_])


def arrays(least: int = 0, most: int = 3) -> st.SearchStrategy[Any]:
    """Small arrays of few different values."""
    shapes = hnp.array_shapes(min_dims=least, max_dims=most, min_side=0, max_side=4)
    return NUMBERS.flatmap(
        lambda d: hnp.arrays(d, shapes, elements=st.integers(0, 1 if d is np.bool_ else 3))
    )


@settings(max_examples=60, deadline=None)
@given(arrays(least=1))
def test_non_zero_gives_what_onnx_runtime_gives(x: Any):
    if x.dtype == np.int8:
        x = x.astype(np.int32)
    (ours,) = run_node("NonZero", [x])
    (theirs,) = peer("NonZero", [x], opset=13)
    assert ours.dtype == np.int64
    assert np.array_equal(ours, theirs)


def test_non_zero_of_a_scalar_has_no_axes_and_a_column_where_it_is_not_zero():
    assert run_node("NonZero", [np.array(5)])[0].shape == (0, 1)
    assert run_node("NonZero", [np.array(0)])[0].shape == (0, 0)


def test_non_zero_of_halves_and_strings():
    x = np.array([[0, 1], [2, 0]], ml_dtypes.bfloat16)
    assert run_node("NonZero", [x])[0].tolist() == [[0, 1], [1, 0]]
    assert run_node("NonZero", [texts("", "a", "b")])[0].tolist() == [[1, 2]]


def test_only_the_count_of_non_zeros_is_for_later():
    (t,) = types_of("NonZero", [unknown(DataType.FLOAT, 3, 4)])
    assert t.shape[0] == 2
    assert str(t.shape[1]) == "y__1"


@settings(max_examples=80, deadline=None)
@given(arrays(least=1), st.booleans(), st.booleans(), st.data())
def test_unique_gives_what_onnx_runtime_gives(
    x: Any, along: bool, ordered: bool, data: st.DataObject
):
    if x.dtype not in (np.float32, np.int64, np.int8):
        x = x.astype(np.float32)
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1)) if along else None
    if along and x.size == 0:
        return  # ONNX Runtime refuses
    attributes = {"axis": axis, "sorted": int(ordered)}
    ours = run_node("Unique", [x], attributes=attributes, outputs=4)
    theirs = peer("Unique", [x], attributes, outputs=4, opset=11)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


def test_unique_strings_along_an_axis_come_in_order():
    x = np.array([["b", "a"], ["a", "c"], ["b", "a"]], np.object_)
    y, first, inverse, counts = run_node("Unique", [x], attributes={"axis": 0}, outputs=4)
    assert y.tolist() == [["a", "c"], ["b", "a"]]
    assert (first.tolist(), inverse.tolist(), counts.tolist()) == ([1, 0], [1, 0, 1], [1, 2])
    (flat,) = run_node("Unique", [x], attributes={"sorted": 0})
    assert flat.tolist() == ["b", "a", "c"]


def test_the_unique_values_their_places_and_counts_share_one_open_size():
    x = unknown(DataType.INT64, 3, 4)
    y, first, inverse, counts = types_of("Unique", [x], {"axis": -1}, outputs=4)
    assert y.shape[0] == 3
    assert y.shape[1] == first.shape[0] == counts.shape[0]
    assert inverse.shape == (4,)
    assert types_of("Unique", [x], outputs=3)[2].shape == (12,)
    unranked = types_of("Unique", [UnrankedType(DataType.INT64)], {"axis": 0}, outputs=4)
    assert isinstance(unranked[0], UnrankedType)
    assert unranked[1] == unranked[3]


@settings(max_examples=60, deadline=None)
@given(arrays(least=1), st.booleans(), st.data())
def test_compress_gives_what_onnx_runtime_gives(x: Any, along: bool, data: st.DataObject):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1)) if along else None
    size = x.size if axis is None else x.shape[axis]
    condition = np.array(data.draw(st.lists(st.booleans(), max_size=size)), np.bool_)
    (ours,) = run_node("Compress", [x, condition], attributes={"axis": axis})
    (theirs,) = peer("Compress", [x, condition], {"axis": axis}, opset=11)
    assert ours.dtype == x.dtype
    assert np.array_equal(ours, theirs)


def test_compress_refuses_a_condition_of_numbers_or_of_two_axes():
    x = unknown(DataType.FLOAT, 3)
    with pytest.raises(InferenceError, match="the condition is INT64"):
        types_of("Compress", [x, unknown(DataType.INT64, 3)])
    with pytest.raises(InferenceError, match="give one axis"):
        types_of("Compress", [x, unknown(DataType.BOOL, 3, 1)])


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_non_max_suppression_keeps_the_boxes_that_onnx_runtime_keeps(data: st.DataObject):
    seed, count = data.draw(st.integers(0, 2**16)), data.draw(st.integers(1, 12))
    g = np.random.default_rng(seed)
    # Eighths: overlaps are computed without rounding, and scores have ties.
    boxes = g.integers(0, 16, (2, count, 4)).astype(np.float32) / 8
    scores = g.integers(0, 5, (2, 3, count)).astype(np.float32) / 4
    most = np.array([data.draw(st.integers(0, count))])
    overlap = np.array([data.draw(st.sampled_from([0, 0.25, 0.5, 1]))], np.float32)
    least = np.array([data.draw(st.sampled_from([0, 0.25, 0.6]))], np.float32)
    inputs = [boxes, scores, most, overlap, least][: data.draw(st.integers(3, 5))]
    attributes = {"center_point_box": data.draw(st.integers(0, 1))}
    (ours,) = run_node("NonMaxSuppression", inputs, attributes=attributes)
    (theirs,) = peer("NonMaxSuppression", inputs, attributes, opset=11)
    assert ours.dtype == np.int64
    assert np.array_equal(ours, theirs)


def test_non_max_suppression_without_a_limit_keeps_nothing():
    boxes, scores = np.ones((1, 2, 4), np.float32), np.ones((1, 1, 2), np.float32)
    assert run_node("NonMaxSuppression", [boxes, scores])[0].shape == (0, 3)


def test_non_max_suppression_names_shapes_that_do_not_fit():
    boxes, scores = np.ones((1, 2, 4), np.float32), np.ones((1, 1, 3), np.float32)
    with pytest.raises(ExecutionError, match=r"boxes are \(1, 2, 4\), scores \(1, 1, 3\)"):
        run_node("NonMaxSuppression", [boxes, scores])
    with pytest.raises(InferenceError, match="four numbers a box"):
        types_of("NonMaxSuppression", [np.ones((1, 2, 5), np.float32), scores])
