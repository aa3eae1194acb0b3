"""Reductions, softmax, arg-max, top-k, sums so far: ONNX's semantics, and their bounds."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_peer import against_peer, four_bounds_off, normal, one_node, peer

from workbench import dimensions
from workbench.body import Body, BodyInput, Node, TensorType, infer_node
from workbench.checks import check_outputs
from workbench.datatypes import DataType
from workbench.dimensions import is_static
from workbench.errors import InferenceError
from workbench.operators import operator_named

FEW = settings(max_examples=20, deadline=None)
FLOATS = (np.float32, np.float16, ml_dtypes.bfloat16)
BATCH = dimensions.symbol("batch")
REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1"),
    *("ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
)


@st.composite
def reductions(draw):
    """A shape, some of its axes (maybe none), keepdims."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    rank = len(shape)
    chosen = draw(st.lists(st.integers(0, rank - 1), unique=True, max_size=rank))
    axes = [a - rank if draw(st.booleans()) else a for a in chosen]
    return shape, np.array(axes, np.int64), draw(st.integers(0, 1))


def types_of(op, *types, values=(), outputs=1, **attributes):
    row = operator_named(op)
    values = (*values, *(None,) * (len(types) - len(values)))
    return infer_node(row, row.complete(attributes), types, values, outputs)[0]


# -- Reduce* ------------------------------------------------------------------------------
@pytest.mark.parametrize("op", REDUCTIONS)
@FEW
@given(reductions(), st.booleans(), st.integers(0, 99))
def test_reductions_agree_with_onnx_runtime(op, case, omit, seed):
    shape, axes, keepdims = case
    x = normal(seed, *shape)
    x = np.abs(x) if op == "ReduceLogSum" else x
    inputs = [x] if omit and not axes.size else [x, axes]
    result = against_peer(op, inputs, {"keepdims": keepdims})
    assert result.passed, result.message


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceMean"])
@FEW
@given(reductions(), st.sampled_from((np.int32, np.int64)))
def test_reductions_of_integers_agree_with_onnx_runtime(op, case, dtype):
    shape, axes, keepdims = case
    x = np.random.default_rng(0).integers(0, 5, shape).astype(dtype)
    if op == "ReduceMean" and dtype is np.int64:
        x = x.astype(np.int32)  # ONNX Runtime has no mean of INT64.
    inputs, attributes = [x, axes], {"keepdims": keepdims}
    body, values = one_node(op, inputs, attributes)
    ours = body.evaluate(values)["o0"]
    (theirs,) = peer(op, inputs, attributes)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == x.dtype


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ReduceMean"])
def test_empty_axes_with_noop_leave_the_input_alone(op):
    x = normal(0, 2, 3)
    for inputs in ([x], [x, np.array([], np.int64)]):
        body, values = one_node(op, inputs, {"noop_with_empty_axes": 1})
        np.testing.assert_array_equal(body.evaluate(values)["o0"], x)


def test_noop_keeps_the_steps_around_the_reduction():
    x = normal(0, 2, 3)
    body, values = one_node("ReduceSumSquare", [x], {"noop_with_empty_axes": 1})
    np.testing.assert_array_equal(body.evaluate(values)["o0"], x * x)


def test_the_maximum_of_nothing_is_minus_infinity():
    body, values = one_node("ReduceMax", [np.zeros((2, 0), np.float32), np.array([1])])
    assert body.evaluate(values)["o0"].tolist() == [[-np.inf], [-np.inf]]


def test_symbolic_sizes_are_kept_or_reduced():
    x = TensorType(DataType.FLOAT, (BATCH, 8, 7))
    (kept,) = types_of("ReduceMean", x, TensorType(DataType.INT64, (1,)), values=(None, [-1]))
    assert kept.shape == (BATCH, 8, 1)
    axes = np.array([0, 2])
    (gone,) = types_of(
        "ReduceMean", x, TensorType(DataType.INT64, (2,)), values=(None, axes), keepdims=0
    )
    assert gone.shape == (8,)


def test_axes_that_do_not_fit_are_refused():
    x, i = TensorType(DataType.FLOAT, (2, 3)), TensorType(DataType.INT64, (1,))
    with pytest.raises(InferenceError, match="axis 2 lies outside rank 2; use -2 to 1"):
        types_of("ReduceSum", x, i, values=(None, np.array([2])))
    with pytest.raises(InferenceError, match="one axis twice"):
        types_of("ReduceSum", x, i, values=(None, np.array([1, -1])))


def test_axes_computed_from_data_leave_the_sizes_open_and_the_rank_known():
    x, i = TensorType(DataType.FLOAT, (2, 3)), TensorType(DataType.INT64, (1,))
    (found,) = types_of("ReduceSum", x, i)
    assert len(found.shape) == 2 and not is_static(found.shape)


# -- softmax, sums so far -----------------------------------------------------------------
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@FEW
@given(st.data(), st.integers(0, 99))
def test_softmax_agrees_with_onnx_runtime(op, data, seed):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    result = against_peer(op, [5 * normal(seed, *shape)], {"axis": axis})
    assert result.passed, result.message


def test_softmax_does_not_overflow():
    x = np.array([[1e30, 1e30, -1e30], [-np.inf, 0, 0]], np.float32)
    body, values = one_node("Softmax", [x])
    assert body.evaluate(values)["o0"].tolist() == [[0.5, 0.5, 0], [0, 0.5, 0.5]]


def test_softmax_refuses_integers():
    with pytest.raises(InferenceError, match="input 0 is INT64, needs a float type"):
        types_of("Softmax", TensorType(DataType.INT64, (2, 3)))


@FEW
@given(st.data(), st.integers(0, 1), st.integers(0, 1))
def test_sums_so_far_agree_with_onnx_runtime(data, exclusive, reverse):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    axis = np.array(data.draw(st.integers(-len(shape), len(shape) - 1)))
    attributes = {"exclusive": exclusive, "reverse": reverse}
    result = against_peer("CumSum", [normal(0, *shape), axis], attributes)
    assert result.passed, result.message


# -- ArgMax, ArgMin, TopK -----------------------------------------------------------------
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@FEW
@given(st.data(), st.integers(0, 1), st.integers(0, 1))
def test_arg_extremes_agree_with_onnx_runtime(op, data, keepdims, last):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = np.random.default_rng(0).integers(0, 3, shape).astype(np.float32)  # with ties
    attributes = {"axis": axis, "keepdims": keepdims, "select_last_index": last}
    body, values = one_node(op, [x], attributes)
    np.testing.assert_array_equal(body.evaluate(values)["o0"], peer(op, [x], attributes)[0])


@FEW
@given(st.data(), st.integers(0, 1), st.sampled_from((np.float32, np.int64)))
def test_top_k_agrees_with_onnx_runtime(data, largest, dtype):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    k = np.array([data.draw(st.integers(1, shape[axis]))])
    x = np.random.default_rng(1).integers(-3, 3, shape).astype(dtype)
    attributes = {"axis": axis, "largest": largest}
    body, values = one_node("TopK", [x, k], attributes, outputs=2)
    ours = body.evaluate(values)
    for name, theirs in zip(("o0", "o1"), peer("TopK", [x, k], attributes, outputs=2), strict=True):
        np.testing.assert_array_equal(ours[name], theirs)


def test_top_k_asks_for_no_more_than_there_is():
    x, k = TensorType(DataType.FLOAT, (2, 3)), TensorType(DataType.INT64, (1,))
    with pytest.raises(InferenceError, match="K is 4, axis 1 has 3"):
        types_of("TopK", x, k, values=(None, np.array([4])), outputs=2)


# -- bounds -------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", [*REDUCTIONS, "Softmax", "LogSoftmax", "CumSum"])
def test_typed_results_lie_within_the_bound_and_four_bounds_do_not(op, dtype):
    x = (1 + 0.3 * normal(1, 6, 9)).astype(dtype)
    inputs = [x] if op.endswith("oftmax") else [x, np.array([1])]
    body, values = one_node(op, inputs)
    result = check_outputs(body, values, body.evaluate(values))
    assert result.passed, result.message
    assert not four_bounds_off(body, values).passed


@pytest.mark.parametrize("op", [*REDUCTIONS, "Softmax", "LogSoftmax", "CumSum", "TopK"])
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1e-3, 0.2]))
def test_an_error_of_the_input_stays_within_the_bound_of_the_output(op, seed, size):
    row = operator_named(op)
    attributes = row.complete({})
    x = normal(seed, 5, 6, dtype=np.float64)
    x = np.abs(x) + 1 if op == "ReduceLogSum" else x
    e = size * np.abs(normal(seed + 1, 5, 6, dtype=np.float64))
    rest = [] if op.endswith("oftmax") else [np.array([1])]
    bounds = [e, *(0.0 for _ in rest)]
    y = row.reference(attributes, [x, *rest])
    bound = row.bound(attributes, [x, *rest], bounds, y, 2.0**-24)[0]
    random = np.random.default_rng(seed)
    for _ in range(20):
        (near, *_) = row.reference(attributes, [x + random.uniform(-1, 1, x.shape) * e, *rest])
        assert (np.abs(near - y[0]) <= bound * (1 + 1e-12) + 1e-12).all()


def chain(*nodes, inputs):
    """A Body of nodes (op, inputs, outputs), float inputs of these shapes."""
    return Body(
        tuple(BodyInput(n, TensorType(DataType.FLOAT, s)) for n, s in inputs.items()),
        tuple(
            Node(operator_named(op), i, o, operator_named(op).complete({})) for op, i, o in nodes
        ),
        nodes[-1][2],
    )


def test_a_mask_of_the_lowest_number_leaves_the_softmax_checkable():
    body = chain(
        ("Add", ("x", "mask"), ("s",)),
        ("Softmax", ("s",), ("y",)),
        inputs={"x": (4, 6), "mask": (6,)},
    )
    mask = np.array([0, 0, 0, 0, -3.4028235e38, -3.4028235e38], np.float32)
    values = {"x": normal(0, 4, 6), "mask": mask}
    exact, bound = body.exact(values)["y"]
    assert (exact[:, 4:] == 0).all()
    assert bound.max() < 1e-4


def test_an_arg_max_is_open_only_where_rivals_are_as_near_as_the_error():
    body = chain(
        ("Add", ("a", "b"), ("s",)), ("ArgMax", ("s",), ("i",)), inputs={"a": (3, 2), "b": (1,)}
    )
    a = np.array([[1, 5], [1, 2], [0, 3]], np.float32)
    values = {"a": a, "b": np.array([1e-3], np.float32)}
    assert body.exact(values)["i"][1].tolist() == [[2, 0]]
    (_, bound) = (
        chain(
            ("Add", ("a", "b"), ("s",)),
            ("TopK", ("s", "k"), ("v", "i")),
            inputs={"a": (3, 2), "b": (1,)},
        )
        .nodes[1]
        .operator.bound(
            {"axis": 0, "largest": 1, "sorted": 1},
            [a.astype(np.float64), np.array([2])],
            [np.full((3, 2), 1e-6), 0.0],
            operator_named("TopK").reference({"axis": 0, "largest": 1}, [a, np.array([2])]),
            2.0**-24,
        )
    )
    assert bound.tolist() == [[2, 0], [2, 0]]
