"""An exported network is valid ONNX, and means the same in ONNX Runtime and when read back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper, parser
from sketch import Sketch

from workbench import fusions, passes
from workbench.body import Array
from workbench.bundle import bundled
from workbench.datatypes import DataType
from workbench.errors import ExportError, FileError
from workbench.network import NetworkDefinition
from workbench.onnx_export import export_onnx
from workbench.onnx_parser import parse_model
from workbench.records import Stage
from workbench.session import Session, SetDefaultPrecision, SetOption, SetProfile

RUNTIME_OPSET = 26
"""The newest that ONNX Runtime 1.31 loads."""

MODELS = ("digits_cnn", "digits_inception", "digits_vit")
STAGES = (Stage.PARSE, Stage.FOLD, Stage.PRECISION, Stage.CALIBRATE, Stage.FUSE)
RNG = np.random.default_rng(5)
HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def in_onnx_runtime(model: ModelProto | Path, feeds: Mapping[str, Any]) -> list[Any]:
    """Outputs of ONNX Runtime, its own rewrites left out."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options).run(None, dict(feeds))


def same(ours: Any, theirs: Any, tolerance: float = 2e-5) -> None:
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if ours.dtype.kind != "f":
        np.testing.assert_array_equal(ours, theirs)
        return
    scale = max(float(np.abs(ours).max(initial=0)), 1e-30)
    np.testing.assert_allclose(theirs / scale, ours / scale, atol=tolerance)


def proved(network: NetworkDefinition, feeds: Mapping[str, Any], **options: Any) -> ModelProto:
    """The model for ONNX Runtime: checked, run there, and read back, with the same results."""
    expected = list(network.run(feeds).values())
    newest = export_onnx(network, **options)
    onnx.checker.check_model(newest, full_check=True)
    again = parse_model(newest.SerializeToString())
    assert [t.name for t in again.inputs] == [t.name for t in network.inputs]
    assert [t.name for t in again.outputs] == [t.name for t in network.outputs]
    for ours, read in zip(expected, again.run(feeds).values(), strict=True):
        np.testing.assert_array_equal(read, ours)
    model = export_onnx(network, opset=RUNTIME_OPSET, **options)
    onnx.checker.check_model(model, full_check=True)
    for ours, theirs in zip(expected, in_onnx_runtime(model, feeds), strict=True):
        same(ours, theirs)
    return model


def from_text(text: str, **weights: Any) -> NetworkDefinition:
    model = parser.parse_model(HEAD + text)
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return parse_model(model.SerializeToString())


def metadata(node: onnx.NodeProto) -> dict[str, str]:
    return {p.key: p.value for p in node.metadata_props}


# -- the bundled models, stage by stage ---------------------------------------------------
@pytest.fixture(scope="module")
def quantized() -> dict[str, Session]:
    """Sessions that ask for INT8, after Fuse."""
    images = np.load(bundled("datasets", "digits.npz"))["calibration_images"][:16]
    sessions: dict[str, Session] = {}
    for name in MODELS:
        session = Session(bundled("datasets", f"{name}.onnx"), calibration={"image": images})
        session.do(
            SetOption("tactic_sources", ("NUMPY",)),
            SetProfile("image", (1, 1, 8, 8), (4, 1, 8, 8), (8, 1, 8, 8)),
            SetDefaultPrecision(DataType.INT8),
        )
        session.run(Stage.FUSE)
        sessions[name] = session
    return sessions


@pytest.mark.parametrize("functions", [False, True], ids=["flat", "functions"])
@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
@pytest.mark.parametrize("name", MODELS)
def test_each_stage_of_a_quantized_build_runs_in_onnx_runtime(
    quantized: dict[str, Session], name: str, stage: Stage, functions: bool
) -> None:
    network = quantized[name].run(stage).networks[stage]
    images = np.load(bundled("datasets", "digits.npz"))["test_images"][:3]
    model = proved(network, {"image": images}, functions=functions)
    operators = {n.op_type for n in model.graph.node}
    if stage is Stage.CALIBRATE:
        assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    if stage is Stage.FUSE:
        assert len(model.graph.node) == network.num_layers or not functions
        assert bool(model.functions) == functions


def test_a_half_precision_network_is_exported_with_its_casts() -> None:
    session = Session(bundled("datasets", "digits_cnn.onnx"))
    session.do(SetDefaultPrecision(DataType.HALF))
    session.do(SetProfile("image", (1, 1, 8, 8), (4, 1, 8, 8), (8, 1, 8, 8)))
    network = session.run(Stage.PRECISION).networks[Stage.PRECISION]
    model = export_onnx(network, opset=RUNTIME_OPSET)
    onnx.checker.check_model(model, full_check=True)
    images = np.load(bundled("datasets", "digits.npz"))["test_images"][:3]
    (ours,) = network.run({"image": images}).values()
    same(ours, in_onnx_runtime(model, {"image": images})[0], tolerance=5e-3)
    halves = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    assert halves and any(n.op_type == "Cast" for n in model.graph.node)


def test_equal_fused_layers_call_one_function() -> None:
    network = parse_model(bundled("datasets", "digits_vit.onnx"))
    passes.fold(network)
    fusions.fuse(network)
    model = export_onnx(network, functions=True)
    calls = [n.op_type for n in model.graph.node if n.domain == "workbench.fused"]
    assert len(set(calls)) == len(model.functions) < len(calls)
    assert sorted({f.name for f in model.functions}) == sorted(set(calls))


def test_a_session_exports_the_network_with_its_q_and_dq(
    quantized: dict[str, Session], tmp_path: Path
) -> None:
    path = quantized["digits_cnn"].export_onnx(tmp_path / "int8.onnx", opset=RUNTIME_OPSET)
    written = parse_model(path)
    assert "QuantizeLinear" in {x.op for x in written.layers}
    assert not any("fused" in metadata(n) for n in onnx.load(path).graph.node)


# -- sizes --------------------------------------------------------------------------------
def test_sizes_that_only_a_run_knows_are_computed_from_shapes() -> None:
    s = Sketch()
    x = s.input("batch", "rows", 6, name="x")
    batch, rows = x.shape[0], x.shape[1]
    n = s.network
    flat = s("Reshape", x, n.sizes([batch * rows, 6]))
    split = s("Reshape", flat, n.sizes([batch, rows, 2, 3]))
    wide = s("Expand", s.value(np.ones((1, 1), np.float32)), n.sizes([batch + 2, (rows - 1) // 2]))
    cut = s("Slice", split, s.value(np.array([0])), n.sizes([rows - 1]), s.value(np.array([1])))
    steps = s("Range", s.value(np.int64(0)), n.sizes(batch * rows + 1), s.value(np.int64(1)))
    s.output(flat, split, wide, cut, steps)
    for b, r in ((2, 5), (1, 1), (3, 2)):
        model = proved(n, {"x": RNG.standard_normal((b, r, 6)).astype(np.float32)})
    params = {
        d.dim_param
        for v in (*model.graph.value_info, *model.graph.output)
        for d in v.type.tensor_type.shape.dim
    }
    assert {"batch", "rows", "batch*rows", "2 + batch"} <= params


def test_a_reshape_keeps_sizes_by_zero_where_it_can() -> None:
    s = Sketch()
    x = s.input("batch", "rows", 6)
    s.output(s("Reshape", x, s.network.sizes([x.shape[0], x.shape[1], 2, 3]), name="heads"))
    model = proved(s.network, {"x": RNG.standard_normal((2, 3, 6)).astype(np.float32)})
    assert [n.op_type for n in model.graph.node] == ["Reshape"]
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == [0, 0, 2, 3]


def test_a_size_that_the_data_decides_is_read_after_it_is_made() -> None:
    network = from_text(
        "g (float[n] x) => (float[k] y, int64[1, k] i) "
        "{ i = NonZero(x) s = Shape(i) e = Gather(s, one) y = ConstantOfShape(e) }",
        one=np.array([1]),
    )
    passes.fold(network)
    proved(network, {"x": np.array([1, 0, 2, 3], np.float32)})


def test_every_value_has_its_type() -> None:
    network = parse_model(bundled("datasets", "digits_vit.onnx"))
    graph = export_onnx(network).graph
    typed = {v.name for v in (*graph.input, *graph.output, *graph.value_info)}
    assert {o for n in graph.node for o in n.output} <= typed
    assert all(v.type.tensor_type.HasField("shape") for v in graph.value_info)


# -- names and provenance -----------------------------------------------------------------
def test_a_node_keeps_its_name_and_says_where_it_comes_from() -> None:
    s = Sketch()
    x = s.input("batch", 3, 8, 8)
    s.output(s("Relu", s.norm(s.conv(x, 4, name="conv1"), name="bn1"), name="relu1"))
    passes.fold(s.network)
    (conv, relu) = export_onnx(s.network).graph.node
    assert relu.name == "relu1"
    assert metadata(relu)["workbench.origin"] == '["relu1"]'
    assert set(json.loads(metadata(conv)["workbench.origin"])) >= {"conv1"}
    fusions.fuse(s.network)
    (fused,) = s.network.layers
    flat = export_onnx(s.network).graph.node
    assert {metadata(n)["workbench.layer"] for n in flat} == {fused.name}
    assert {metadata(n)["workbench.fused"] for n in flat} == {'["Conv", "Relu"]'}


def test_an_inserted_node_says_its_cause(quantized: dict[str, Session]) -> None:
    network = quantized["digits_cnn"].run(Stage.CALIBRATE).networks[Stage.CALIBRATE]
    nodes = export_onnx(network).graph.node
    causes = {
        metadata(n).get("workbench.cause", "") for n in nodes if n.op_type == "QuantizeLinear"
    }
    assert all(c.startswith("Calibrate: ") for c in causes)


# -- inputs, outputs, nested graphs -------------------------------------------------------
def test_an_input_and_a_weight_may_be_outputs() -> None:
    network = NetworkDefinition("passing")
    x = network.add_input("x", "float32", (2,))
    network.mark_output(x)
    network.mark_output(network.constant(np.ones(3, np.float32), "w"))
    model = export_onnx(network)
    onnx.checker.check_model(model, full_check=True)
    again = parse_model(model.SerializeToString())
    np.testing.assert_array_equal(again.run({"x": np.ones(2, np.float32)})["w"], np.ones(3))


NESTED = {
    "if": "g (bool c, float[2] x) => (float[2] y) { o = Neg(x) y = If(c) <"
    "then_branch = t () => (float[2] a) { a = Add(x, o) },"
    "else_branch = e () => (float[2] b) { b = Identity(x) }> }",
    "loop": "g (int64 n, bool c, float[2] x) => (float[2] last, float[k, 2] all)"
    "{ last, all = Loop(n, c, x) <body = b (int64 i, bool go, float[2] s)"
    " => (bool go2, float[2] s2, float[2] out) { go2 = Identity(go) s2 = Add(s, x) "
    "out = Mul(s2, two) }> }",
    "scan": "g (float[2] x, float[steps, 2] rows) => (float[2] sum, float[steps, 2] sums)"
    "{ sum, sums = Scan <num_scan_inputs = 1, body = b (float[2] s, float[2] row)"
    " => (float[2] s2, float[2] out) { s2 = Add(s, row) out = Mul(s2, two) }> (x, rows) }",
}


@pytest.mark.parametrize("kind", NESTED)
def test_nested_graphs_capture_what_lies_around_them(kind: str) -> None:
    network = from_text(NESTED[kind], two=np.float32(2))
    x = np.array([1, -2], np.float32)
    rows = RNG.standard_normal((4, 2)).astype(np.float32)
    for c in (True, False):
        known = {"c": np.array(c), "x": x, "n": np.int64(3), "rows": rows}
        proved(network, {t.name: np.asarray(known[t.name]) for t in network.inputs})


# -- random networks ----------------------------------------------------------------------
KINDS = ("unary", "add", "conv", "norm", "linear", "transpose", "flat", "split", "int8", "stored")


def grown(s: Sketch, x: Any, y: Any, kind: str) -> Any:
    """One more value of the shape [batch, 4, 4, 4]."""
    match kind:
        case "unary":
            return s("Gelu", x)
        case "add":
            return s("Add", x, y)
        case "conv":
            return s.conv(x, 4, name="conv")
        case "norm":
            return s.norm(x, name="bn")
        case "linear":
            return s.linear(x, 4, name="fc")
        case "transpose":
            return s("Transpose", x, perm=(0, 2, 3, 1))
        case "flat":
            flat = s("Reshape", x, s.network.sizes([4 * x.shape[0], 16]))
            return s("Reshape", s("Softmax", flat), s.network.sizes([x.shape[0], 4, 4, 4]))
        case "split":
            parts = s.layer("Split", x, s.value(np.array([1, 3])), outputs=2, axis=1)
            return s("Concat", *reversed(parts), axis=1)
        case "int8":
            return s.quantize(x, 0.05, name="q")
        case _:
            return s("Conv", x, s.stored(4, 4, 1, 1))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_random_networks_mean_the_same_in_onnx_runtime_at_every_stage(data: st.DataObject) -> None:
    s = Sketch(data.draw(st.integers(0, 999)))
    values = [s.input("batch", 4, 4, 4)]
    for kind in data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=8)):
        x, y = data.draw(st.sampled_from(values)), data.draw(st.sampled_from(values))
        values.append(grown(s, x, y, kind))
    s.output(*(t for t in values if not t.users and not t.is_network_input))
    feeds = s.feeds()
    rounded = any(x.op == "QuantizeLinear" for x in s.network.layers)
    for stage in (lambda n: None, passes.fold, fusions.fuse):
        stage(s.network)
        for functions in (False, True):
            model = export_onnx(s.network, opset=RUNTIME_OPSET, functions=functions)
            onnx.checker.check_model(model, full_check=True)
            expected = s.network.run(feeds)
            for ours, theirs in zip(expected.values(), in_onnx_runtime(model, feeds), strict=True):
                # A value on the border of two steps may be rounded to either.
                same(ours, theirs, 0.1 if rounded else 2e-5)
        again = parse_model(export_onnx(s.network).SerializeToString()).run(feeds)
        assert list(again) == list(expected)


# -- files --------------------------------------------------------------------------------
def large() -> NetworkDefinition:
    s = Sketch()
    s.output(s.linear(s.linear(s.input("batch", 64), 48, name="a"), 32, name="b"))
    return s.network


def test_weights_above_the_limit_lie_in_a_file_beside_the_model(tmp_path: Path) -> None:
    network, path = large(), tmp_path / "large.onnx"
    export_onnx(network, path, opset=RUNTIME_OPSET, external_above=4096)
    (data,) = tmp_path.glob("large.onnx.*.data")
    stored = onnx.load(path, load_external_data=False).graph.initializer
    places = [{e.key: e.value for e in t.external_data} for t in stored]
    assert {p["location"] for p in places} == {data.name}
    assert all(int(p["offset"]) % 64 == 0 for p in places)
    onnx.checker.check_model(str(path), full_check=True)
    feeds = {"x": RNG.standard_normal((3, 64)).astype(np.float32)}
    (ours,) = network.run(feeds).values()
    same(ours, in_onnx_runtime(path, feeds)[0])
    np.testing.assert_array_equal(next(iter(parse_model(path).run(feeds).values())), ours)


def test_an_export_over_another_leaves_the_old_data_until_the_model_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.onnx"
    export_onnx(large(), path, external_above=0)
    before = path.read_bytes()
    s = Sketch(seed=9)
    s.output(s.linear(s.input("batch", 64), 48, name="a"))
    replace = os.replace

    def full_disk(source: Any, target: Any) -> None:
        if str(target) == str(path):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(FileError, match="No space left"):
        export_onnx(s.network, path, external_above=0)
    assert path.read_bytes() == before
    assert parse_model(path).num_layers == 2
    assert not list(tmp_path.glob(".*"))


def test_two_exports_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_onnx(large(), tmp_path / f"{name}.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_a_missing_folder_is_told_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="its folder is missing"):
        export_onnx(large(), tmp_path / "nowhere" / "a.onnx")


# -- refusals -----------------------------------------------------------------------------
def test_all_that_an_old_opset_lacks_is_told_at_once() -> None:
    s = Sketch()
    x = s.input(2, 4)
    s.output(s("ReduceMean", s("Swish", s("Gelu", x, name="g"), name="s"), s.value([1]), name="m"))
    with pytest.raises(ExportError) as e:
        export_onnx(s.network, opset=17)
    assert len(e.value.reasons) == 3
    assert "opset 17 has no Gelu; export at opset 20 or newer" in str(e.value)
    assert "opset 17 has no Swish; export at opset 24 or newer" in str(e.value)
    assert "ReduceMean-13" in str(e.value) and "export at opset 18" in str(e.value)


def test_types_and_attributes_that_an_old_opset_lacks_are_refused() -> None:
    s = Sketch()
    x = s.input(2, 4, dtype="int32")
    s.output(s("BitShift", x, s.value(np.ones((2, 4), np.int32)), direction="LEFT", name="shift"))
    with pytest.raises(
        ExportError, match=r"BitShift 'shift': BitShift-11 does not take tensor\(int32\)"
    ):
        export_onnx(s.network, opset=21)
    onnx.checker.check_model(export_onnx(s.network), full_check=True)


@pytest.mark.parametrize("opset", [0, 99])
def test_an_opset_that_is_not_known_is_refused(opset: int) -> None:
    with pytest.raises(ExportError, match="give 1 to 28"):
        export_onnx(large(), opset=opset)


def test_a_network_without_output_is_refused() -> None:
    with pytest.raises(ExportError, match="no tensor is marked"):
        export_onnx(Sketch().network)


def test_old_opsets_from_13_carry_a_convolutional_network() -> None:
    network = parse_model(bundled("datasets", "digits_cnn.onnx"))
    passes.fold(network)
    images: Array = RNG.random((2, 1, 8, 8), np.float32)
    (ours,) = network.run({"image": images}).values()
    for opset in (18, 19, 21, 23, 24, 25, 28):
        model = export_onnx(network, opset=opset)
        onnx.checker.check_model(model, full_check=True)
        if opset <= RUNTIME_OPSET:
            same(ours, in_onnx_runtime(model, {"image": images})[0])
