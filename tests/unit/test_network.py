"""NetworkDefinition: every edit leaves it valid, or is refused and changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.body import Body, BodyInput, Literal, Node, TensorType
from workbench.datatypes import DataType
from workbench.errors import InferenceError, NetworkError
from workbench.network import Cause, Layer, NetworkDefinition, Recipe, Tensor, Weight
from workbench.operators import operator_named


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def residual():
    """x -> conv -> relu -> conv2 -> add(x) -> out, with names as a parser gives them."""
    network = NetworkDefinition("residual")
    x = network.add_input("x", "FLOAT", ("batch", 4, 6, 6))
    conv = network.add_layer(
        "Conv",
        [x, network.constant(normal(0, 4, 4, 3, 3), "w1"), network.constant(normal(1, 4), "b1")],
        {"pads": (1,) * 4},
        name="conv",
        origin=("node_conv",),
    )
    relu = network.add_layer("Relu", [conv.outputs[0]], name="relu", origin=("node_relu",))
    conv2 = network.add_layer(
        "Conv",
        [relu.outputs[0], network.constant(normal(2, 4, 4, 1, 1), "w2")],
        name="conv2",
        origin=("node_conv2",),
    )
    add = network.add_layer("Add", [conv2.outputs[0], x], name="add", outputs=["out"])
    network.mark_output(add.outputs[0])
    network.verify()
    return network


def state(network):
    """Everything that an edit could change, as text."""
    return (
        str(network),
        sorted(network.tensors),
        {n: [u.name for u in t.users] for n, t in network.tensors.items()},
        [t.name for t in network.outputs],
    )


X = normal(9, 2, 4, 6, 6)


def run(network):
    (out,) = network.run({"x": X}).values()
    return out


# -- building -----------------------------------------------------------------------------
def test_layers_come_producers_first_whatever_the_order_of_edits():
    network = residual()
    assert [x.name for x in network.layers] == ["conv", "relu", "conv2", "add"]
    relu = network.layer("relu")
    tanh = network.add_layer("Tanh", [network.layer("conv").outputs[0]], name="tanh")
    network.replace_input(relu, 0, tanh.outputs[0])
    network.verify()
    order = [x.name for x in network.layers]
    assert order.index("conv") < order.index("tanh") < order.index("relu")


def test_input_sizes_may_be_names_numbers_or_open():
    network = NetworkDefinition()
    x = network.add_input("in.1", "float16", ("batch", -1, np.int64(3)))
    assert [str(d) for d in x.shape] == ["batch", "in_1_1", "3"]
    assert x.dtype is DataType.HALF
    assert network.symbols == ("batch", "in_1_1")
    with pytest.raises(NetworkError, match="'a-b' is not an identifier"):
        network.add_input("y", "FLOAT", ("a-b",))
    assert "y" not in network.tensors


def test_a_taken_name_is_refused_and_nothing_is_added():
    network = residual()
    before = state(network)
    x = network.tensor("x")
    with pytest.raises(NetworkError, match="'x' is empty or taken"):
        network.add_input("x", "FLOAT", (1,))
    pool = {"kernel_shape": (2, 2)}
    for outputs in (["fresh", "x"], ["same", "same"], ["", "y"]):
        with pytest.raises(NetworkError, match="is empty or taken"):
            network.add_layer("MaxPool", [x], pool, outputs=outputs)
        assert state(network) == before


def test_layers_get_unique_names():
    network = residual()
    first = network.add_layer("Relu", [network.tensor("x")])
    second = network.add_layer("Relu", [network.tensor("x")])
    assert (first.name, second.name) == ("Relu", "Relu_2")
    assert first.outputs[0].name != second.outputs[0].name


def test_a_wrong_layer_is_refused_by_name_and_leaves_no_trace():
    network = residual()
    before = state(network)
    with pytest.raises(InferenceError, match="MatMul 'product': A has K=6, B has K=3"):
        network.add_layer("MatMul", [network.tensor("x"), network.tensor("w1")], name="product")
    with pytest.raises(NetworkError, match="operator Conv4 is not implemented"):
        network.add_layer("Conv4", [])
    stranger = NetworkDefinition().add_input("x", "FLOAT", (1,))
    with pytest.raises(NetworkError, match="tensor 'x' is not of this network"):
        network.add_layer("Relu", [stranger])
    assert state(network) == before


def test_what_is_asked_for_but_absent_is_named():
    network = residual()
    with pytest.raises(NetworkError, match="no layer is named 'nope'"):
        network.layer("nope")
    with pytest.raises(NetworkError, match="no tensor is named 'nope'"):
        network.tensor("nope")
    assert not network.has_layer("nope")


def test_shape_arithmetic_is_known_while_building():
    network = NetworkDefinition()
    x = network.add_input("x", "FLOAT", ("batch", 4, 6))
    shape = network.add_layer("Shape", [x]).outputs[0]
    index = network.constant(np.array(0), "index")
    batch = network.add_layer("Gather", [shape, index]).outputs[0]
    assert str(batch.value.item()) == "batch"


# -- running ------------------------------------------------------------------------------
def test_the_network_runs_like_its_formula():
    network = residual()
    values = network.run({"x": X}, keep=True)
    np.testing.assert_allclose(
        values["out"], values[network.layer("conv2").outputs[0].name] + X, rtol=1e-6
    )
    assert set(values) == set(network.tensors)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "input 'x' is missing"),
        ({"x": X, "y": X}, "input 'y' is no input of this network; inputs: x"),
        ({"x": X.astype(np.float64)}, "input 'x' is FLOAT, given DOUBLE"),
        ({"x": X[:, :3]}, "size 4 is 4, given 3"),
        ({"x": X[0]}, "has rank 4"),
    ],
)
def test_wrong_inputs_are_named(inputs, said):
    with pytest.raises(NetworkError, match=said):
        residual().run(inputs)


# -- editing ------------------------------------------------------------------------------
def test_a_read_layer_is_not_removed():
    network = residual()
    with pytest.raises(NetworkError, match=r"relu: its output '.*' is still read by conv2"):
        network.remove_layer(network.layer("relu"))
    with pytest.raises(NetworkError, match="still read by the caller"):
        network.remove_layer(network.layer("add"))


def test_readers_move_to_the_replacement():
    network = residual()
    relu = network.layer("relu")
    tanh = network.add_layer("Tanh", [relu.inputs[0]], name="tanh")
    network.replace_uses(relu.outputs[0], tanh.outputs[0])
    network.remove_layer(relu)
    network.verify()
    assert [x.op for x in network.layers] == ["Conv", "Tanh", "Conv", "Add"]
    assert network.layer("conv2").body.operator_names == ("Conv",)


def test_a_marked_output_keeps_its_public_name():
    network = residual()
    add = network.layer("add")
    sub = network.add_layer("Sub", list(add.inputs), name="sub")
    network.replace_uses(add.outputs[0], sub.outputs[0])
    network.remove_layer(add)
    network.verify()
    assert [t.name for t in network.outputs] == ["out"]
    assert list(network.run({"x": X})) == ["out"]
    assert network.tensor("out").producer is sub


def test_a_refused_replacement_changes_nothing():
    network = residual()
    before = state(network)
    out, x = network.tensor("out"), network.tensor("x")
    with pytest.raises(NetworkError, match="cannot become another name of 'x'; keep an Identity"):
        network.replace_uses(out, x)
    with pytest.raises(NetworkError, match=r"'w1' is FLOAT.*insert a Cast or a Reshape"):
        network.replace_uses(network.layer("relu").outputs[0], network.tensor("w1"))
    relu = network.layer("relu")
    with pytest.raises(NetworkError, match="its layer would read itself"):
        network.replace_uses(relu.inputs[0], relu.outputs[0])
    assert state(network) == before
    network.verify()


def test_a_mark_may_be_undone():
    network = residual()
    inner = network.layer("relu").outputs[0]
    network.mark_output(inner)
    network.mark_output(inner)
    assert len(network.outputs) == 2
    network.unmark_output(inner)
    assert [t.name for t in network.outputs] == ["out"]
    network.unmark_output(network.tensor("out"))
    with pytest.raises(NetworkError, match="no tensor is marked as output"):
        network.verify()


def test_renaming_reaches_fused_bodies():
    network = residual()
    want = run(network)
    fused = network.fuse(
        [network.layer("conv"), network.layer("relu")], anchor=network.layer("conv")
    )
    network.rename_tensor(fused.outputs[0], "middle")
    network.rename_tensor(network.tensor("x"), "image")
    network.rename_layer(fused, "block")
    network.verify()
    assert fused.body.outputs == ("middle",)
    assert network.layer("block") is fused
    (out,) = network.run({"image": X}).values()
    np.testing.assert_array_equal(out, want)
    with pytest.raises(NetworkError, match="tensor name 'out' is taken"):
        network.rename_tensor(fused.outputs[0], "out")
    with pytest.raises(NetworkError, match="layer name 'add' is taken"):
        network.rename_layer(fused, "add")


def test_unused_constants_are_dropped():
    network = residual()
    network.constant(np.zeros(3), "left_over")
    assert network.remove_unused_constants() == ["left_over"]
    assert network.remove_unused_constants() == []
    network.verify()


# -- fusing -------------------------------------------------------------------------------
def test_fusing_keeps_results_origins_and_the_outer_names():
    network = residual()
    want = run(network)
    layers = [network.layer("conv"), network.layer("relu")]
    fused = network.fuse(layers, anchor=layers[0])
    network.verify()
    np.testing.assert_array_equal(run(network), want)
    assert fused.is_fused
    assert fused.name == "conv"
    assert fused.origin == ("node_conv", "node_relu")
    assert fused.operator_names == ("Conv", "Relu")
    assert (fused.type, fused.op) == ("CONVOLUTION", "Conv")
    assert fused.outputs[0].name == "relu_out"
    assert "conv_out" not in network.tensors


def test_a_fused_layer_is_fused_again():
    network = residual()
    want = run(network)
    inner = network.fuse(
        [network.layer("conv"), network.layer("relu")], anchor=network.layer("conv")
    )
    outer = network.fuse(
        [inner, network.layer("conv2"), network.layer("add")], anchor=network.layer("conv2")
    )
    network.verify()
    assert network.num_layers == 1
    assert outer.body.anchor_node is not None
    assert outer.body.anchor_node.inputs[1] == "w2"
    assert outer.operator_names == ("Conv", "Relu", "Conv", "Add")
    assert [i.name for i in outer.body.inputs] == [t.name for t in outer.operands]
    np.testing.assert_array_equal(run(network), want)


def test_what_is_read_outside_or_marked_stays_an_output():
    network = residual()
    network.mark_output(network.layer("conv").outputs[0])
    fused = network.fuse(
        [network.layer("conv"), network.layer("relu")], anchor=network.layer("conv")
    )
    network.verify()
    assert [t.name for t in fused.outputs] == ["conv_out", "relu_out"]
    assert set(network.run({"x": X})) == {"conv_out", "out"}


def test_a_group_with_a_way_around_is_refused_and_stays():
    network = residual()
    before = state(network)
    with pytest.raises(NetworkError, match="cycle through 'relu'"):
        network.fuse([network.layer("conv"), network.layer("conv2")], anchor=network.layer("conv"))
    with pytest.raises(NetworkError, match="nothing to fuse"):
        network.fuse([], anchor=None)
    with pytest.raises(NetworkError, match="add: the anchor is not one of the fused"):
        network.fuse([network.layer("conv")], anchor=network.layer("add"))
    assert state(network) == before


def test_scalars_of_pointwise_layers_and_structural_values_become_literals():
    network = NetworkDefinition()
    x = network.add_input("x", "FLOAT", ("n", 6))
    half = network.constant(np.float32(0.5), "half")
    vector = network.constant(normal(0, 6), "vector")
    mul = network.add_layer("Mul", [x, half], name="mul")
    add = network.add_layer("Add", [mul.outputs[0], vector], name="add")
    shape = network.constant(np.array([-1, 3]), "shape")
    reshape = network.add_layer("Reshape", [add.outputs[0], shape], name="reshape")
    network.mark_output(reshape.outputs[0])
    fused = network.fuse([mul, add, reshape], anchor=None)
    assert [i.name for i in fused.body.inputs] == ["x", "vector"]
    assert [i.constant for i in fused.body.inputs] == [False, True]
    literals = [n.attributes["value"] for n in fused.body.nodes if n.op == "Constant"]
    assert literals == [Literal.of(np.float32(0.5)), Literal.of(np.array([-1, 3]))]
    network.verify()
    y = network.run({"x": normal(1, 4, 6)})[reshape.outputs[0].name]
    assert y.shape == (8, 3)


def test_a_scalar_weight_of_a_convolution_stays_an_input():
    network = NetworkDefinition()
    x = network.add_input("x", "FLOAT", (1, 1, 4))
    conv = network.add_layer("Conv", [x, network.constant(normal(0, 1, 1, 1), "w")])
    assert [i.name for i in conv.body.inputs] == ["x", "w"]


def test_equal_layers_have_equal_signatures():
    network = NetworkDefinition()
    x = network.add_input("x", "FLOAT", ("n", 4, 8, 8))
    made = []
    for i in range(2):
        conv = network.add_layer("Conv", [x, network.constant(normal(i, 4, 4, 1, 1))])
        relu = network.add_layer("Relu", [conv.outputs[0]])
        network.mark_output(relu.outputs[0])
        made.append(network.fuse([conv, relu], anchor=conv))
    assert made[0].body.signature == made[1].body.signature


def test_a_fused_layer_is_written_by_hand():
    network = NetworkDefinition()
    x = network.add_input("x", "FLOAT", (2, 3))
    kind = TensorType(DataType.FLOAT, (2, 3))
    body = Body((BodyInput("a", kind),), (Node(operator_named("Relu"), ("a",), ("b",)),), ("b",))
    layer = network.add_fused(body, [x], ["y"], name="hand", cause=Cause("Test", "by hand"))
    network.mark_output(layer.outputs[0])
    network.verify()
    assert (network.run({"x": -np.ones((2, 3), np.float32)})["y"] == 0).all()
    with pytest.raises(NetworkError, match="a fused layer's inputs are fixed"):
        network.replace_input(layer, 0, x if layer.inputs[0] is not x else None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_group_is_fused_or_refused_and_the_results_stay(data):
    """Random networks of pointwise layers: fuse keeps every output, or changes nothing."""
    network = NetworkDefinition("random")
    tensors = [network.add_input(n, "FLOAT", (3,)) for n in ("x", "y")]
    for _ in range(data.draw(st.integers(2, 9))):
        op = data.draw(st.sampled_from(["Relu", "Neg", "Add", "Mul", "Sub"]))
        count = 1 if op in ("Relu", "Neg") else 2
        reads = [data.draw(st.sampled_from(tensors)) for _ in range(count)]
        tensors.append(network.add_layer(op, reads).outputs[0])
    made = tensors[2:]
    for t in made:
        if not t.users or data.draw(st.booleans()):
            network.mark_output(t)
    inputs = {"x": normal(0, 3), "y": normal(1, 3)}
    want = network.run(inputs)
    for _ in range(3):
        group = [x for x in network.layers if data.draw(st.booleans())]
        before = state(network)
        try:
            network.fuse(group, anchor=None)
        except NetworkError:
            assert state(network) == before
        network.verify()
        have = network.run(inputs)
        assert have.keys() == want.keys()
        for name, value in want.items():
            np.testing.assert_array_equal(have[name], value)
    twin = network.clone()
    assert str(twin) == str(network)


# -- copies -------------------------------------------------------------------------------
def test_a_clone_is_independent_and_shares_weights():
    network = residual()
    network.model_nodes = ("node_conv", "node_relu", "node_conv2")
    before = state(network)
    twin = network.clone()
    assert state(twin) == before
    assert twin.tensor("w1").weight is network.tensor("w1").weight
    assert twin.model_nodes == network.model_nodes
    want = run(network)
    np.testing.assert_array_equal(run(twin), want)
    twin.fuse([twin.layer("conv"), twin.layer("relu")], anchor=twin.layer("conv"))
    twin.absorbed["node_relu"] = "a test"
    twin.rename_tensor(twin.tensor("out"), "other")
    assert state(network) == before
    assert network.absorbed == {}
    np.testing.assert_array_equal(run(twin), want)
    again = twin.clone()
    again.verify()
    np.testing.assert_array_equal(run(again), want)


def test_an_empty_network_adopts_a_full_one():
    network = NetworkDefinition("mine")
    network.adopt(residual())
    network.verify()
    assert network.name == "mine"
    with pytest.raises(NetworkError, match="parse into a new NetworkDefinition"):
        network.adopt(residual())


# -- weights ------------------------------------------------------------------------------
def test_a_derived_weight_names_the_models_own():
    kind = TensorType(DataType.FLOAT, (3,))
    body = Body(
        (BodyInput("a", kind), BodyInput("b", kind)),
        (Node(operator_named("Mul"), ("a", "b"), ("y",)),),
        ("y",),
    )
    one, two = Weight("one", np.float32([1, 2, 3])), Weight("two", np.float32([2, 2, 2]))
    derived = Weight.derive("product", body, (one, two))
    again = Weight.derive("twice", body, (derived, two))
    assert derived.array.tolist() == [2, 4, 6]
    assert derived.recipe == Recipe(body, (one, two))
    assert again.model_weights == ("one", "two")
    with pytest.raises(ValueError, match="read-only"):
        derived.array[0] = 5


def test_verify_finds_broken_links():
    network = residual()
    network.layer("relu").inputs[0].users.clear()
    with pytest.raises(NetworkError, match="relu: its input 'conv_out' is not linked"):
        network.verify()
    network = residual()
    network.tensor("w1").users.append(network.layer("add"))
    with pytest.raises(NetworkError, match="w1: 'add' does not read it"):
        network.verify()
    network = residual()
    network.tensors["orphan"] = Tensor("orphan", TensorType(DataType.FLOAT, (1,)))
    with pytest.raises(NetworkError, match="orphan: nothing produces it"):
        network.verify()
    network = residual()
    network.tensor("out").type = TensorType(DataType.HALF, (1,))
    with pytest.raises(NetworkError, match="add: outputs are"):
        network.verify()


def test_a_cycle_is_named():
    network = residual()
    network.replace_input(network.layer("conv"), 0, network.layer("relu").outputs[0])
    with pytest.raises(NetworkError, match="layers form a cycle: conv, relu"):
        _ = network.layers


def test_the_text_form_shows_names_types_and_order():
    text = str(residual())
    assert text.splitlines()[0] == "network residual(x: FLOAT[batch, 4, 6, 6]) -> out:"
    assert "  relu_out: FLOAT[batch, 4, 6, 6] = Relu(conv_out)" in text
    assert isinstance(residual().layers[0], Layer)
