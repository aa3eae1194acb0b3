from __future__ import annotations

import unittest

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from workbench import onnx_backend
from workbench.errors import DeviceError, ExecutionError
from workbench.onnx_backend import UnsupportedModel, WorkbenchBackend

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def _value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def _model(nodes, inputs, outputs, stored=()) -> ModelProto:
    graph = helper.make_graph(nodes, "small", inputs, outputs, list(stored))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def test_an_input_and_a_constant_may_be_outputs():
    weight = np.array([[1, -2], [3, 4]], ml_dtypes.int4)
    outputs = [_value("w", [2, 2], TensorProto.INT4), _value("x", [2, 3])]
    model = _model([], [_value("x", [2, 3])], outputs, [numpy_helper.from_array(weight, "w")])
    stored, passed = onnx_backend.run_model(model, [X])
    np.testing.assert_array_equal(stored, weight)
    assert stored.dtype == weight.dtype
    np.testing.assert_array_equal(passed, X)


def test_inputs_of_new_sizes_get_an_engine_of_their_own():
    node = helper.make_node("Concat", ["x", "z"], ["y"], axis=0)
    inputs = [_value("x", ["a", "b"]), _value("z", ["c", "b"])]
    rep = WorkbenchBackend.prepare(_model([node], inputs, [_value("y", ["d", "b"])]))
    for rows in (1, 3, 1):
        (y,) = rep.run([X, np.ones((rows, 3), np.float32)])
        assert y.shape == (2 + rows, 3)
    assert len(rep.engines) == 2


def test_an_input_may_decide_a_shape_at_run_time():
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    inputs = [_value("x", [2, 3]), _value("shape", [2], TensorProto.INT64)]
    rep = WorkbenchBackend.prepare(_model([node], inputs, [_value("y", None)]))
    for shape in ((3, 2), (6, 1), (3, 2)):
        (y,) = rep.run([X, np.array(shape)])
        assert y.shape == shape
    assert len(rep.engines) == 1
    assert rep.executed == {"HOST": 1}


def test_scalars_and_empty_tensors_run_and_wide_integers_stay_exact():
    number = _model(
        [helper.make_node("Neg", ["x"], ["y"])],
        [_value("x", [], TensorProto.INT64)],
        [_value("y", [], TensorProto.INT64)],
    )
    (y,) = onnx_backend.run_model(number, [np.int64(2**62 + 1)])
    assert y.shape == () and y == -(2**62) - 1
    empty = _model(
        [helper.make_node("Relu", ["x"], ["y"])], [_value("x", [0, 3])], [_value("y", [0, 3])]
    )
    (y,) = onnx_backend.run_model(empty, [X[:0]])
    assert y.shape == (0, 3)


def test_an_unsupported_model_is_declined_in_prepare_with_every_reason():
    nodes = [
        helper.make_node("Unheard", ["x"], ["y"]),
        helper.make_node("Unseen", ["y"], ["z"]),
    ]
    with pytest.raises(UnsupportedModel) as caught:
        onnx_backend.prepare(_model(nodes, [_value("x", [1])], [_value("z", None)]))
    assert isinstance(caught.value, unittest.SkipTest)
    assert "Unheard" in str(caught.value) and "Unseen" in str(caught.value)


def test_a_node_runs_alone():
    (y,) = onnx_backend.run_node(helper.make_node("Add", ["a", "b"], ["c"]), [X, X])
    np.testing.assert_array_equal(y, 2 * X)
    half = helper.make_node("Split", ["a"], ["b", "c"], axis=0)
    first, second = onnx_backend.run_node(half, [X], opset_version=11)
    np.testing.assert_array_equal(np.concatenate([first, second]), X)


def test_devices_and_inputs_that_do_not_fit_are_named():
    assert onnx_backend.supports_device("CPU")
    assert not onnx_backend.supports_device("TPU")
    node = helper.make_node("Relu", ["x"], ["y"])
    model = _model([node], [_value("x", [2, 3])], [_value("y", [2, 3])])
    with pytest.raises(DeviceError, match="TPU"):
        onnx_backend.prepare(model, "TPU")
    with pytest.raises(ExecutionError, match="0 inputs are given"):
        onnx_backend.prepare(model).run([])


def test_the_preferred_source_runs_what_it_can():
    node = helper.make_node("Relu", ["x"], ["y"])
    model = _model([node], [_value("x", [2, 3])], [_value("y", [2, 3])])
    for backend in (onnx_backend.PreferNumba, onnx_backend.PreferNumpy):
        rep = backend.prepare(model)
        rep.run([X])
        assert set(rep.executed) == {backend.preferred}
