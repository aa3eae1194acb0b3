from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.builder import run_stages, start
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.dimensions import symbol
from workbench.network import NetworkDefinition
from workbench.runtime import Engine
from workbench.storage import Storage


def engine_of(network: NetworkDefinition, *, profile: OptimizationProfile | None = None) -> Engine:
    config = BuilderConfig()
    config.builder_optimization_level = 0
    config.num_threads = 1
    config.tactic_sources = ("ONEDNN", "NUMPY")
    if profile is not None:
        config.add_optimization_profile(profile)
    return run_stages(start(network, config)).engine()


def reasons(network: NetworkDefinition) -> dict[str, str]:
    storage = Storage(network)
    return {x.op: storage.why_no_view(x) for x in network.layers}


def reshape(network, tensor, shape):
    return network.add_layer("Reshape", [tensor, network.constant(np.array(shape))]).outputs[0]


def relu(network, tensor):
    return network.add_layer("Relu", [tensor]).outputs[0]


def split(network, tensor, parts, axis=0):
    sizes = network.constant(np.array(parts))
    return network.add_layer("Split", [tensor, sizes], {"axis": axis}, outputs=len(parts)).outputs


def concat(network, tensors, axis=0):
    return network.add_layer("Concat", tensors, {"axis": axis}).outputs[0]


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_engines_with_shared_memory_give_what_their_networks_mean(data):
    network = NetworkDefinition("random")
    values = [relu(network, network.add_input("x", "FLOAT", (1, 8, 16)))]
    for _ in range(data.draw(st.integers(2, 9), label="layers")):
        t = data.draw(st.sampled_from(values), label="operand")
        match data.draw(st.sampled_from(["reshape", "split", "concat", "relu", "cut"])):
            case "reshape":
                values.append(relu(network, reshape(network, t, [1, t.shape[2], -1])))
                values.append(reshape(network, t, [1, t.shape[1], t.shape[2]]))
            case "split" if t.shape[1] > 1:
                values += split(network, t, [1, t.shape[1] - 1], axis=1)
            case "concat":
                fitting = [v for v in values if v.shape[2] == t.shape[2]]
                other = data.draw(st.sampled_from(fitting), label="other")
                values.append(concat(network, [t, other], axis=1))
            case "cut" if t.shape[2] > 1:
                values += split(network, t, [1, t.shape[2] - 1], axis=2)
            case _:
                values.append(relu(network, t))
    for t in data.draw(st.sets(st.sampled_from(values[1:]), min_size=1, max_size=3), label="out"):
        network.mark_output(t)
    x = np.random.default_rng(0).standard_normal((1, 8, 16)).astype(np.float32)
    context = engine_of(network).create_execution_context()
    want = network.run({"x": x})
    for _ in range(2):  # nothing that a run leaves in memory disturbs the next
        have = context.run({"x": x})
        for name, array in want.items():
            np.testing.assert_array_equal(have[name], array)


def test_a_reshape_between_kernels_launches_nothing_and_takes_no_memory():
    network = NetworkDefinition("n")
    x = network.add_input("x", "FLOAT", (4, 32))
    y = reshape(network, relu(network, x), [32, 4])
    network.mark_output(network.add_layer("Softmax", [y], {"axis": -1}).outputs[0])
    engine = engine_of(network)
    views = [s for s in engine.plan.steps if s.is_view]
    assert [s.body.operator_names for s in views] == [("Reshape",)]
    inner = [t.name for t in engine.plan.tensors if t.kind == "inner"]
    assert len(inner) == 2
    assert len(engine.plan.profiles[0].offsets) == 1


def test_a_concatenation_is_written_in_place_by_its_producers():
    network = NetworkDefinition("n")
    x = network.add_input("x", "FLOAT", (1, 4, 16))
    rows = [network.add_layer(op, [x], {"axis": -1}).outputs[0] for op in ("Softmax", "LogSoftmax")]
    joined = concat(network, rows, axis=1)
    network.mark_output(network.add_layer("Softmax", [joined], {"axis": -1}).outputs[0])
    assert reasons(network)["Concat"] == ""
    engine = engine_of(network)
    parts = {t.name: t for t in engine.plan.tensors if t.root == joined.name}
    assert sorted(t.offset for t in parts.values()) == [0, 4 * 16 * 4]


def test_a_dynamic_batch_before_the_joined_axis_needs_a_copy_and_says_why():
    network = NetworkDefinition("n")
    x = network.add_input("x", "FLOAT", (symbol("batch"), 4, 16))
    network.mark_output(concat(network, [relu(network, x), relu(network, x)], axis=1))
    assert "not contiguous" in reasons(network)["Concat"]


def test_parts_of_a_dynamic_size_lie_where_the_sizes_say():
    network = NetworkDefinition("n")
    n = symbol("n")
    x = network.add_input("x", "FLOAT", (n, 16))
    joined = concat(network, [relu(network, x), network.add_layer("Neg", [x]).outputs[0]])
    network.mark_output(network.add_layer("Softmax", [joined], {"axis": -1}).outputs[0])
    profile = OptimizationProfile().set_shape("x", (1, 16), (4, 16), (8, 16))
    context = engine_of(network, profile=profile).create_execution_context()
    random = np.random.default_rng(1)
    for rows in (1, 5, 8):
        given_x = random.standard_normal((rows, 16)).astype(np.float32)
        (have,) = context.run({"x": given_x}).values()
        (want,) = network.run({"x": given_x}).values()
        np.testing.assert_allclose(have, want, rtol=1e-5)


def test_why_a_layer_copies_is_told():
    network = NetworkDefinition("n")
    x = network.add_input("x", "FLOAT", (1, 4, 3))
    both = reshape(network, x, [12])
    network.mark_output(both)
    assert "both ends belong to the caller" in reasons(network)["Reshape"]
    parts = split(network, relu(network, x), [1, 3], axis=1)
    for part in parts:
        network.mark_output(relu(network, part))
    assert "multiple of 64 bytes" in reasons(network)["Split"]
    twice = relu(network, parts[1])
    network.mark_output(relu(network, concat(network, [twice, twice], axis=1)))
    assert "two operands share memory" in reasons(network)["Concat"]
