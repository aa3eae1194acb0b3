"""Sequences and optional values against onnx's own reference and Python's lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_node import run_node, types_of

from workbench.body import (
    OptionalType,
    SequenceType,
    TensorType,
    UnrankedType,
    type_from_json,
    type_to_json,
)
from workbench.datatypes import DataType
from workbench.errors import ExecutionError, InferenceError

FLOATS = SequenceType(TensorType(DataType.FLOAT, (2,)))
ENTRIES = [np.array([k, k + 0.5], np.float32) for k in range(4)]


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, list by list."""
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return bool(np.array_equal(a, b))


def test_a_sequence_of_equal_types_has_that_element_type():
    (made,) = run_node("SequenceConstruct", ENTRIES[:2])
    assert same(made, ENTRIES[:2])
    assert types_of("SequenceConstruct", ENTRIES[:2]) == (FLOATS,)


def test_entries_of_other_sizes_keep_the_rank_and_entries_of_other_ranks_lose_it():
    ragged = [np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)]
    (t,) = types_of("SequenceConstruct", ragged)
    assert isinstance(t, SequenceType)
    assert t.element.shape[0] == 2
    assert not isinstance(t.element.shape[1], int)
    (t,) = types_of("SequenceConstruct", [*ragged, np.zeros(2, np.float32)])
    assert t == SequenceType(UnrankedType(DataType.FLOAT))


def test_entries_of_other_element_types_are_refused():
    with pytest.raises(InferenceError, match=r"one is FLOAT.*the other INT64"):
        types_of("SequenceConstruct", [ENTRIES[0], np.zeros(2, np.int64)])


def test_what_is_taken_out_of_a_ragged_sequence_has_a_size_of_its_own():
    (t,) = types_of("SequenceConstruct", [np.zeros(2, np.float32), np.zeros(3, np.float32)])
    (first,) = types_of("SequenceAt", [t, np.array(0)], name="first")
    (second,) = types_of("SequenceAt", [t, np.array(1)], name="second")
    assert first.shape != second.shape


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), st.data())
def test_insert_at_and_erase_are_those_of_a_list(count: int, data: st.DataObject):
    values = ENTRIES[:count]
    new = np.array([9, 9], np.float32)
    place = data.draw(st.integers(-count, count))
    (longer,) = run_node("SequenceInsert", [values, new, np.array(place)], [FLOATS])
    expected = list(values)
    expected.insert(place, new)
    assert same(longer, expected)
    assert len(values) == count
    (length,) = run_node("SequenceLength", [longer], [FLOATS])
    assert length.dtype == np.int64
    assert int(length) == count + 1
    index = data.draw(st.integers(-count - 1, count))
    (taken,) = run_node("SequenceAt", [longer, np.array(index, np.int32)], [FLOATS])
    assert same(taken, longer[index])
    (shorter,) = run_node("SequenceErase", [longer, np.array(index)], [FLOATS])
    del expected[index]
    assert same(shorter, expected)


def test_without_a_position_insert_and_erase_work_at_the_end():
    (longer,) = run_node("SequenceInsert", [ENTRIES[:2], ENTRIES[3]], [FLOATS])
    assert same(longer, [*ENTRIES[:2], ENTRIES[3]])
    (shorter,) = run_node("SequenceErase", [longer], [FLOATS])
    assert same(shorter, ENTRIES[:2])


@pytest.mark.parametrize(
    ("op", "extra", "limit"),
    [("SequenceAt", [], 2), ("SequenceErase", [], 2), ("SequenceInsert", [ENTRIES[0]], 3)],
)
def test_a_position_outside_names_the_length(op: str, extra: list[Any], limit: int):
    with pytest.raises(ExecutionError, match=f"position {limit} lies outside a sequence of 2"):
        run_node(op, [ENTRIES[:2], *extra, np.array(limit)], [FLOATS])


def test_an_empty_sequence_has_its_element_type_and_takes_anything_of_it():
    (t,) = types_of("SequenceEmpty", [], {"dtype": DataType.INT64})
    assert t == SequenceType(UnrankedType(DataType.INT64))
    (made,) = run_node("SequenceInsert", [[], np.zeros((2, 3), np.int64)], [t])
    assert made[0].shape == (2, 3)
    with pytest.raises(InferenceError, match="one is INT64"):
        types_of("SequenceInsert", [t, ENTRIES[0]])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(0, 2), st.booleans(), st.data())
def test_what_is_split_joins_again(size: int, axis: int, listed: bool, data: st.DataObject):
    shape = [2, 3, 2]
    shape[axis] = size
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    if listed:
        cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=3)))
        split = np.diff([0, *cuts, size])
    else:
        split = np.array(data.draw(st.integers(1, 4)))
    place = data.draw(st.sampled_from([axis, axis - 3]))
    (parts,) = run_node("SplitToSequence", [x, split], attributes={"axis": place})
    wanted = np.split(x, np.cumsum(split)[:-1], axis) if listed else None
    if wanted is not None:
        assert same(parts, wanted)
    elif parts:
        assert {p.shape[axis] for p in parts[:-1]} <= {int(split)}
    if parts:
        t = types_of("SequenceConstruct", parts)
        (joined,) = run_node("ConcatFromSequence", [parts], t, attributes={"axis": place})
        assert np.array_equal(joined, x)


def test_split_without_sizes_gives_slices_of_one_or_drops_the_axis():
    x = np.arange(6).reshape(3, 2)
    (kept,) = run_node("SplitToSequence", [x])
    assert [p.shape for p in kept] == [(1, 2)] * 3
    (dropped,) = run_node("SplitToSequence", [x], attributes={"keepdims": 0})
    assert same(dropped, list(x))
    assert types_of("SplitToSequence", [x], {"keepdims": 0})[0] == SequenceType(
        TensorType(DataType.INT64, (2,))
    )


def test_known_equal_parts_have_a_known_size():
    x = np.zeros((6, 2), np.float32)
    (t,) = types_of("SplitToSequence", [x, np.array(2)])
    assert t == SequenceType(TensorType(DataType.FLOAT, (2, 2)))


@pytest.mark.parametrize("split", [[2, 2], [4, -1, 2]])
def test_sizes_that_do_not_fill_the_axis_are_refused(split: list[int]):
    with pytest.raises(ExecutionError, match="the axis has size 5"):
        run_node("SplitToSequence", [np.zeros(5), np.array(split)])


def test_a_new_axis_stacks():
    (made,) = run_node(
        "ConcatFromSequence", [ENTRIES], [FLOATS], attributes={"axis": -1, "new_axis": 1}
    )
    assert np.array_equal(made, np.stack(ENTRIES, -1))
    (t,) = types_of("ConcatFromSequence", [FLOATS], {"axis": -1, "new_axis": 1})
    assert t.shape[0] == 2
    assert not isinstance(t.shape[1], int)


def test_nothing_joins_an_empty_sequence():
    with pytest.raises(ExecutionError, match="the sequence is empty"):
        run_node("ConcatFromSequence", [[]], [FLOATS], attributes={"axis": 0})


def test_an_optional_holds_a_value_or_nothing():
    maybe = OptionalType(FLOATS.element)
    assert types_of("Optional", [ENTRIES[0]]) == (maybe,)
    assert same(run_node("Optional", [ENTRIES[0]])[0], ENTRIES[0])
    assert types_of("Optional", [], {"type": FLOATS}) == (OptionalType(FLOATS),)
    assert run_node("Optional", [], attributes={"type": FLOATS}) == [None]
    assert types_of("OptionalGetElement", [maybe]) == (FLOATS.element,)
    with pytest.raises(InferenceError, match="neither an input nor a type"):
        types_of("Optional", [])


def test_has_element_is_true_of_what_is_there():
    maybe = OptionalType(FLOATS.element)
    for value, t in ((ENTRIES[0], maybe), (ENTRIES[0], maybe.element), (ENTRIES, FLOATS)):
        (has,) = run_node("OptionalHasElement", [value], [t])
        assert has.dtype == np.bool_
        assert has
        assert same(run_node("OptionalGetElement", [value], [t])[0], value)
    assert not run_node("OptionalHasElement", [None], [maybe])[0]
    assert not run_node("OptionalHasElement", [])[0]
    with pytest.raises(ExecutionError, match="the optional value is empty"):
        run_node("OptionalGetElement", [None], [maybe])


def test_a_type_of_values_survives_json():
    for t in (OptionalType(FLOATS), SequenceType(UnrankedType(DataType.STRING))):
        assert type_from_json(type_to_json(t)) == t
