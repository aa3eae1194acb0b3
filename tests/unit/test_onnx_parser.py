"""An imported network is the model: its names, sizes, constants, functions and results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from workbench.datatypes import DataType
from workbench.errors import NetworkError
from workbench.network import NetworkDefinition
from workbench.onnx_parser import OnnxParser, parse_model
from workbench.operators import operator_named

DATASETS = Path(__file__).parents[2] / "datasets"
RNG = np.random.default_rng(11)


def from_text(text: str, **weights: Any) -> ModelProto:
    """A model in ONNX's text form, with initializers."""
    model = parser.parse_model(text)
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def parsed(model: ModelProto) -> NetworkDefinition:
    return parse_model(model.SerializeToString())


def expected(model: ModelProto | Path, feeds: dict[str, Any]) -> list[Any]:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(source, options).run(None, feeds)


HEAD = '<ir_version: 9, opset_import: ["" : 20]>'


# -- real models --------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["digits_cnn", "digits_inception", "digits_vit"])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_trained_network_gives_what_onnx_runtime_gives(name: str, batch: int) -> None:
    path = DATASETS / f"{name}.onnx"
    network = parse_model(path)
    (given,) = network.inputs
    shape = [d if isinstance(d, int) else batch for d in given.shape]
    feeds = {given.name: RNG.random(shape, np.float32)}
    for ours, theirs in zip(network.run(feeds).values(), expected(path, feeds), strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("name", ["digits_cnn", "digits_inception", "digits_vit"])
def test_every_node_of_a_trained_network_is_in_a_layer_or_absorbed(name: str) -> None:
    network = parse_model(DATASETS / f"{name}.onnx")
    found = {o for layer in network.layers for o in layer.origin} | set(network.absorbed)
    assert set(network.model_nodes) == found
    assert len(network.model_nodes) == len(set(network.model_nodes))
    network.verify()


# -- by hand and by parser ----------------------------------------------------------------
def test_a_network_by_hand_and_by_parser_are_the_same() -> None:
    w, b = RNG.random((4, 3, 3, 3), np.float32), RNG.random(4, np.float32)
    model = from_text(
        HEAD + "small (float[batch, 3, 8, 8] x) => (float[batch, 4, 1, 1] y)"
        "{ [conv] c = Conv<pads = [1, 1, 1, 1]>(x, w, b) [act] r = Relu(c)"
        "  [pool] y = GlobalAveragePool(r) }",
        w=w,
        b=b,
    )
    hand = NetworkDefinition("small")
    x = hand.add_input("x", "float32", ("batch", 3, 8, 8))
    kernel, bias = hand.constant(w, "w"), hand.constant(b, "b")
    conv = hand.add_layer(
        "Conv", [x, kernel, bias], {"pads": (1, 1, 1, 1)}, name="conv", outputs=["c"]
    )
    act = hand.add_layer("Relu", conv.outputs, name="act", outputs=["r"])
    pool = hand.add_layer("GlobalAveragePool", act.outputs, name="pool", outputs=["y"])
    hand.mark_output(pool.outputs[0])

    network = parsed(model)
    assert str(network) == str(hand)
    assert list(network.tensors) == list(hand.tensors)
    assert [x.attributes for x in network.layers] == [x.attributes for x in hand.layers]
    assert [x.body.signature for x in network.layers] == [x.body.signature for x in hand.layers]
    feeds = {"x": RNG.random((2, 3, 8, 8), np.float32)}
    np.testing.assert_array_equal(network.run(feeds)["y"], hand.run(feeds)["y"])


def test_layers_tensors_and_origins_are_named_as_in_the_model() -> None:
    network = parsed(
        from_text(HEAD + "g (float[2] x) => (float[2] y) { [first] t = Relu(x) y = Neg(t) }")
    )
    assert [(x.name, x.origin) for x in network.layers] == [
        ("first", ("first",)),
        ("Neg_1", ("Neg_1",)),
    ]
    assert [t.name for x in network.layers for t in x.outputs] == ["t", "y"]
    assert network.name == "g"


def test_nodes_that_share_a_name_get_names_of_their_own() -> None:
    network = parsed(
        from_text(
            HEAD + "g (float[2] x) => (float[2] y) "
            "{ [Neg_1] a = Relu(x) b = Neg(a) [same] c = Abs(b) [same] y = Exp(c) }"
        )
    )
    assert network.model_nodes == ("Neg_1", "Neg_1_", "same", "same_2")


# -- sizes --------------------------------------------------------------------------------
def shaped(*inputs: tuple[Any, ...]) -> NetworkDefinition:
    values = [
        helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, dims)
        for i, dims in enumerate(inputs)
    ]
    nodes = [helper.make_node("Neg", [f"x{i}"], [f"y{i}"]) for i in range(len(inputs))]
    outputs = [helper.make_value_info(f"y{i}", v.type) for i, v in enumerate(values)]
    for output in outputs:
        output.type.tensor_type.ClearField("shape")
    graph = helper.make_graph(nodes, "g", values, outputs)
    return parsed(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))


def sizes(network: NetworkDefinition) -> list[list[str]]:
    return [[str(d) for d in t.shape] for t in network.inputs]


def test_equal_size_names_are_one_symbol_in_all_inputs() -> None:
    network = shaped(("batch", 3), ("batch", "tokens"))
    assert network.symbols == ("batch", "tokens")
    assert sizes(network) == [["batch", "3"], ["batch", "tokens"]]


def test_size_names_become_identifiers_that_stay_distinct() -> None:
    assert sizes(shaped(("batch size", "batch_size", "3d", "class", "max"))) == [
        ["batch_size", "batch_size_2", "size_3d", "size_class", "size_max"]
    ]


def test_a_size_without_a_name_is_named_after_its_place() -> None:
    assert sizes(shaped((None, 2, -1))) == [["x0_0", "2", "x0_2"]]


def test_a_size_expression_is_kept_where_the_inputs_bind_it() -> None:
    network = shaped(("batch*16", "Min(512, tokens)"), ("batch", "tokens"))
    assert sizes(network)[0] == ["16*batch", "min(512, tokens)"]
    feeds = {"x0": np.ones((32, 5), np.float32), "x1": np.ones((2, 5), np.float32)}
    assert network.run(feeds)["y0"].shape == (32, 5)
    with pytest.raises(NetworkError, match=r"size 16\*batch is 32, given 31"):
        network.run({**feeds, "x0": np.ones((31, 5), np.float32)})


def test_a_size_expression_that_nothing_binds_is_a_size_of_its_own() -> None:
    assert sizes(shaped(("batch*16", "a/b", "f(x, y, z)", "n // 0"), ("n",))) == [
        ["batch_16", "a_b", "f_x__y__z", "n____0"],
        ["n"],
    ]


# -- constants ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attribute", "dtype", "value"),
    [
        ("value_float = 1.5", DataType.FLOAT, 1.5),
        ("value_floats = [1.5, 2.0]", DataType.FLOAT, [1.5, 2.0]),
        ("value_int = 3", DataType.INT64, 3),
        ("value_ints = [3, 4]", DataType.INT64, [3, 4]),
        ("value = float[2] {1.0, 2.0}", DataType.FLOAT, [1.0, 2.0]),
    ],
)
def test_a_constant_node_becomes_a_weight(attribute: str, dtype: DataType, value: Any) -> None:
    network = parsed(
        from_text(
            HEAD + "g (float[2] x) => (float[2] y)"
            f"{{ [c] k = Constant<{attribute}>() f = Cast<to = 1>(k) y = Add(x, f) }}"
        )
    )
    weight = network.tensor("k")
    assert weight.is_constant
    assert weight.dtype is dtype
    np.testing.assert_array_equal(weight.value, value)
    assert network.absorbed == {"c": "weight k"}


def test_a_sparse_constant_is_written_out() -> None:
    values = helper.make_tensor("v", TensorProto.FLOAT, [2], [5.0, 7.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [2, 2], [0, 1, 1, 2])
    sparse = helper.make_sparse_tensor(values, indices, [2, 3])
    nodes = [
        helper.make_node("Constant", [], ["k"], sparse_value=sparse),
        helper.make_node("Add", ["x", "k"], ["y"]),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 3))
    graph = helper.make_graph(nodes, "g", [value], [out])
    network = parsed(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    np.testing.assert_array_equal(network.tensor("k").value, [[0, 5, 0], [0, 0, 7]])


def test_an_initializer_that_is_also_an_input_is_a_constant() -> None:
    model = from_text(
        HEAD + "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }",
        w=np.ones(2, np.float32),
    )
    network = parsed(model)
    assert [t.name for t in network.inputs] == ["x"]
    assert network.tensor("w").is_constant


def test_an_initializer_that_nobody_reads_is_left_out() -> None:
    network = parsed(from_text(HEAD + "g (float[2] x) => (float[2] y) { y = Neg(x) }", w=[1.0]))
    assert list(network.tensors) == ["x", "y"]


def test_a_graph_may_hand_out_an_input_and_a_constant() -> None:
    network = parsed(
        from_text(
            HEAD + "g (float[2] x) => (float[2] x, float[2] w, float[2] y) { y = Neg(x) }",
            w=np.ones(2, np.float32),
        )
    )
    assert [t.name for t in network.outputs] == ["x", "w", "y"]
    assert network.run({"x": np.ones(2, np.float32)})["w"].tolist() == [1.0, 1.0]


def test_a_declared_inner_shape_is_not_believed() -> None:
    model = from_text(
        HEAD + "g (float[2, 3] x) => (float[2, 3] y) <float[7] t> { t = Relu(x) y = Neg(t) }"
    )
    assert parsed(model).tensor("t").shape == (2, 3)


def test_optional_inputs_and_outputs_may_be_left_out() -> None:
    model = from_text(
        HEAD + "g (float[4] x) => (float[4] y) { a = Clip(x, , high) y, mask = Dropout(a) }",
        high=np.float32(0.5),
    )
    network = parsed(model)
    clip = network.layers[0]
    assert clip.inputs[1] is None
    result = network.run({"x": np.array([-1, 0, 0.5, 2], np.float32)})["y"]
    assert result.tolist() == [-1, 0, 0.5, 0.5]
    assert "mask" not in network.tensors


# -- functions ----------------------------------------------------------------------------
FUNCTIONS = """
<ir_version: 9, opset_import: ["" : 20, "local" : 1]>
g (float[2, 3] x) => (float[2, 3] y)
{
   [one] a = local.Scaled <by: float = 2.0> (x)
   [two] y = local.Scaled <by: float = 3.0> (a)
}
<domain: "local", opset_import: ["" : 20, "local" : 1]>
Scaled <by> (v) => (w)
{
   [k] factor = Constant <value_float: float = @by> ()
   [mul] t = Mul (v, factor)
   [act] w = local.Act (t)
}
<domain: "local", opset_import: ["" : 13]>
Act (v) => (w)
{
   w = Softmax <axis: int = 0> (v)
}
"""


def test_local_functions_are_inlined_with_their_attributes() -> None:
    model = parser.parse_model(FUNCTIONS)
    network = parsed(model)
    feeds = {"x": RNG.random((2, 3), np.float32)}
    np.testing.assert_allclose(
        network.run(feeds)["y"], expected(model, feeds)[0], rtol=1e-5, atol=1e-7
    )


def test_inlined_nodes_are_named_after_their_call_and_the_call_is_absorbed() -> None:
    network = parsed(parser.parse_model(FUNCTIONS))
    assert [x.origin for x in network.layers] == [
        ("one/mul",),
        ("one/act/Softmax_0",),
        ("two/mul",),
        ("two/act/Softmax_0",),
    ]
    assert network.absorbed == {
        "one": "its body, function Scaled",
        "one/k": "weight one/factor",
        "one/act": "its body, function Act",
        "two": "its body, function Scaled",
        "two/k": "weight two/factor",
        "two/act": "its body, function Act",
    }
    assert set(network.model_nodes) == {o for x in network.layers for o in x.origin} | set(
        network.absorbed
    )


def test_a_function_that_hands_its_input_through_becomes_an_identity() -> None:
    network = parsed(
        parser.parse_model(
            """
            <ir_version: 9, opset_import: ["" : 20, "local" : 1]>
            g (float[2] x) => (float[2] y) { [call] t = local.Same(x) y = Neg(t) }
            <domain: "local", opset_import: ["" : 20]>
            Same (v) => (v) { unused = Neg(v) }
            """
        )
    )
    assert network.run({"x": np.ones(2, np.float32)})["y"].tolist() == [-1, -1]


def test_a_decomposed_node_is_the_origin_of_all_its_layers() -> None:
    network = parsed(
        from_text(
            '<ir_version: 7, opset_import: ["" : 11]> g (float[n, 3, 4] x) => (float[n, 3, 4] y)'
            "{ [soft] y = Softmax<axis = 1>(x) }"
        )
    )
    assert [x.op for x in network.layers] == ["Shape", "Flatten", "Softmax", "Reshape"]
    assert {x.origin for x in network.layers} == {("soft",)}
    assert network.layers[2].name == "soft"


# -- the parser ---------------------------------------------------------------------------
def test_the_parser_fills_the_network_that_it_was_given() -> None:
    network = NetworkDefinition("mine")
    onnx_parser = OnnxParser(network)
    assert onnx_parser.parse_from_file(DATASETS / "digits_cnn.onnx")
    assert onnx_parser.num_errors == 0
    assert network.name == "mine"
    assert network.num_layers == 20


def test_the_parser_tells_what_the_model_says_of_itself() -> None:
    model = from_text(HEAD + "g (float[2] x) => (float[2] y) { y = Neg(x) }")
    helper.set_model_props(model, {"author": "me"})
    model.producer_name = "hand"
    onnx_parser = OnnxParser(NetworkDefinition())
    assert onnx_parser.parse(model.SerializeToString())
    assert onnx_parser.metadata == {
        "author": "me",
        "producer": "hand",
        "ir_version": "9",
        "opsets": "ai.onnx 20",
    }


def test_a_second_model_needs_a_network_of_its_own() -> None:
    network = parse_model(DATASETS / "digits_cnn.onnx")
    with pytest.raises(NetworkError, match="parse into a new NetworkDefinition"):
        OnnxParser(network).parse_from_file(DATASETS / "digits_cnn.onnx")


def chain(count: int) -> bytes:
    """A model of ``count`` nodes in a row that share one weight."""
    nodes = [
        helper.make_node("Mul" if i % 2 else "Add", [f"t{i}", "w"], [f"t{i + 1}"])
        for i in range(count)
    ]
    x = helper.make_tensor_value_info("t0", TensorProto.FLOAT, ("batch", 4))
    y = helper.make_tensor_value_info(f"t{count}", TensorProto.FLOAT, ("batch", 4))
    weight = numpy_helper.from_array(np.ones(4, np.float32), "w")
    graph = helper.make_graph(nodes, "chain", [x], [y], [weight])
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset]).SerializeToString()


def seconds_to_parse(data: bytes) -> float:
    start = time.process_time()
    parse_model(data)
    return time.process_time() - start


def test_eight_times_the_nodes_take_far_less_than_64_times_the_time() -> None:
    small, large = chain(500), chain(4000)
    seconds_to_parse(small)
    assert seconds_to_parse(large) < 24 * min(seconds_to_parse(small) for _ in range(3))


def test_an_unforeseen_reason_names_the_line_where_it_arose():
    def broken(inference):
        return inference.no_such_thing

    relu = operator_named("Relu")
    infer = relu.infer
    object.__setattr__(relu, "infer", broken)
    try:
        onnx_parser = OnnxParser(NetworkDefinition("n"))
        text = '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y)'
        model = from_text(text + "{ y = Relu(x) }")
        assert not onnx_parser.parse(model.SerializeToString())
    finally:
        object.__setattr__(relu, "infer", infer)
    reason = onnx_parser.get_error(0)
    assert (reason.rule, reason.node_operator, reason.func) == ("unforeseen", "Relu", "broken")
    assert reason.file == "unit/test_onnx_parser.py"
    assert "report it" in reason.remedy
