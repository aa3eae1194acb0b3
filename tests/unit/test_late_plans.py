from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from workbench.body import SequenceType, TensorType, UnrankedType
from workbench.builder import run_stages, start
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import DataType
from workbench.devices import CpuDevice
from workbench.errors import ExecutionError, NoTacticError
from workbench.runtime import Engine

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def engine_of(nodes, inputs, outputs, *, initializers=(), profile=None, device="cpu") -> Engine:
    """The engine of a graph, built at level 0 and read back from its plan's bytes."""
    graph = helper.make_graph(nodes, "late", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    config = BuilderConfig()
    config.builder_optimization_level = 0
    config.num_threads = 1
    if profile is not None:
        config.add_optimization_profile(profile)
    return run_stages(start(model.SerializeToString(), config, device=device)).engine()


def reshaped() -> Engine:
    """x is reshaped as another input says, then a product and a ReLU follow."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], np.arange(6) - 2.0)
    return engine_of(
        [
            helper.make_node("Reshape", ["x", "shape"], ["rows"]),
            helper.make_node("MatMul", ["rows", "w"], ["product"]),
            helper.make_node("Relu", ["product"], ["y"]),
        ],
        [value("x", [6, 4]), value("shape", [2], TensorProto.INT64)],
        [value("y", [None, 2])],
        initializers=[weight],
    )


def expected(rows: int) -> np.ndarray:
    w = (np.arange(6, dtype=np.float32) - 2).reshape(3, 2)
    return np.maximum(X.reshape(rows, 3) @ w, 0)


def test_a_shape_computed_from_data_is_bound_when_it_is_known():
    engine = reshaped()
    context = engine.create_execution_context()
    (y,) = context.run({"x": X, "shape": np.array([8, 3])}).values()
    np.testing.assert_allclose(y, expected(8), rtol=1e-6)
    with pytest.raises(ExecutionError, match=r"MatMul_1.*K=6"):
        context.run({"x": X, "shape": np.array([4, 6])})  # the product wants 3 columns
    (again,) = context.run({"x": X, "shape": np.array([-1, 3])}).values()
    np.testing.assert_array_equal(again, y)


def test_the_layers_behind_it_keep_their_kernels_and_the_profile_names_them():
    engine = reshaped()
    sources = {s.name: s.tactic.source for s in engine.plan.steps}
    assert list(sources.values()) == ["HOST", "ONEDNN"]
    profile = engine.create_execution_context().profile(
        {"x": X, "shape": np.array([8, 3])}, iterations=2
    )
    assert profile.layers[0].kernel == "Reshape on the host"


def test_tensors_of_open_size_have_no_place_in_the_arena():
    plan = reshaped().plan
    assert plan.late == {"rows", "y"}
    assert set(plan.profiles[0].offsets).isdisjoint(plan.late)


class Allocator:
    """Gives a new array for each output."""

    def reallocate_output_async(self, tensor_name, memory, size, alignment, stream):
        self.memory = np.zeros(size, np.uint8)
        return self.memory

    def notify_shape(self, tensor_name, shape):
        self.shape = shape


def test_an_output_of_open_size_goes_through_its_allocator():
    context = reshaped().create_execution_context()
    for name, array in (("x", X), ("shape", np.array([8, 3]))):
        context.set_tensor_address(name, array)
    with pytest.raises(ExecutionError, match="call set_output_allocator first"):
        context.execute_async_v3()
    allocator = Allocator()
    assert context.set_output_allocator("y", allocator)
    assert context.execute_async_v3()
    y = allocator.memory.view(np.float32).reshape(allocator.shape)
    np.testing.assert_allclose(y, expected(8), rtol=1e-6)


def test_a_size_that_is_read_keeps_the_layer_that_finds_it():
    engine = engine_of(
        [
            helper.make_node("NonZero", ["x"], ["places"]),
            helper.make_node("Shape", ["places"], ["sizes"]),
            helper.make_node("Gather", ["sizes", "one"], ["count"]),
            helper.make_node("ConstantOfShape", ["count"], ["y"]),
        ],
        [value("x", [6, 4])],
        [value("y", [None])],
        initializers=[helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )
    (y,) = engine.create_execution_context().run({"x": np.maximum(X, 0)}).values()
    assert y.shape == (np.count_nonzero(X > 0),)


def test_a_dynamic_batch_and_sizes_from_data_go_together():
    engine = engine_of(
        [
            helper.make_node("Relu", ["x"], ["positive"]),
            helper.make_node("Reshape", ["positive", "shape"], ["y"]),
        ],
        [value("x", ["n", 4]), value("shape", [2], TensorProto.INT64)],
        [value("y", [None, None])],
        profile=OptimizationProfile().set_shape("x", (1, 4), (4, 4), (8, 4)),
    )
    context = engine.create_execution_context()
    for rows in (2, 6):
        (y,) = context.run({"x": X[:rows], "shape": np.array([-1, 2])}).values()
        np.testing.assert_array_equal(y, np.maximum(X[:rows], 0).reshape(-1, 2))


def loop(condition: str) -> Engine:
    """Doubles what it carries while it is below 100, or for ever."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "state"], ["doubled"]),
            helper.make_node("Less", ["doubled", "limit"], ["below"]),
            helper.make_node("Identity", ["below" if condition == "below" else "cond"], ["on"]),
        ],
        "body",
        [
            value("step", [], TensorProto.INT64),
            value("cond", [], TensorProto.BOOL),
            value("state", [1]),
        ],
        [value("on", [], TensorProto.BOOL), value("doubled", [1]), value("state", [1])],
    )
    return engine_of(
        [
            helper.make_node("Add", ["x", "x"], ["begin"]),
            helper.make_node("Loop", ["", "", "begin"], ["last", "trace"], body=body),
        ],
        [value("x", [1]), value("limit", [1])],
        [value("last", [1]), value("trace", [None, 1])],
    )


def test_a_loop_runs_until_its_condition_says_stop_and_stacks_its_scans():
    made = (
        loop("below")
        .create_execution_context()
        .run({"x": np.ones(1, np.float32), "limit": np.full(1, 100, np.float32)})
    )
    np.testing.assert_array_equal(made["last"], [128])
    np.testing.assert_array_equal(made["trace"].reshape(-1), [2, 4, 8, 16, 32, 64])


def test_an_endless_loop_ends_in_an_error_that_names_it():
    context = loop("for ever").create_execution_context()
    with pytest.raises(ExecutionError, match=r"Loop_1.*20,000 iterations.*max_loop_steps"):
        context.run({"x": np.ones(1, np.float32), "limit": np.ones(1, np.float32)})


def branch(name: str, operator: str):
    node = helper.make_node(operator, ["x"], [name])
    return helper.make_graph([node], name, [], [value(name, [6, 4])])


def chooser(inputs, initializers=()) -> Engine:
    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg")
    )
    return engine_of(
        [node], [value("x", [6, 4]), *inputs], [value("y", [6, 4])], initializers=initializers
    )


def test_an_if_takes_the_branch_that_its_condition_says():
    context = chooser([value("c", [], TensorProto.BOOL)]).create_execution_context()
    np.testing.assert_array_equal(context.run({"x": X, "c": np.array(True)})["y"], np.maximum(X, 0))
    np.testing.assert_array_equal(context.run({"x": X, "c": np.array(False)})["y"], -X)


def test_an_if_whose_condition_is_known_is_its_branch_with_a_kernel():
    engine = chooser([], [helper.make_tensor("c", TensorProto.BOOL, [], [True])])
    assert [s.tactic.source for s in engine.plan.steps] != ["HOST"]
    (y,) = engine.create_execution_context().run({"x": X}).values()
    np.testing.assert_array_equal(y, np.maximum(X, 0))


def test_a_tensor_of_unknown_rank_runs_on_the_host():
    unranked = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    engine = engine_of([helper.make_node("Relu", ["x"], ["y"])], [unranked], [value("y", None)])
    assert engine.io("y").type == UnrankedType(DataType.FLOAT)
    context = engine.create_execution_context()
    for array in (X, X[0], X[None, None]):
        np.testing.assert_array_equal(context.run({"x": array})["y"], np.maximum(array, 0))
    with pytest.raises(ExecutionError, match="has no shape"):
        context.get_tensor_shape("x")


def test_types_of_the_host_survive_the_plan_file():
    body = helper.make_graph(
        [helper.make_node("Relu", ["e"], ["r"])], "body", [value("e", None)], [value("r", None)]
    )
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [2])
    out = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    engine = engine_of(
        [helper.make_node("SequenceMap", ["s"], ["y"], body=body)], [sequence], [out]
    )
    assert engine.io("s").type == SequenceType(TensorType(DataType.FLOAT, (2,)))
    given = [np.array([-1, 1], np.float32), np.array([2, -3], np.float32)]
    made = engine.create_execution_context().run({"s": given})["y"]
    assert [a.tolist() for a in made] == [[0, 1], [2, 0]]


class OtherDevice(CpuDevice):
    """A CPU that says it is no CPU, to see what a build for a GPU would say."""

    kind = "gpu"


def test_a_gpu_build_refuses_host_layers_unless_they_are_allowed():
    with pytest.raises(NoTacticError, match=r"only the host can run it.*allow_host_layers=True"):
        engine_of(
            [helper.make_node("Reshape", ["x", "shape"], ["y"])],
            [value("x", [6, 4]), value("shape", [2], TensorProto.INT64)],
            [value("y", [None, None])],
            device=OtherDevice(1),
        )
