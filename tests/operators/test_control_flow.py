from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from workbench.body import CONSTANT, Body, BodyInput, Literal, Node, TensorType
from workbench.datatypes import DataType
from workbench.errors import ExecutionError, ParserError
from workbench.onnx_parser import parse_model
from workbench.operators import operator_named

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, inputs, outputs, initializers=()) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def agree(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What our network and ONNX Runtime both give."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    want = session.run(None, feeds)
    have = list(parse_model(model).run(feeds).values())
    for a, b in zip(want, have, strict=True):
        assert b.shape == a.shape
        assert b.dtype == a.dtype
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    return have


@settings(max_examples=25, deadline=None)
@given(
    trips=st.integers(0, 4),
    stop=st.integers(0, 5),
    width=st.integers(1, 3),
    given_condition=st.booleans(),
)
def test_a_loop_agrees_with_onnx_runtime(trips, stop, width, given_condition):
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["state", "factor"], ["next"]),
            helper.make_node("Cast", ["i"], ["step"], to=FLOAT),
            helper.make_node("Add", ["next", "step"], ["scanned"]),
            helper.make_node("Less", ["i", "stop"], ["go"]),
        ],
        "body",
        [value("i", [], INT64), value("c", [], BOOL), value("state", [width])],
        [value("go", [], BOOL), value("next", [width]), value("scanned", [width])],
    )
    condition = "c0" if given_condition else ""
    model = model_of(
        [helper.make_node("Loop", ["m", condition, "x"], ["last", "all"], body=body)],
        [value("m", [], INT64), value("x", [width]), value("stop", [], INT64)],
        [value("last", [width]), value("all", [None, width])],
        [
            helper.make_tensor("factor", FLOAT, [1], [1.5]),
            helper.make_tensor("c0", BOOL, [], [True]),
        ],
    )
    x = np.arange(width, dtype=np.float32)
    agree(model, {"m": np.array(trips), "x": x, "stop": np.array(stop)})


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 4),
    axis=st.integers(0, 1),
    out_axis=st.integers(0, 1),
    directions=st.tuples(st.integers(0, 1), st.integers(0, 1)),
)
def test_a_scan_agrees_with_onnx_runtime(steps, axis, out_axis, directions):
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "x"], ["next"]),
            helper.make_node("Mul", ["next", "weight"], ["made"]),
        ],
        "body",
        [value("state", [3]), value("x", [3])],
        [value("next", [3]), value("made", [3])],
    )
    node = helper.make_node(
        "Scan",
        ["begin", "data"],
        ["last", "all"],
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_output_axes=[out_axis],
        scan_input_directions=[directions[0]],
        scan_output_directions=[directions[1]],
    )
    shape = [steps, 3] if axis == 0 else [3, steps]
    made = [steps, 3] if out_axis == 0 else [3, steps]
    model = model_of(
        [node],
        [value("begin", [3]), value("data", shape), value("weight", [3])],
        [value("last", [3]), value("all", made)],
    )
    random = np.random.default_rng(steps)
    agree(
        model,
        {
            "begin": random.standard_normal(3).astype(np.float32),
            "data": random.standard_normal(shape).astype(np.float32),
            "weight": random.standard_normal(3).astype(np.float32),
        },
    )


@pytest.mark.parametrize("condition", [True, False])
def test_branches_of_different_sizes_and_what_they_capture_agree(condition):
    def branch(name, nodes, shape):
        return helper.make_graph(nodes, name, [], [value(name, shape)])

    inner = branch("deep", [helper.make_node("Neg", ["x"], ["deep"])], [2, 3])
    other = branch("deeper", [helper.make_node("Add", ["x", "b"], ["deeper"])], [2, 3])
    then = branch(
        "then",
        [helper.make_node("If", ["d"], ["then"], then_branch=inner, else_branch=other)],
        [2, 3],
    )
    orelse = branch("else", [helper.make_node("Concat", ["x", "x"], ["else"], axis=0)], [4, 3])
    model = model_of(
        [
            helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=orelse),
            helper.make_node("Relu", ["y"], ["z"]),
        ],
        [value("x", [2, 3]), value("c", [], BOOL), value("d", [], BOOL)],
        [value("z", [None, 3])],
        [helper.make_tensor("b", FLOAT, [3], [1, 2, 3])],
    )
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    for deep in (True, False):
        agree(model, {"x": x, "c": np.array(condition), "d": np.array(deep)})


def test_what_a_loop_carries_may_grow():
    body = helper.make_graph(
        [
            helper.make_node("Concat", ["state", "state"], ["next"], axis=0),
            helper.make_node("Identity", ["c"], ["go"]),
        ],
        "body",
        [value("i", [], INT64), value("c", [], BOOL), value("state", [None])],
        [value("go", [], BOOL), value("next", [None])],
    )
    model = model_of(
        [helper.make_node("Loop", ["m", "", "x"], ["y"], body=body)],
        [value("m", [], INT64), value("x", [1])],
        [value("y", [None])],
    )
    (y,) = agree(model, {"m": np.array(3), "x": np.ones(1, np.float32)})
    assert y.shape == (8,)


def test_every_reason_inside_a_nested_graph_is_in_the_one_report():
    bad = helper.make_graph(
        [
            helper.make_node("Relu", ["nowhere"], ["r"], name="reads_nothing"),
            helper.make_node("NoSuchOperator", ["r"], ["s"], name="unknown"),
        ],
        "bad",
        [],
        [value("s", [1])],
    )
    good = helper.make_graph([helper.make_node("Neg", ["x"], ["n"])], "good", [], [value("n", [1])])
    model = model_of(
        [helper.make_node("If", ["c"], ["y"], then_branch=bad, else_branch=good, name="choose")],
        [value("x", [1]), value("c", [], BOOL)],
        [value("y", [1])],
    )
    with pytest.raises(ParserError) as error:
        parse_model(model)
    text = str(error.value)
    assert "choose" in text and "'nowhere'" in text and "NoSuchOperator" in text


def test_nodes_inside_are_accounted_for():
    bodies = [
        helper.make_graph([helper.make_node(op, ["x"], [op])], op, [], [value(op, [1])])
        for op in ("Relu", "Neg")
    ]
    model = model_of(
        [helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])],
        [value("x", [1]), value("c", [], BOOL)],
        [value("y", [1])],
    )
    network = parse_model(model)
    inside = [n for n in network.model_nodes if "_branch/" in n]
    assert len(inside) == 2
    assert all(network.absorbed[n] == "layer If_0, inside it" for n in inside)


def counting(stop: int, step_limit: int) -> Node:
    """A Loop that goes on for ever, but for its limit, from the step ``stop`` on only."""
    scalar = TensorType(DataType.INT64, ())
    flag, sizes = TensorType(DataType.BOOL, ()), BodyInput("seen", scalar)
    inputs = (BodyInput("i", scalar), BodyInput("c", flag), sizes)
    keep = Node(operator_named("Identity"), ("seen",), ("kept",), {})
    late = literal("stop", np.int64(stop))
    go = Node(operator_named("GreaterOrEqual"), ("seen", "stop"), ("go",), {})
    body = Body(inputs, (late, go, keep), ("go", "kept"))
    loop = operator_named("Loop")
    attributes = loop.complete({"body": body, "carried": 1, "step_limit": step_limit})
    return Node(loop, ("", "begin", "i"), ("last",), attributes)


def literal(name: str, value: np.generic) -> Node:
    return Node(CONSTANT, (), (name,), {"value": Literal.of(np.asarray(value))})


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("own", "outer"), [(3, 1000), (1000, 30)])
def test_a_loop_that_starts_beyond_its_own_limit_ends_too(own, outer):
    scalar, flag = TensorType(DataType.INT64, ()), TensorType(DataType.BOOL, ())
    late = literal("late", np.int64(8))
    begin = Node(operator_named("GreaterOrEqual"), ("i", "late"), ("begin",), {})
    inner = counting(8, own)
    body = Body((BodyInput("i", scalar), BodyInput("c", flag)), (late, begin, inner), ("c", "last"))
    loop = operator_named("Loop")
    attributes = loop.complete({"body": body, "carried": 0, "step_limit": outer})
    with pytest.raises(ExecutionError, match=rf"goes on after {min(own, outer)} iterations"):
        loop.reference(attributes, [np.int64(12), np.bool_(True)])


def test_an_inner_loop_may_take_its_limit_each_time():
    """A limit is that of one run of a Loop, not of all its runs together."""
    scalar, flag = TensorType(DataType.INT64, ()), TensorType(DataType.BOOL, ())
    begin = Node(operator_named("GreaterOrEqual"), ("i", "i"), ("begin",), {})
    inner = counting(99, 1)  # one step each
    body = Body((BodyInput("i", scalar), BodyInput("c", flag)), (begin, inner), ("c", "last"))
    loop = operator_named("Loop")
    attributes = loop.complete({"body": body, "carried": 0, "step_limit": 100})
    (made,) = loop.reference(attributes, [np.int64(12), np.bool_(True)])
    assert made.tolist() == list(range(12))
