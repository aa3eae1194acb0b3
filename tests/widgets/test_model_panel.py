"""The model panel without a browser: whole, refused, partly supported and broken models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from digits import MODEL
from onnx import TensorProto, helper, numpy_helper, parser

from widgets import ModelPanel, Studio
from widgets.drop import Drop
from widgets.panels import model_view
from workbench.errors import ParserError, SessionError
from workbench.network import NetworkDefinition
from workbench.records import Stage
from workbench.session import Session

HEAD = '<ir_version: 10, opset_import: ["" : 21, "my" : 1]>'
PARTLY = """
g (float[batch, 4] x) => (float[batch, 4] y)
<float[batch, 4] b>
{
  a = Relu(x)
  b = my.Swirl(a)
  c = Sigmoid(b)
  y = Add(c, a)
}
"""
NAN = np.array([1.0, np.nan, np.inf], np.float32)


def partly() -> bytes:
    return parser.parse_model(HEAD + PARTLY).SerializeToString()


def with_weights(values: np.ndarray) -> onnx.ModelProto:
    kinds = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [len(values)]) for n in "xy"]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    stored = [numpy_helper.from_array(values, "w")]
    return helper.make_model(helper.make_graph([node], "g", kinds[:1], kinds[1:], stored))


def texts(widget) -> str:
    """Everything that a panel says."""
    names = ("value", "description", "titles")
    own = " ".join(str(getattr(widget, name, "")) for name in names)
    table = widget.rows.to_string() if hasattr(widget, "rows") else ""
    return " ".join([own, table, *(texts(c) for c in getattr(widget, "children", ()))])


def tabs(panel: ModelPanel) -> list[str]:
    assert panel.view is not None
    return list(panel.view.tabs.titles)


# -- a model that is imported ----------------------------------------------------------------
def test_a_model_shows_its_interface_opset_producer_operators_and_weights():
    panel = ModelPanel(MODEL)
    said = texts(panel)
    assert panel.session.name == "digits_cnn"
    for fact in ("image", "[batch, 1, 8, 8]", "logits", "opset 20", "pytorch", "dynamic size"):
        assert fact in said
    assert tabs(panel) == ["Operators (8)", "Weights (29)"]
    rows = panel.view.operators.rows.set_index("Operator")
    assert rows.loc["Conv", "Nodes"] == 5
    assert rows.loc["Conv", "Support"] == "kernel"
    assert "NUMPY" in rows.loc["Conv", "Kernels"]


def test_weights_are_read_when_their_tab_is_opened_and_not_before():
    panel = ModelPanel(MODEL)
    assert "Min" not in panel.view.weights.rows
    panel.view.tabs.selected_index = 1
    rows = panel.view.weights.rows
    assert rows["Min"].notna().all()
    assert rows["Bytes"].is_monotonic_decreasing


def test_large_weights_are_read_only_when_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_view, "AT_ONCE", 100)
    panel = ModelPanel(MODEL)
    panel.view.tabs.selected_index = 1
    assert "Min" not in panel.view.weights.rows
    assert "Look at all values" in texts(panel)
    panel.view.look_at_values()
    assert "Min" in panel.view.weights.rows
    assert "Look at all values" not in texts(panel)


def test_values_that_are_no_numbers_are_named():
    panel = ModelPanel(with_weights(NAN).SerializeToString())
    panel.view.look_at_values()
    assert panel.view.weights.rows[["NaN", "Inf"]].values.tolist() == [[1, 1]]
    assert "Not every value is a number: w" in texts(panel)


def test_weights_in_a_file_of_their_own_are_noted(tmp_path: Path):
    path = tmp_path / "model.onnx"
    model = with_weights(np.ones(3, np.float32))
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    panel = ModelPanel(path)
    assert "1 weight lies in the file w.data" in texts(panel)
    assert panel.view.weights.rows["Stored in"].tolist() == ["w.data"]


def test_a_network_made_by_hand_is_shown_too():
    network = NetworkDefinition("by hand")
    x = network.add_input("x", "FP32", ("n", 3))
    network.mark_output(network.add_layer("Relu", [x]).outputs[0])
    assert "a network made by hand" in texts(ModelPanel(network))


# -- refused ---------------------------------------------------------------------------------
def test_a_refused_model_shows_every_field_of_each_reason_and_keeps_the_old_session():
    panel = ModelPanel(MODEL)
    panel.open_model(partly(), name="partly")
    said = texts(panel)
    assert "partly is refused, for 1 reason. digits_cnn is still open." in said
    assert panel.session.name == "digits_cnn"
    assert tabs(panel)[:2] == ["Refusals (1)", "Subgraphs (3)"]
    for field in ("my::Swirl", "Swirl_1", "node 1", "UNSUPPORTED_NODE (8)", "remedy", "rule"):
        assert field in said
    assert "onnx_parser/" in said


def test_the_open_model_can_be_shown_again():
    panel = ModelPanel(MODEL)
    panel.open_model(partly(), name="partly")
    assert panel.back.description == "Back to digits_cnn"
    panel.back.click()
    assert panel.shown is not None
    assert panel.shown.name == "digits_cnn"
    assert panel.status.value == ""


def test_several_reasons_are_also_a_table():
    text = "g (float[2] x) => (float[2] y) { a = my.One(x)  b = my.Two(a)  y = my.One(b) }"
    panel = ModelPanel(parser.parse_model(HEAD + text).SerializeToString(), device="cpu")
    assert tabs(panel)[0] == "Refusals (3)"
    assert "Every reason, node by node" in texts(panel)
    with pytest.raises(SessionError, match="no model is open"):
        _ = panel.session


def test_a_reason_without_a_card_has_its_remedy_in_the_table():
    nodes = "  ".join(f"a{i + 1} = my.Op{i}(a{i})" for i in range(9))
    model = parser.parse_model(HEAD + f"g (float[2] a0) => (float[2] a9) {{ {nodes} }}")
    said = texts(ModelPanel(model.SerializeToString()))
    assert "Reasons that are not shown here are in the table: 1." in said
    assert said.count("export with standard operators") == 8 + 9


def test_a_supported_subgraph_is_opened_as_a_model_of_its_own():
    panel = ModelPanel(partly())
    view = panel.view.subgraphs
    assert view.table.rows["Supported"].tolist().count("yes") == 2
    view.take.click()
    assert "Sigmoid" in panel.session.inspect().network.layers[0].op
    assert tabs(panel)[0].startswith("Operators")


def test_a_subgraph_that_cannot_be_cut_says_why():
    model = parser.parse_model(HEAD + PARTLY)
    del model.graph.value_info[:]
    panel = ModelPanel(model.SerializeToString())
    panel.open_subgraph(next(k for k, p in enumerate(panel.shown.parts) if 2 in p.nodes))
    assert "the type of b is not known" in panel.status.value
    assert "value_info" in panel.status.value


def test_a_subgraph_whose_inputs_have_no_type_is_not_offered():
    untyped = parser.parse_model(HEAD + PARTLY.replace("<float[batch, 4] b>", ""))
    panel = ModelPanel(untyped.SerializeToString())
    assert panel.view is not None and panel.view.subgraphs is not None
    subgraphs = panel.view.subgraphs
    assert [label for label, _ in subgraphs.chooser.options] == ["subgraph 0: 1 node"]
    rows = subgraphs.table.rows
    assert list(rows["Inputs without a type"]) == ["", "", "b"]
    assert "types of its inner values (value_info)" in texts(panel)
    subgraphs.take.click()
    assert panel.session.name.endswith("_subgraph0")


# -- broken ----------------------------------------------------------------------------------
def test_a_path_is_read_again_when_its_file_was_mended(tmp_path: Path):
    path = tmp_path / "mine.onnx"
    panel = ModelPanel(MODEL)
    panel.path.value = str(path)
    assert "mine.onnx cannot be opened" in panel.status.value
    assert panel.path.value == str(path)  # to be corrected
    path.write_bytes(partly())
    panel.again.click()
    assert "mine is refused, for 1 reason." in panel.status.value
    path.write_bytes(with_weights(NAN).SerializeToString())
    panel.again.click()
    assert (panel.session.name, panel.status.value, panel.path.value) == ("mine", "", "")


def test_bytes_have_no_file_to_read_again():
    panel = ModelPanel(partly())
    assert panel.again.layout.display == "none"
    panel.open_model(MODEL)
    assert panel.again.layout.display == ""
    assert str(MODEL) in panel.again.tooltip


def test_a_broken_file_leaves_the_tab_that_is_open():
    panel = ModelPanel(MODEL)
    assert panel.view is not None
    panel.view.tabs.selected_index = 1
    panel.open_model(b"no model")
    assert panel.view.tabs.selected_index == 1


def test_a_model_without_weights_has_no_tab_for_them():
    assert tabs(ModelPanel(partly())) == ["Refusals (1)", "Subgraphs (3)", "Operators (4)"]


def test_a_broken_file_gives_its_error_and_leaves_the_old_model():
    panel = ModelPanel(MODEL)
    panel.open_model(MODEL.read_bytes()[:500], name="cut_off")
    assert "ParserError" in panel.status.value
    assert "not one whole ONNX message" in panel.status.value
    assert "digits_cnn is still open" in panel.status.value
    assert panel.shown is not None
    assert panel.shown.name == panel.session.name == "digits_cnn"


@pytest.mark.parametrize("given", ["nowhere.onnx", "."])
def test_a_path_that_is_no_file_is_explained(given: str):
    panel = ModelPanel(MODEL)
    panel.path.value = given
    assert "cannot be read" in panel.status.value
    assert panel.session.name == "digits_cnn"


# -- the doors -------------------------------------------------------------------------------
def test_a_dropped_file_is_opened_under_its_name():
    panel = ModelPanel()
    panel.drop.give("mine.onnx", MODEL.read_bytes())
    assert panel.session.name == "mine"


def test_a_file_that_comes_in_pieces_is_put_together():
    heard: list[tuple[str, bytes]] = []
    drop = Drop("here", suffix=".onnx", on_file=lambda n, d: heard.append((n, d)))
    for offset, piece in ((0, b"abc"), (3, b"de")):
        content = {"kind": "piece", "name": "a/m.onnx", "size": 5, "offset": offset}
        drop._hear(drop, content, [memoryview(piece)])
    assert heard == [("m.onnx", b"abcde")]


@pytest.mark.parametrize(
    ("offset", "piece", "reason"),
    [
        (4, b"e", "byte 4 came where byte 3 was next"),
        (3, b"", "it ended after 3 of 5 bytes"),
    ],
)
def test_a_file_that_does_not_arrive_whole_is_refused_with_its_reason_and_can_come_again(
    offset: int, piece: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
):
    heard: list[tuple[str, bytes]] = []
    said: list[dict[str, str]] = []
    drop = Drop("here", suffix=".onnx", on_file=lambda n, d: heard.append((n, d)))
    monkeypatch.setattr(drop, "send", said.append)
    head = {"kind": "piece", "name": "m.onnx", "size": 5}
    drop._hear(drop, {**head, "offset": 0}, [memoryview(b"abc")])
    drop._hear(drop, {**head, "offset": offset}, [memoryview(piece)])
    assert said[1:] == [{"kind": "failed", "reason": reason}]
    assert heard == []
    drop._hear(drop, {**head, "offset": 0}, [memoryview(b"abcde")])
    assert heard == [("m.onnx", b"abcde")]


def test_models_beside_the_notebook_and_our_own_can_be_picked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "beside.onnx").write_bytes(MODEL.read_bytes())
    monkeypatch.chdir(tmp_path)
    panel = ModelPanel()
    names = [name for name, _ in panel.choice.options]
    assert "beside.onnx" in names
    assert "digits_vit (comes with the workbench)" in names
    panel.choice.value = "beside.onnx"
    assert panel.session.name == "beside"
    assert panel.choice.value == ""


def test_what_opens_is_told():
    panel, heard = ModelPanel(), []
    panel.on_open = heard.append
    panel.open_model(MODEL)
    panel.open_model(partly())
    assert [s.name for s in heard] == ["digits_cnn"]


# -- in the Studio ---------------------------------------------------------------------------
def test_the_studio_drives_the_model_that_is_opened_in_its_first_panel():
    studio = Studio(MODEL)
    panel = studio.panel(ModelPanel)
    vit = MODEL.with_name("digits_vit.onnx")
    panel.open_model(str(vit))
    assert studio.session.name == "digits_vit"
    assert panel.comm is None, "the old panel is closed"
    assert studio.panel(ModelPanel).session is studio.session
    assert studio.steps[Stage.PARSE].description.startswith("✓")


def test_a_refused_model_leaves_the_studio_as_it_was():
    studio = Studio(MODEL)
    studio.panel(ModelPanel).open_model(partly(), name="partly")
    assert studio.session.name == "digits_cnn"
    assert "partly is refused" in texts(studio.panel(ModelPanel))
    assert "partly is refused" in studio.bar.message.value


def test_a_studio_of_a_refused_model_explains_it_and_opens_another():
    studio = Studio(partly())
    assert "Subgraphs" in texts(studio)
    with pytest.raises(ParserError):
        _ = studio.session
    door = studio.children[0]
    door.open_model(MODEL)
    assert studio.session.name == "digits_cnn"
    assert isinstance(studio.session, Session)
