"""A bad model is refused with one clear reason for each thing that is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from workbench.errors import ParserError
from workbench.network import NetworkDefinition
from workbench.onnx_parser import ErrorCode, OnnxParser, ParserErrorRecord, parse_model

FLOAT = TensorProto.FLOAT
TRAINING = "ai.onnx.preview.training"


def value(name: str, shape: Any = (2, 3), kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def stored(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def model(
    nodes: Any,
    *,
    inputs: Any = ("x",),
    outputs: Any = ("y",),
    weights: Any = (),
    opset: int = 21,
    opset_imports: Any = (),
    **parts: Any,
) -> ModelProto:
    """A model of float matrices; an input or output is a name or its whole declaration.

    opset_imports: of other domains.
    """

    def declared(values: Any, shape: Any) -> Any:
        return [value(v, shape) if isinstance(v, str) else v for v in values]

    graph = helper.make_graph(
        nodes, "bad", declared(inputs, (2, 3)), declared(outputs, None), weights
    )
    opsets = [helper.make_opsetid("", opset), *opset_imports]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **parts)


def node(operator: str, inputs: str, outputs: str, name: str = "n", **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), outputs.split(), name=name, **attributes)


def reasons(bad: ModelProto | bytes) -> tuple[ParserErrorRecord, ...]:
    """Every reason, all of them records."""
    data = bad if isinstance(bad, bytes) else bad.SerializeToString()
    with pytest.raises(ParserError) as caught:
        parse_model(data)
    records = tuple(e for e in caught.value.errors if isinstance(e, ParserErrorRecord))
    assert len(records) == len(caught.value.errors) > 0
    assert all(e.rule and e.remedy and e.func and e.line > 0 for e in records)
    return records


def only(bad: ModelProto | bytes) -> ParserErrorRecord:
    found = reasons(bad)
    assert len(found) == 1, [str(e) for e in found]
    return found[0]


RELU = node("Relu", "x", "y")


# -- the file -----------------------------------------------------------------------------
def test_a_truncated_file_is_refused_with_its_place_and_a_remedy(tmp_path: Path) -> None:
    whole = model([RELU], weights=[stored("w", 50, 50)]).SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ParserError) as caught:
        parse_model(path)
    assert caught.value.place == str(path)
    assert f"{len(whole) // 2} bytes" in caught.value.problem
    assert "export it again" in caught.value.remedy
    (record,) = caught.value.errors
    assert isinstance(record, ParserErrorRecord)
    assert record.code is ErrorCode.MODEL_DESERIALIZE_FAILED


@settings(max_examples=60, deadline=None)
@given(st.integers(min_value=0), st.booleans())
def test_no_cut_and_no_flipped_byte_gives_anything_but_a_typed_error(at: int, cut: bool) -> None:
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y", "r")]
    good = model(nodes, inputs=[value("x", ("n", 3, 8, 8))], weights=[stored("w", 4, 3, 3, 3)])
    data = bytearray(good.SerializeToString())
    at %= len(data)
    if cut:
        del data[at:]
    else:
        data[at] ^= 0xFF
    parser = OnnxParser(NetworkDefinition())
    if not parser.parse(bytes(data)):
        assert parser.num_errors > 0


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x00" * 64])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    record = only(data)
    assert record.code is ErrorCode.MODEL_DESERIALIZE_FAILED
    assert f"{len(data)} bytes" in record.desc


def test_a_model_without_graph_or_opset_says_which_part_is_missing() -> None:
    record = only(ModelProto(ir_version=10).SerializeToString())
    assert "without graph, opset_import" in record.desc


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParserError, match=r"none\.onnx: the file cannot be read: No such file"):
        parse_model(tmp_path / "none.onnx")


# -- names and order ----------------------------------------------------------------------
def test_a_missing_initializer_is_refused_naming_node_and_tensor() -> None:
    record = only(model([node("MatMul", "x weight", "y", "fc")]))
    assert record.code is ErrorCode.INVALID_GRAPH
    assert (record.node, record.node_name, record.node_operator) == (0, "fc", "MatMul")
    assert "'weight', which is no input, initializer or node output" in record.desc


def test_a_misspelt_tensor_suggests_the_near_name() -> None:
    record = only(model([node("MatMul", "x fc.weigth", "y")], weights=[stored("fc.weight", 3, 3)]))
    assert "'fc.weight' exists" in record.remedy


def test_a_cycle_is_refused_naming_its_nodes_in_order() -> None:
    nodes = [
        node("Relu", "x", "first", "outside"),
        node("Add", "first c", "a", "add"),
        node("Relu", "a", "b", "relu"),
        node("Neg", "b", "c", "neg"),
        node("Abs", "c", "y", "abs"),
    ]
    record = only(model(nodes))
    assert record.rule == "cycle"
    assert "'add' -> 'relu' -> 'neg' -> 'add'" in record.desc
    assert "abs" not in record.desc
    assert "outside" not in record.desc


def test_a_node_that_reads_itself_is_a_cycle() -> None:
    assert "'self' -> 'self'" in only(model([node("Add", "x y", "y", "self")])).desc


def test_unsorted_nodes_are_refused_naming_both() -> None:
    record = only(model([node("Relu", "a", "y", "late"), node("Neg", "x", "a", "early")]))
    assert record.rule == "topological_order"
    assert record.node_name == "late"
    assert "'a' before Neg 'early' makes it" in record.desc


def test_two_nodes_that_make_one_tensor_are_refused_naming_both() -> None:
    record = only(model([node("Relu", "x", "y", "one"), node("Neg", "x", "y", "two")]))
    assert record.rule == "single_assignment"
    assert record.node_name == "two"
    assert "Relu 'one'" in record.desc


@pytest.mark.parametrize("name", ["x", "w"])
def test_a_node_that_overwrites_an_input_or_initializer_is_refused(name: str) -> None:
    weights = [stored("w", 2, 3)]
    nodes = [node("Neg", "x", name, "bad"), node("Add", "x w", "y", "add")]
    assert f"'{name}', which is an in" in only(model(nodes, weights=weights)).desc


def test_two_initializers_of_one_name_are_refused() -> None:
    weights = [stored("w", 2, 3), stored("w", 2, 3)]
    record = only(model([node("Add", "x w", "y")], weights=weights))
    assert "two initializers are named 'w'" in record.desc


def test_an_output_that_nobody_makes_is_refused() -> None:
    assert "output 'z' of the graph" in only(model([RELU], outputs=("z",))).desc


def test_a_graph_without_outputs_is_refused() -> None:
    assert "no output" in only(model([RELU], outputs=())).desc


# -- operators ----------------------------------------------------------------------------
def test_all_unsupported_operators_are_listed_at_once_with_their_nodes() -> None:
    gradient: dict[str, Any] = {"xs": ["x"], "y": "a"}
    nodes = [
        node("Fanciful", "x", "a", "first"),
        helper.make_node("Gradient", ["a"], ["b"], name="second", domain=TRAINING, **gradient),
        node("Fanciful", "b", "c", "third"),
        helper.make_node("Fancy", ["c"], ["d"], name="fourth", domain="com.example"),
        node("Inverse", "d", "y", "fifth"),
    ]
    opsets = [helper.make_opsetid(TRAINING, 1), helper.make_opsetid("com.example", 1)]
    found = reasons(model(nodes, opset_imports=opsets))
    assert [e.node_name for e in found] == ["first", "second", "third", "fourth", "fifth"]
    assert all(e.code is ErrorCode.UNSUPPORTED_NODE for e in found)
    with pytest.raises(ParserError) as caught:
        parse_model(model(nodes, opset_imports=opsets).SerializeToString())
    text = str(caught.value)
    assert "Fanciful 'first', 'third'" in text
    assert "a derivative is no step of inference" in text
    assert "com.example::Fancy" in text
    assert "ai.onnx has no operator Inverse" in text


@pytest.mark.parametrize(
    ("operator", "reason"),
    [
        ("ZipMap", "zipmap=False leaves it out"),
        ("CastMap", "maps have no place in a network of tensors"),
        ("Forest", "ai.onnx.ml has no operator ai.onnx.ml::Forest"),
        ("LabelEncoder", "the newest known here is 5"),
    ],
)
def test_an_operator_of_another_domain_is_refused_with_its_reason(
    operator: str, reason: str
) -> None:
    bad = helper.make_node(operator, ["x"], ["y"], name="n", domain="ai.onnx.ml")
    version = 9 if operator == "LabelEncoder" else 3
    imports = [helper.make_opsetid("ai.onnx.ml", version)]
    assert reason in only(model([bad], opset_imports=imports)).desc


def test_a_domain_that_is_not_imported_is_named() -> None:
    bad = helper.make_node("Scaler", ["x"], ["y"], name="n", domain="ai.onnx.ml")
    assert "imports no ai.onnx.ml opset" in only(model([bad])).desc


def test_an_operator_newer_than_the_imported_opset_says_which_it_needs() -> None:
    record = only(model([node("Gelu", "x", "y")], opset=13))
    assert "Gelu came with opset 20, the model imports opset 13" in record.desc


def test_an_opset_newer_than_ours_names_both() -> None:
    record = only(model([RELU], opset=99))
    assert record.code is ErrorCode.UNSUPPORTED_GRAPH
    assert "99" in record.desc
    assert "28" in record.desc


def test_a_deprecated_operator_is_refused() -> None:
    bad = model([node("Upsample", "x s", "y")], weights=[stored("s", 2)], opset=11)
    assert "Upsample is deprecated since opset 10" in only(bad).desc


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (node("Relu", "x x", "y"), "it has 2 inputs, Relu-14 has 1"),
        (node("Add", "x", "y"), "it has 1 inputs, Add-14 has 2"),
        (helper.make_node("Add", ["", "x"], ["y"], name="n"), "input 0 (A) is left out"),
        (node("Relu", "x", "y", alpha=1.0), "Relu-14 has no attribute 'alpha'"),
        (node("Softmax", "x", "y", axis=1.5), "'axis' is of type FLOAT, Softmax-13 wants INT"),
        (node("Concat", "x", "y"), "attribute 'axis' of Concat-13 is missing"),
        (node("Cast", "x", "y", to=77), "attribute 'to' is 77"),
    ],
)
def test_a_node_that_contradicts_its_schema_is_refused(bad: Any, words: str) -> None:
    record = only(model([bad]))
    assert record.node_name == "n"
    assert words in record.desc


# -- types and shapes ---------------------------------------------------------------------
def test_inputs_of_different_types_are_refused_naming_both() -> None:
    inputs = [value("x"), value("k", (2, 3), TensorProto.INT64)]
    record = only(model([node("Add", "x k", "y", "add")], inputs=inputs))
    assert record.code is ErrorCode.INVALID_NODE
    assert "A ('x') is FLOAT" in record.desc
    assert "B ('k') is INT64" in record.desc


def test_a_type_that_the_operator_does_not_take_is_refused() -> None:
    record = only(model([node("Sqrt", "x", "y")], inputs=[value("x", (2,), TensorProto.INT32)]))
    assert "is INT32, Sqrt takes FLOAT, HALF, DOUBLE or BF16" in record.desc


def test_shapes_that_do_not_fit_are_refused_naming_node_and_sizes() -> None:
    record = only(model([node("MatMul", "x w", "y", "fc")], weights=[stored("w", 4, 5)]))
    assert record.node_name == "fc"
    assert "3" in record.desc
    assert "4" in record.desc


def test_one_bad_node_does_not_hide_another_nor_blame_its_readers() -> None:
    nodes = [
        node("MatMul", "x w", "a", "bad_one"),
        node("Relu", "a", "b", "victim"),
        node("MatMul", "x v", "c", "bad_two"),
        node("Add", "b c", "y", "victim_too"),
    ]
    found = reasons(model(nodes, weights=[stored("w", 4, 5), stored("v", 7, 5)]))
    assert [e.node_name for e in found] == ["bad_one", "bad_two"]


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (value("y", (2, 4)), "shape [2, 4], its nodes give [2, 3]"),
        (value("y", (2, 3, 1)), "shape [2, 3, 1], its nodes give [2, 3]"),
        (value("y", (2, 3), TensorProto.INT32), "type INT32, its nodes give FLOAT"),
    ],
)
def test_a_declared_output_that_contradicts_the_nodes_names_both(declared: Any, words: str) -> None:
    record = only(model([RELU], outputs=[declared]))
    assert record.rule == "declared_output"
    assert "output 'y'" in record.desc
    assert words in record.desc


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (helper.make_tensor_value_info("x", 0, (2,)), "has element type 0 elements"),
        (
            helper.make_value_info("x", helper.make_sparse_tensor_type_proto(FLOAT, (2,))),
            "is a sparse_tensor, not a tensor",
        ),
        (ValueInfoProto(name="x"), "is a value without type, not a tensor"),
    ],
)
def test_an_input_that_is_no_tensor_or_sequence_is_refused(declared: Any, words: str) -> None:
    record = only(model([RELU], inputs=[declared]))
    assert record.code is ErrorCode.UNSUPPORTED_GRAPH
    assert f"input 'x' {words}" in record.desc


# -- weights ------------------------------------------------------------------------------
def test_raw_data_of_the_wrong_length_names_both_sizes() -> None:
    w = TensorProto(name="w", data_type=FLOAT, dims=[2, 3], raw_data=b"\0" * 20)
    record = only(model([node("Add", "x w", "y")], weights=[w]))
    assert record.code is ErrorCode.INVALID_VALUE
    assert "'w' stores 20 bytes, but FLOAT[2, 3] needs 24 bytes" in record.desc


def test_typed_data_of_the_wrong_count_names_both() -> None:
    w = TensorProto(name="w", data_type=FLOAT, dims=[2, 3], float_data=[1.0, 2.0])
    record = only(model([node("Add", "x w", "y")], weights=[w]))
    assert "stores 2 elements, but FLOAT[2, 3] needs 6 elements" in record.desc


def test_a_negative_size_is_refused() -> None:
    w = TensorProto(name="w", data_type=FLOAT, dims=[-2, 3])
    assert "negative size -2" in only(model([node("Add", "x w", "y")], weights=[w])).desc


def test_a_string_weight_of_the_wrong_count_names_both() -> None:
    w = TensorProto(name="w", data_type=TensorProto.STRING, dims=[3], string_data=[b"a"])
    record = only(model([node("Add", "x w", "y")], weights=[w]))
    assert "stores 1 strings, but STRING[3] needs 3 strings" in record.desc


def test_a_string_weight_where_numbers_are_wanted_names_both() -> None:
    w = helper.make_tensor("w", TensorProto.STRING, [1], [b"a"])
    record = only(model([node("Add", "x w", "y")], weights=[w]))
    assert "input B ('w') is STRING, Add takes FLOAT" in record.desc


def external(location: str, *, offset: str = "0", length: str = "24") -> TensorProto:
    w = TensorProto(name="w", data_type=FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", offset), ("length", length)):
        w.external_data.add(key=key, value=text)
    return w


def refused_external(folder: Path, tensor: TensorProto) -> ParserErrorRecord:
    path = folder / "m.onnx"
    path.write_bytes(model([node("Add", "x w", "y")], weights=[tensor]).SerializeToString())
    parser = OnnxParser(NetworkDefinition())
    assert not parser.parse_from_file(path)
    assert parser.num_errors == 1
    return parser.get_error(0)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../w.bin", "sub/../../w.bin", "C:\\w.bin", "..\\w.bin", ""]
)
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 24)
    record = refused_external(tmp_path / "inside", external(location))
    assert record.rule == "external_data"
    assert "not a relative path inside the model's folder" in record.desc


def test_external_data_behind_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 24)
    (tmp_path / "inside" / "w.bin").symlink_to(tmp_path / "secret.bin")
    record = refused_external(tmp_path / "inside", external("w.bin"))
    assert "is a link out of the model's folder" in record.desc


def test_external_data_behind_a_linked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 24)
    (tmp_path / "inside" / "up").symlink_to(tmp_path)
    assert "is a link out" in refused_external(tmp_path / "inside", external("up/w.bin")).desc


def test_a_missing_external_file_is_named(tmp_path: Path) -> None:
    assert "has no such file" in refused_external(tmp_path, external("w.bin")).desc


@pytest.mark.parametrize(
    ("offset", "length", "words"),
    [
        ("8", "24", "bytes 8 to 32 of 'w.bin', which has 24 bytes"),
        ("0", "12", "stores 12 bytes, but FLOAT[2, 3] needs 24 bytes"),
        ("-4", "24", "offset '-4', which is not a count of bytes"),
    ],
)
def test_external_data_that_does_not_fit_its_file_is_refused(
    tmp_path: Path, offset: str, length: str, words: str
) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 24)
    record = refused_external(tmp_path, external("w.bin", offset=offset, length=length))
    assert words in record.desc


def test_bytes_alone_have_no_folder_for_external_data() -> None:
    record = only(model([node("Add", "x w", "y")], weights=[external("w.bin")]))
    assert "parse the model from its file" in record.remedy


# -- functions ----------------------------------------------------------------------------
def function(name: str, nodes: Any, **parts: Any) -> Any:
    given: Any = {"inputs": ["a"], "outputs": ["b"], "opset_imports": [helper.make_opsetid("", 21)]}
    return helper.make_function("local", name, nodes=nodes, **{**given, **parts})


def call(name: str, label: str = "call") -> Any:
    return helper.make_node(name, ["x"], ["y"], name=label, domain="local")


def test_a_reason_inside_a_function_carries_the_stack_of_functions() -> None:
    inner = function("Inner", [helper.make_node("Fanciful", ["a"], ["b"], name="deep")])
    outer = function(
        "Outer",
        [helper.make_node("Inner", ["a"], ["b"], name="middle", domain="local")],
        opset_imports=[helper.make_opsetid("local", 1)],
    )
    record = only(model([call("Outer")], functions=[inner, outer]))
    assert record.local_function_stack == ("Outer", "Inner")
    assert record.node_name == "call/middle/deep"
    assert record.node == 0


def test_a_function_that_calls_itself_is_refused() -> None:
    again = helper.make_node("Again", ["a"], ["b"], name="inner", domain="local")
    record = only(model([call("Again")], functions=[function("Again", [again])]))
    assert record.rule == "function_recursion"


def test_a_function_called_with_too_many_inputs_is_refused() -> None:
    wide = helper.make_node("F", ["x", "x"], ["y"], name="call", domain="local")
    body = function("F", [helper.make_node("Relu", ["a"], ["b"])])
    assert "it has 1 inputs, the call gives 2" in only(model([wide], functions=[body])).desc


def test_a_function_called_without_its_attribute_is_refused() -> None:
    body = function("F", [helper.make_node("Relu", ["a"], ["b"])], attributes=["alpha"])
    assert "attribute alpha is missing" in only(model([call("F")], functions=[body])).desc


# -- the parser ---------------------------------------------------------------------------
def test_a_failed_parse_leaves_the_network_empty_and_lists_every_reason() -> None:
    network = NetworkDefinition("mine")
    parser = OnnxParser(network)
    bad = model([node("Fanciful", "x", "a", "one"), node("Fanciful", "a", "y", "two")])
    assert not parser.parse(bad.SerializeToString())
    assert parser.num_errors == 2
    assert parser.get_error(1).node_name == "two"
    assert network.num_layers == 0
    assert network.tensors == {}
    parser.clear_errors()
    assert parser.num_errors == 0


def test_supports_model_says_why_not_without_touching_the_network() -> None:
    network = NetworkDefinition()
    parser = OnnxParser(network)
    assert parser.supports_model_v2(model([RELU]).SerializeToString())
    assert not parser.supports_model_v2(model([node("Fanciful", "x", "y")]).SerializeToString())
    assert parser.num_errors == 1
    assert network.tensors == {}


def test_a_thousand_reasons_are_all_kept_and_the_message_stays_readable() -> None:
    nodes = [node("Fanciful", "x", f"y{i}", f"n{i}") for i in range(1000)]
    data = model(nodes, outputs=("y0",)).SerializeToString()
    with pytest.raises(ParserError) as caught:
        parse_model(data)
    assert len(caught.value.errors) == 1000
    assert "and 980 more" in str(caught.value)
    assert len(str(caught.value)) < 2000
