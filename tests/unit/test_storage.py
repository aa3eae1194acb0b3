from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.builder import run_stages, start
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.dimensions import symbol
from workbench.formats import CHW16, FORMATS, HWC, LINEAR
from workbench.network import NetworkDefinition
from workbench.optimization_profile import pinned_sizes
from workbench.runtime import Engine
from workbench.storage import Storage, no_views


def engine_of(network: NetworkDefinition, *, profile: OptimizationProfile | None = None) -> Engine:
    config = BuilderConfig()
    config.builder_optimization_level = 0
    config.num_threads = 1
    config.tactic_sources = ("ONEDNN", "NUMPY")
    if profile is not None:
        config.add_optimization_profile(profile)
    return run_stages(start(network, config)).engine()


def reasons(network, layout=LINEAR, pinned=None) -> dict[str, str]:
    found = no_views(network, layout, pinned or {})
    return {x.op: found[x.name] for x in network.layers}


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


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([3, 8, 16, 32]), min_size=2, max_size=3),
    st.sampled_from([1, 2]),
    st.sampled_from(FORMATS),
    st.integers(0, 3),
)
def test_where_a_concat_needs_no_copy_its_parts_lie_there_one_after_another(
    sizes, batch, layout, axis
):
    network, random = NetworkDefinition("n"), np.random.default_rng(0)
    shapes = [[batch, 16, 4, 4] for _ in sizes]
    for shape, size in zip(shapes, sizes, strict=True):
        shape[axis] = size
    parts = [random.standard_normal(s).astype(np.float32) for s in shapes]
    xs = [network.add_input(f"x{i}", "FLOAT", p.shape) for i, p in enumerate(parts)]
    tensors = [relu(network, x) for x in xs]
    joined = concat(network, tensors, axis=axis)
    network.mark_output(relu(network, joined))
    storage = Storage(network, layout)
    (reason,) = [storage.why_no_view(x) for x in network.layers if x.op == "Concat"]
    if reason:
        return
    memory = layout.pack(np.concatenate(parts, axis)).tobytes()
    for tensor, part in zip(tensors, parts, strict=True):
        place, stored = storage.place(tensor.name), layout.pack(part).tobytes()
        assert place.root == joined.name
        assert memory[place.offset : place.offset + len(stored)] == stored


def test_channels_of_one_image_are_joined_in_place_in_blocks_though_its_batch_is_named():
    network = NetworkDefinition("n")
    x = network.add_input("x", "FLOAT", (symbol("batch"), 32, 8, 8))
    joined = concat(network, [relu(network, x), network.add_layer("Neg", [x]).outputs[0]], axis=1)
    network.mark_output(relu(network, joined))
    pinned = pinned_sizes([OptimizationProfile().set_shape("x", *[(1, 32, 8, 8)] * 3)], network)
    assert pinned == {"batch": 1}
    assert reasons(network, CHW16, pinned)["Concat"] == ""
    assert "outside the joined one" in reasons(network, CHW16)["Concat"]
    assert "outside the joined one" in reasons(network, HWC, pinned)["Concat"]
    for part in split(network, relu(network, x), [8, 24], axis=1):
        network.mark_output(relu(network, part))
    assert "blocks of 16 channels" in reasons(network, CHW16, pinned)["Split"]


def test_an_engine_whose_images_are_joined_in_blocks_gives_what_the_network_means():
    network, random = NetworkDefinition("n"), np.random.default_rng(2)
    x = network.add_input("x", "FLOAT", (symbol("batch"), 16, 24, 24))

    def conv(t, channels, kernel):
        w = random.standard_normal((channels, t.shape[1], kernel, kernel)).astype(np.float32) / 9
        pads = {"pads": (kernel // 2,) * 4}
        return relu(network, network.add_layer("Conv", [t, network.constant(w)], pads).outputs[0])

    y = conv(x, 32, 3)
    for _ in range(2):
        y = concat(network, [conv(y, 16, 1), conv(y, 48, 3)], axis=1)
    network.mark_output(conv(y, 8, 1))
    config = BuilderConfig()
    config.num_threads = 1
    config.add_optimization_profile(OptimizationProfile().set_shape("x", *[(1, 16, 24, 24)] * 3))
    engine = run_stages(start(network, config)).engine()
    joins = [s for s in engine.plan.steps if s.body.operator_names == ("Concat",)]
    assert len(joins) == 2
    assert all(s.is_view for s in joins)
    image = random.standard_normal((1, 16, 24, 24)).astype(np.float32)
    (have,) = engine.create_execution_context().run({"x": image}).values()
    (want,) = network.run({"x": image}).values()
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)


def test_lists_are_joined_in_place():
    network = NetworkDefinition("n")
    xs = [network.add_input(name, "FLOAT", (16,)) for name in ("a", "b")]
    network.mark_output(relu(network, concat(network, [relu(network, x) for x in xs])))
    assert reasons(network)["Concat"] == ""
    assert reasons(network, CHW16)["Concat"] == "no layout of its tensors is CHW16"
