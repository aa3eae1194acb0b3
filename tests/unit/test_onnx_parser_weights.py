"""Stored tensors are read exactly, whichever way and type they are stored in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from workbench.datatypes import DataType
from workbench.onnx_parser import parse_model
from workbench.onnx_parser.weights import WeightReader

VALUES = np.array([[0.0, 1.0, -2.0], [0.5, -1.5, 3.0]])
WHOLE = np.array([[0, 1, 1], [3, 2, 1]])

STORED = [
    *((t, VALUES) for t in (np.float32, np.float16, np.float64, ml_dtypes.bfloat16)),
    *(
        (t, VALUES)
        for t in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fnuz)
    ),
    (ml_dtypes.float8_e5m2fnuz, VALUES),
    (ml_dtypes.float4_e2m1fn, VALUES),
    *((t, WHOLE) for t in (np.uint8, np.uint16, np.uint32, np.uint64, ml_dtypes.uint4)),
    *((t, WHOLE - 2) for t in (np.int8, np.int16, np.int32, np.int64, ml_dtypes.int4)),
    (ml_dtypes.uint2, WHOLE),
    (ml_dtypes.int2, WHOLE - 2),
    (np.bool_, WHOLE > 1),
    (np.complex64, VALUES + 1j),
    (np.complex128, VALUES - 2j),
]


@pytest.mark.parametrize(("dtype", "values"), STORED, ids=lambda v: getattr(v, "__name__", ""))
def test_raw_data_of_every_type_is_read_exactly(dtype: Any, values: Any) -> None:
    want = values.astype(dtype)
    got = WeightReader().array(numpy_helper.from_array(want, "w"))
    assert got.dtype == want.dtype
    assert DataType.of(got).numpy == want.dtype
    np.testing.assert_array_equal(got, want)
    assert not got.flags.writeable
    assert got.flags.c_contiguous
    assert got.flags.aligned


@pytest.mark.parametrize(("dtype", "values"), STORED, ids=lambda v: getattr(v, "__name__", ""))
def test_typed_data_of_every_type_is_read_exactly(dtype: Any, values: Any) -> None:
    want = values.astype(dtype)
    number = helper.np_dtype_to_tensor_dtype(want.dtype)
    tensor = helper.make_tensor("w", number, want.shape, want.reshape(-1).tolist())
    assert not tensor.HasField("raw_data")
    got = WeightReader().array(tensor)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1)])
def test_scalars_and_empty_tensors_keep_their_shape(shape: tuple[int, ...]) -> None:
    want = np.zeros(shape, np.float32)
    assert WeightReader().array(numpy_helper.from_array(want, "w")).shape == shape


def test_an_empty_tensor_may_have_neither_raw_nor_typed_data() -> None:
    tensor = TensorProto(name="roi", data_type=TensorProto.FLOAT, dims=[0])
    assert WeightReader().array(tensor).shape == (0,)


@pytest.fixture
def external_model(tmp_path: Path) -> Path:
    """A model whose two weights lie in one file beside it, the second at an odd offset."""
    first = np.arange(6, dtype=np.float32).reshape(2, 3)
    second = np.arange(3, dtype=np.float32)
    nodes = [
        helper.make_node("Add", ["x", "first"], ["t"]),
        helper.make_node("Mul", ["t", "second"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 3))
    stored = [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")]
    graph = helper.make_graph(nodes, "g", [x], [y], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    data = first.tobytes() + b"\0" + second.tobytes()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(data)
    for tensor, offset, length in zip(model.graph.initializer, (0, 25), (24, 12), strict=True):
        external_data_helper.set_external_data(tensor, "data/w.bin", offset, length)
        tensor.ClearField("raw_data")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read_from_the_models_folder(external_model: Path) -> None:
    network = parse_model(external_model)
    np.testing.assert_array_equal(network.tensor("first").value, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(network.tensor("second").value, [0, 1, 2])
    result = network.run({"x": np.ones((2, 3), np.float32)})["y"]
    assert result.tolist() == [[0, 2, 6], [0, 5, 12]]


def test_external_data_is_mapped_and_not_read_ahead(external_model: Path) -> None:
    weight = parse_model(external_model).tensor("first").value
    assert weight is not None
    base = weight
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_a_model_that_onnx_saved_with_external_data_is_read(tmp_path: Path) -> None:
    weight = np.arange(600, dtype=np.float32).reshape(2, 300)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 300))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 300))
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    np.testing.assert_array_equal(parse_model(path).tensor("w").value, weight)


def test_an_external_link_inside_the_folder_is_followed(external_model: Path) -> None:
    data = external_model.parent / "data"
    (data / "w.bin").rename(data / "real.bin")
    (data / "w.bin").symlink_to(data / "real.bin")
    assert parse_model(external_model).tensor("second").shape == (3,)
