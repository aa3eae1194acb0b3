"""Where Q and DQ stand, why, and which of them are left as kernels."""

from __future__ import annotations

import numpy as np
import pytest

import workbench as wb
from widgets.figures.qdq import quantization_figure
from workbench.datatypes import DataType
from workbench.errors import BuildError
from workbench.records import Stage
from workbench.reports import network_graph, precision_rows, qdq_rows, unfused_quantizers
from workbench.session import Session, SetDefaultPrecision, SetOption

DATA = np.load(wb.bundled("datasets", "digits.npz"))["calibration_images"][:32]


def session(kind: str, model: str = "digits_cnn") -> Session:
    opened = Session(wb.bundled("datasets", f"{model}.onnx"), calibration={"image": DATA})
    opened.do(*opened.suggested_profile(), SetDefaultPrecision(DataType.of(kind)))
    opened.do(SetOption("builder_optimization_level", 0), SetOption("verify", "none"))
    return opened


@pytest.fixture(scope="module")
def fused():
    return session("INT8").run(Stage.FUSE)


def test_every_q_and_dq_says_why_it_stands_there(fused):
    rows = qdq_rows(fused)
    assert len(rows) == 18
    why = dict(zip(rows["Layer"], rows["Why here"], strict=True))
    assert why["relu_quantize"] == "factor of node_Conv_82; residual of node_add_40"
    assert why["stem.conv.weight_bn_dequantize"] == (
        "weights of node_Conv_81, a scale an output channel"
    )


def test_absorbed_ones_name_their_layer_and_those_left_their_reason(fused):
    rows = qdq_rows(fused).set_index("Layer")
    left = rows[rows["After Fuse"] == "a kernel of its own"]
    assert tuple(left.index) == unfused_quantizers(fused.network)
    assert tuple(left.index) == ("image_quantize", "view_quantize")
    assert "comes from outside" in left.loc["image_quantize", "Why not fused"]
    assert "writes one number a row" in left.loc["view_quantize", "Why not fused"]
    assert rows.loc["relu_dequantize", "After Fuse"] == "in node_Conv_83"
    assert not rows.loc["relu_dequantize", "Why not fused"]


def test_before_fuse_the_placement_is_known_and_its_fate_is_not():
    rows = qdq_rows(session("INT8").run(Stage.CALIBRATE))
    assert set(rows["After Fuse"]) == {""}
    with pytest.raises(BuildError, match="run Calibrate"):
        qdq_rows(session("INT8").run(Stage.PRECISION))


def test_weights_in_int4_are_in_the_product_that_reads_them():
    rows = qdq_rows(session("INT4").run(Stage.FUSE))
    assert list(rows["Scale"]) == ["10×2, blocks of 32"]
    assert rows["After Fuse"].iloc[0].startswith("in ")
    assert not rows["Why not fused"].iloc[0]


def test_a_quantized_model_is_built_without_calibration_and_keeps_its_own_scales(tmp_path):
    path = tmp_path / "qat.onnx"
    calibrated = session("INT8")
    calibrated.export_onnx(path)
    again = Session(path)
    again.do(*again.suggested_profile(), SetOption("builder_optimization_level", 0))
    state = again.run()
    assert state.calibration is None
    rows = qdq_rows(state)
    assert set(rows["Why here"]) == {"in the model: its training chose the scale (QAT)"}
    scales = qdq_rows(calibrated.run(Stage.FUSE))["Scale"]
    assert sorted(rows["Scale"]) == sorted(scales)
    executed = {c.executed for c in state.tuned.layers if "Conv" in c.operators}
    assert executed == {DataType.INT8}
    outputs = [s.engine().create_execution_context() for s in (state, calibrated.run())]
    own, model = (next(iter(c.run({"image": DATA}).values())) for c in outputs)
    np.testing.assert_allclose(own, model, atol=1e-4)


def test_the_figure_outlines_what_is_left_and_nothing_else(fused):
    placed, view = (network_graph(fused.networks[s]) for s in (Stage.CALIBRATE, Stage.FUSE))
    left = unfused_quantizers(fused.network)
    figure = quantization_figure(view, left, "Q and DQ", placed=placed)
    outlines = [t for t in figure.data if t.name == "highlighted"]
    assert len(outlines) == 2
    alone = quantization_figure(view, left, "Q and DQ")
    assert len([t for t in alone.data if t.name == "highlighted"]) == 1


def test_the_contract_names_asked_built_and_executed_for_each_layer():
    opened = session("INT8")
    assert set(precision_rows(opened.run(Stage.PRECISION).decisions)["Executed"]) == {""}
    state = opened.run()
    rows = precision_rows(state.decisions, state.tuned)
    conv = rows[rows["Operator"] == "Conv"]
    assert set(conv["Requested"]) == set(conv["Built as"]) == {"INT8"}
    assert all(t.startswith("INT8") for t in conv["Executed"])
    joined = rows[rows["Operator"] == "Relu"]
    assert set(joined["Built as"]) == {"INT8"}, "they are part of an INT8 kernel"
    assert set(joined["Blocker"]) == {""}
    mean = rows[rows["Operator"] == "ReduceMean"].iloc[0]
    assert (mean["Built as"], mean["Executed"]) == ("FP32", "FP32")
    assert "no INT8 kernel of its own" in mean["Blocker"]


def test_weights_in_int4_are_named_apart_from_the_product():
    state = session("INT4").run()
    rows = precision_rows(state.decisions, state.tuned)
    dense = rows[rows["Operator"] == "Gemm"].iloc[0]
    assert dense["Built as"] == "INT4 weights"
    assert dense["Executed"] == "FP32, INT4 weights (emulated)"
