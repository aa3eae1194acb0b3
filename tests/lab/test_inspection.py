"""What inspect_model says of whole, refused and cut models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import workbench as wb
from workbench.errors import ExportError, ParserError
from workbench.lab import cut_part
from workbench.lab.operator_uses import HOST, KERNEL, REFUSED, SIZES, SUPPORTED
from workbench.lab.stored_weights import statistics_of
from workbench.onnx_parser import parse_model
from workbench.reports import file_graph, interface_rows, operator_rows, part_rows, weight_rows

MODEL = wb.bundled("datasets", "digits_cnn.onnx")
HEAD = '<ir_version: 10, opset_import: ["" : 21, "my" : 1]>'
PARTLY = """
g (float[batch, 4] x) => (float[batch, 4] y)
<float[batch, 4] b, float[batch, 4] c>
{
  a = Relu(x)
  b = my.Swirl(a)
  c = Sigmoid(b)
  d = Add(c, a)
  y = Tanh(d)
}
"""


def partly() -> bytes:
    return parser.parse_model(HEAD + PARTLY).SerializeToString()


def test_a_model_that_is_imported_says_what_runs_each_operator() -> None:
    found = wb.inspect_model(MODEL)
    assert found.supported
    assert (found.name, found.opsets["ai.onnx"]) == ("digits_cnn", 20)
    uses = {u.operator: u for u in found.operators}
    assert uses["Conv"].nodes == 5
    assert uses["Conv"].support == KERNEL
    assert "NUMPY" in uses["Conv"].sources
    assert interface_rows(found).values.tolist() == [
        ["input", "image", "FLOAT", "[batch, 1, 8, 8]"],
        ["output", "logits", "FLOAT", "[batch, 10]"],
    ]


def test_operators_that_read_sizes_only_and_those_of_the_host_say_so() -> None:
    text = """
    g (float[n, 4] x) => (int64[2] s, int64[k, m] z)
    { s = Shape(x)  z = NonZero(x) }
    """
    found = wb.inspect_model(parser.parse_model(HEAD + text).SerializeToString())
    assert {u.operator: u.support for u in found.operators} == {"Shape": SIZES, "NonZero": HOST}
    assert any("only the host can run it" in n for n in found.notes)


def test_a_refused_model_is_taken_apart_all_the_same() -> None:
    found = wb.inspect_model(partly())
    assert not found.supported
    assert [e.node_operator for e in found.errors] == ["my::Swirl"]
    assert {u.operator: u.support for u in found.operators} == {
        "my::Swirl": REFUSED,
        **dict.fromkeys(("Relu", "Sigmoid", "Add", "Tanh"), SUPPORTED),
    }
    assert sorted(part_rows(found)["Supported"]) == ["no", "yes", "yes"]
    support = {
        n.id: n.support for n in file_graph(found).nodes if n.kind not in ("Input", "Output")
    }
    assert support["Swirl_1"] == "refused"
    assert len(set(support.values())) == 3


def test_a_supported_part_is_a_model_of_its_own_that_is_imported() -> None:
    found = wb.inspect_model(partly())
    parts = [p for p in found.parts if p.supported]
    first, last = (parse_model(cut_part(partly(), p.nodes)) for p in parts)
    assert [x.op for x in first.layers] == ["Relu"]
    assert [t.name for t in last.inputs] == ["b", "a"]
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    values = last.run({"a": x, "b": x})
    assert np.allclose(values["y"], np.tanh(1 / (1 + np.exp(-x)) + x))


def test_a_part_whose_input_has_no_known_type_is_refused_by_name() -> None:
    model = parser.parse_model(HEAD + PARTLY)
    del model.graph.value_info[:]
    nodes = [2, 3, 4]
    with pytest.raises(ExportError, match="the type of b is not known"):
        cut_part(model.SerializeToString(), nodes)


def test_weights_say_where_they_lie_and_their_values_are_read_when_asked(tmp_path: Path) -> None:
    values = np.array([[1.0, np.nan], [np.inf, -3.0]], np.float32)
    weight = numpy_helper.from_array(values, "w")
    node = helper.make_node("Add", ["x", "w"], ["y"])
    kinds = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 2]) for n in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", kinds[:1], kinds[1:], [weight]))
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    found = wb.inspect_model(tmp_path / "m.onnx")
    (w,) = found.weights
    assert (w.where, w.external, w.nbytes, w.shape) == ("m.data", True, 16, (2, 2))
    seen = w.statistics()
    assert seen is not None
    assert (seen.least, seen.largest, seen.nans, seen.infinities) == (-3.0, 1.0, 1, 1)
    assert "NaN" not in weight_rows(found)
    assert weight_rows(found, {"w": seen})["NaN"].tolist() == [1]
    assert any("m.data" in n for n in found.notes)


def test_what_branches_and_dropped_nodes_read_is_read(tmp_path: Path) -> None:
    """An If's branches capture a weight; Dropout's ratio is read by a node that becomes none."""

    def branch(name: str, op: str) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
        return helper.make_graph([helper.make_node(op, ["x", "w"], [name])], name, [], [made])

    nodes = [
        helper.make_node(
            "If", ["c"], ["a"], then_branch=branch("t", "Add"), else_branch=branch("e", "Mul")
        ),
        helper.make_node("Dropout", ["a", "ratio"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy")
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    held = {"w": [1.0, 2.0], "ratio": 0.5, "unread": [3.0, 4.0]}
    stored = [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in held.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x, c], [y], stored),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    found = wb.inspect_model(path)
    assert found.supported
    assert {w.name: w.readers for w in found.weights} == {"w": 1, "ratio": 1, "unread": 0}
    assert any(n.startswith("unread: stored, but no node reads it") for n in found.notes)
    assert [n for n in found.notes if "m.data" in n] == ["3 weights lie in the file m.data"]
    seen = {w.name: w.statistics() for w in found.weights}
    assert (seen["unread"].least, seen["ratio"].least) == (3.0, 0.5)


def test_a_part_of_no_nodes_is_refused() -> None:
    with pytest.raises(ExportError, match="the part: it has no nodes; name the nodes"):
        cut_part(partly(), [])


def test_statistics_of_what_holds_no_finite_number() -> None:
    seen = statistics_of(np.full(3, np.nan, np.float32))
    assert (seen.least, seen.largest, seen.nans) == (None, None, 3)
    assert statistics_of(np.array([-5, 9], np.int8)).largest == 9.0


def test_a_network_made_by_hand_is_inspected_too() -> None:
    network = wb.NetworkDefinition("by hand")
    x = network.add_input("x", "FP32", ("n", 3))
    network.mark_output(network.add_layer("Relu", [x]).outputs[0])
    found = wb.inspect_model(network)
    assert operator_rows(found)["Layers"].tolist() == ["itself"]
    assert found.operators[0].support == KERNEL


def test_what_is_no_model_raises() -> None:
    with pytest.raises(ParserError, match="not one whole ONNX message"):
        wb.inspect_model(MODEL.read_bytes()[:500])
