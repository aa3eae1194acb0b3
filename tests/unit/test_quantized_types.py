"""FP8 and INT4 as precision requests: what is written, what is stored, what is refused and why."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import workbench as wb
from workbench.datatypes import DataType
from workbench.errors import CalibrationError, ConfigError
from workbench.lab.number_types import pack_int4
from workbench.network import NetworkDefinition
from workbench.plan_file import read_file
from workbench.records import Stage
from workbench.reports import classification_accuracy, coverage

DIGITS = np.load(wb.bundled("datasets", "digits.npz"))


def config(kind: str) -> wb.BuilderConfig:
    made = wb.BuilderConfig()
    made.default_precision = DataType.of(kind)
    made.builder_optimization_level = 0
    made.verify = "none"
    profile = wb.OptimizationProfile()
    profile.set_shape("image", (1, 1, 8, 8), (64, 1, 8, 8), (64, 1, 8, 8))
    made.add_optimization_profile(profile)
    return made


def built(model: str, kind: str):
    data = {"image": DIGITS["calibration_images"]} if kind != "INT4" else None
    path = wb.bundled("datasets", f"{model}.onnx")
    return wb.build(path, config(kind), calibration=data)


def dense(inner: int = 64, outer: int = 8) -> NetworkDefinition:
    """x [4, inner] · w [inner, outer]."""
    rng = np.random.default_rng(0)
    network = NetworkDefinition("dense")
    x = network.add_input("x", "float32", (4, inner))
    w = network.constant(rng.standard_normal((inner, outer)).astype(np.float32), "w")
    layer = network.add_layer("MatMul", [x, w], name="product")
    network.mark_output(layer.outputs[0])
    return network


@pytest.fixture(scope="module")
def fp8():
    return built("digits_cnn", "FP8")


@pytest.fixture(scope="module")
def int4():
    return built("digits_vit", "INT4")


def test_fp8_runs_in_every_product_and_is_counted_as_emulated_here(fp8):
    found = coverage(fp8.tuned, DataType.FP8)
    assert (found.products, found.executed, found.emulated) == (6, 6, 6)
    assert "emulated" in str(found)


def test_fp8_keeps_the_accuracy_of_the_digits(fp8):
    accuracy = classification_accuracy(fp8.engine(), DIGITS["test_images"], DIGITS["test_labels"])
    assert accuracy >= 99.0


def test_the_largest_magnitude_is_stored_as_fp8s_largest_number(fp8):
    network = fp8.networks[Stage.CALIBRATE]
    q = network.layer("image.fp8_quantize")
    scale = q.inputs[1].value
    assert scale == pytest.approx(fp8.calibration.ranges["image"].threshold / 448)
    assert q.outputs[0].dtype is DataType.FP8
    weights = [x for x in network.layers if x.op == "DequantizeLinear" and x.inputs[0].is_constant]
    largest = [abs(x.inputs[0].weight.array.astype(np.float32)).max() for x in weights]
    assert largest == [448.0] * len(weights)


def test_int4_needs_no_data_and_keeps_the_accuracy_of_the_digits(int4):
    assert int4.calibration is None
    assert "need no data" in int4.log[Stage.CALIBRATE].summary
    accuracy = classification_accuracy(int4.engine(), DIGITS["test_images"], DIGITS["test_labels"])
    assert accuracy >= 98.5
    assert str(coverage(int4.tuned, DataType.INT4)).startswith("25 of 30")


def test_int4_has_a_scale_a_block_of_32_along_the_summed_axis():
    network = dense()
    given = config("INT4")
    given.optimization_profiles = ()
    state = wb.build(network, given)
    dq = next(x for x in state.networks[Stage.CALIBRATE].layers if x.op == "DequantizeLinear")
    stored, scale = (t.weight.array for t in dq.inputs[:2])
    w = network.tensor("w").weight.array
    blocks = np.abs(w.reshape(2, 32, 8)).max(axis=1) / np.float32(7)
    np.testing.assert_array_equal(scale, blocks.astype(np.float32))
    expected = np.clip(np.rint(w / np.repeat(scale, 32, axis=0)), -8, 7)
    np.testing.assert_array_equal(stored.astype(np.float32), expected)
    x = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    found = state.engine().create_execution_context().run({"x": x})
    exact = x.astype(np.float64) @ (expected * np.repeat(scale, 32, axis=0))
    np.testing.assert_allclose(next(iter(found.values())), exact, rtol=1e-4, atol=1e-4)


def test_a_plan_stores_int4_two_per_byte_half_of_int8s_bytes(int4):
    name = next(n for n in read_file(int4.plan_bytes)[1] if n.endswith(".int4"))
    plain = next(
        t.weight.array
        for t in int4.networks[Stage.CALIBRATE].tensors.values()
        if t.weight is not None and t.name == name
    )
    packed = pack_int4(plain.astype(np.int8)).tobytes()
    assert len(packed) * 2 == plain.size
    assert packed in int4.plan_bytes
    np.testing.assert_array_equal(
        read_file(int4.plan_bytes)[1][name].astype(np.int8), plain.astype(np.int8)
    )


def test_products_take_in_int4_weights_that_were_requested_as_those_of_a_model(int4):
    applied = [a for a in int4.log[Stage.FUSE].attempts if a.rule == "weight_only" and a.applied]
    assert len(applied) == 25
    assert not any(c.operators == ("DequantizeLinear",) for c in int4.tuned.layers)


def test_fp8_without_ranges_is_refused_by_name():
    with pytest.raises(CalibrationError, match="FP8 is requested for 6 layers"):
        wb.build(wb.bundled("datasets", "digits_cnn.onnx"), config("FP8"))


@pytest.mark.parametrize(
    ("kind", "op", "reason"),
    [
        ("INT4", "Conv", "a Conv's stay wider, as in TensorRT"),
        ("INT4", "MaxPool", "MaxPool has none"),
        ("FP8", "MaxPool", "no FP8 kernel of its own"),
        ("INT8", "MaxPool", "no INT8 kernel of its own"),
    ],
)
def test_what_a_type_is_not_for_names_its_blocker(kind, op, reason):
    session = wb.Session(wb.bundled("datasets", "digits_cnn.onnx"))
    session.do(*session.suggested_profile(), wb.session.SetDefaultPrecision(DataType.of(kind)))
    state = session.run(Stage.PRECISION)
    decision = next(d for d in state.decisions if d.op == op)
    assert reason in decision.blocker
    assert decision.precision is DataType.FLOAT


def test_int4_refuses_a_sum_that_is_no_whole_number_of_blocks():
    given = config("INT4")
    given.optimization_profiles = ()
    state = wb.build(dense(40), given)
    assert "40 values, which is no multiple of INT4's block of 32" in state.decisions[0].blocker


def test_int4_of_two_activations_names_the_missing_constant():
    network = NetworkDefinition("scores")
    x = network.add_input("x", "float32", (4, 32))
    y = network.add_input("y", "float32", (32, 4))
    network.mark_output(network.add_layer("MatMul", [x, y], name="scores").outputs[0])
    given = config("INT4")
    given.optimization_profiles = ()
    assert "no factor of this MatMul is a constant" in wb.build(network, given).decisions[0].blocker


@pytest.mark.parametrize("kind", ["UINT8", "FP4", "INT64"])
def test_a_type_that_no_layer_computes_in_cannot_be_requested(kind):
    with pytest.raises(ConfigError, match="cannot be requested"):
        wb.BuilderConfig().set_precision("x", kind)


def test_int4_weights_go_through_onnx_to_onnx_runtime(tmp_path):
    given = config("INT4")
    given.optimization_profiles = ()
    state = wb.build(dense(), given)
    path = tmp_path / "int4.onnx"
    wb.export_onnx(state.networks[Stage.CALIBRATE], path, opset=25)
    onnx.checker.check_model(str(path), full_check=True)
    x = np.random.default_rng(2).standard_normal((4, 64)).astype(np.float32)
    options = onnxruntime.SessionOptions()  # without its rewrite to products of 8-bit integers
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    peer = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (expected,) = peer.run(None, {"x": x})
    found = state.engine().create_execution_context().run({"x": x})
    np.testing.assert_allclose(next(iter(found.values())), expected, rtol=1e-4, atol=1e-4)


def test_fp8_goes_through_onnx_and_passes_its_checker(fp8, tmp_path):
    path = tmp_path / "fp8.onnx"
    wb.export_onnx(fp8.networks[Stage.CALIBRATE], path)
    onnx.checker.check_model(str(path), full_check=True)
    kinds = [n.op_type for n in onnx.load(path).graph.node]
    assert kinds.count("QuantizeLinear") == 6
