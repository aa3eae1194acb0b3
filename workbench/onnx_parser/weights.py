"""WeightReader: a model's stored tensors as read-only arrays, external data memory-mapped."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from onnx import SparseTensorProto, TensorProto

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.onnx_parser.data_files import DataFiles, shown
from workbench.onnx_parser.element_types import FROM_ONNX, type_name
from workbench.onnx_parser.limits import MOST_BYTES, size_text, wrong_shape
from workbench.onnx_parser.problems import ErrorCode, refuse

_PACKED = {2: 4, 4: 2}
"""Bits of a sub-byte element -> elements a byte; the first element is in the low bits."""


class WeightReader:
    """Decodes TensorProto. folder: where external data may lie; None: nowhere (bytes only)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._files = DataFiles(folder)
        self._initializers: dict[str, Array] = {}

    def initializer(self, name: str, tensor: TensorProto | SparseTensorProto) -> Array:
        """As ``read``, once for each name: a model may be imported more than once."""
        if name not in self._initializers:
            self._initializers[name] = self.read(tensor)
        return self._initializers[name]

    def read(self, tensor: TensorProto | SparseTensorProto) -> Array:
        """As ``array``, or ``dense`` for a sparse tensor."""
        return self.array(tensor) if isinstance(tensor, TensorProto) else self.dense(tensor)

    def array(self, tensor: TensorProto) -> Array:
        """The value, C-contiguous and read-only. Raises ParserError naming the tensor."""
        name = shown(tensor.name) or "(unnamed)"
        dtype = FROM_ONNX.get(tensor.data_type)
        if dtype is None:
            refuse(
                ErrorCode.UNSUPPORTED_NODE_DATATYPE,
                f"tensor '{name}' stores {type_name(tensor.data_type)}, which is not imported",
                rule="element_type",
                remedy="store it as a number type",
            )
        shape = tuple(tensor.dims)
        _check_shape(name, shape)
        if dtype is DataType.STRING:
            values = _texts(tensor, shape, name)
        elif tensor.data_location == TensorProto.EXTERNAL:
            entries = {e.key: e.value for e in tensor.external_data}
            extent = self._files.extent(entries, name)
            _check_bytes(extent.length, dtype, shape, name)
            values = self._stored(self._files.read(extent, name), dtype, shape, name)
        elif tensor.HasField("raw_data"):
            values = self._stored(np.frombuffer(tensor.raw_data, np.uint8), dtype, shape, name)
        else:
            values = _typed(tensor, dtype, shape, name)
        values.flags.writeable = False
        return values

    def dense(self, sparse: SparseTensorProto) -> Array:
        """A sparse tensor written out. Raises ParserError where an index is out of range."""
        values, indices = self.array(sparse.values), self.array(sparse.indices)
        shape = tuple(sparse.dims)
        name = shown(sparse.values.name) or "(unnamed)"
        _check_shape(name, shape)
        if (nbytes := math.prod(shape) * values.dtype.itemsize) > MOST_BYTES:
            refuse(
                ErrorCode.INVALID_VALUE,
                f"sparse tensor '{name}' with {values.size} values is {size_text(nbytes)} when "
                f"written out, more than {size_text(MOST_BYTES)}",
                rule="tensor_bytes",
                remedy="store it dense, in a data file beside the model",
            )
        if indices.ndim == 1:
            flat = indices
        elif indices.ndim == 2 and indices.shape[1] == len(shape):
            if np.any(indices < 0) or np.any(indices >= np.array(shape)):
                flat = np.array([-1])
            else:
                flat = np.ravel_multi_index(tuple(indices.T), shape)
        else:
            flat = np.array([-1])
        size = math.prod(shape)
        whole = values.ndim == 1 and indices.dtype == np.int64
        if not whole or np.any(flat < 0) or np.any(flat >= size) or flat.size != values.size:
            refuse(
                ErrorCode.INVALID_VALUE,
                f"sparse tensor '{name}': its values of shape {values.shape} and {indices.dtype} "
                f"indices of shape {indices.shape} do not fit the shape {shape}",
                rule="sparse_indices",
                remedy="re-export the model",
            )
        out = np.zeros(size, values.dtype)
        out[flat] = values
        out.flags.writeable = False
        return out.reshape(shape)

    def _stored(self, data: Array, dtype: DataType, shape: tuple[int, ...], name: str) -> Array:
        count, bits = math.prod(shape), dtype.info.bits
        _check_bytes(data.nbytes, dtype, shape, name)
        if bits in _PACKED:
            return _unpacked(data, bits, count).view(dtype.numpy).reshape(shape)
        if dtype is DataType.BOOL:
            return (data != 0).reshape(shape)
        values = data.view(dtype.numpy)
        if not values.flags.aligned:
            values = values.copy()
        return values.reshape(shape)


def _typed(tensor: TensorProto, dtype: DataType, shape: tuple[int, ...], name: str) -> Array:
    """From the field of the element type (float_data, int32_data...)."""
    count, bits = math.prod(shape), dtype.info.bits
    match dtype:
        case DataType.FLOAT | DataType.COMPLEX64:
            values = np.array(tensor.float_data, np.float32).view(dtype.numpy)
        case DataType.DOUBLE | DataType.COMPLEX128:
            values = np.array(tensor.double_data, np.float64).view(dtype.numpy)
        case DataType.INT64:
            values = np.array(tensor.int64_data, np.int64)
        case DataType.UINT32 | DataType.UINT64:
            values = np.array(tensor.uint64_data, np.uint64).astype(dtype.numpy)
        case DataType.INT32:
            values = np.array(tensor.int32_data, np.int32)
        case DataType.BOOL:
            values = np.array(tensor.int32_data, np.int32) != 0
        case _:
            # int32_data holds the bits of halves and small floats, and packed sub-byte numbers.
            words = np.array(tensor.int32_data, np.int32)
            if bits in _PACKED:
                per_byte = _PACKED[bits]
                if words.size == (count + per_byte - 1) // per_byte:
                    words = _unpacked(words.astype(np.uint8), bits, count)
            values = words.astype(f"u{dtype.itemsize}").view(dtype.numpy)
    if values.size != count:
        _refuse_size(name, f"{values.size} elements", f"{count} elements", dtype, shape)
    return values.reshape(shape)


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Raise ParserError naming the tensor where no array can have this shape."""
    if wrong := wrong_shape(shape):
        refuse(
            ErrorCode.INVALID_VALUE,
            f"tensor '{name}' {wrong}",
            rule="tensor_shape",
            remedy="re-export the model",
        )


def _check_bytes(have: int, dtype: DataType, shape: tuple[int, ...], name: str) -> None:
    need = (math.prod(shape) * dtype.info.bits + 7) // 8
    if have != need:
        _refuse_size(name, f"{have} bytes", f"{need} bytes", dtype, shape)


def _texts(tensor: TensorProto, shape: tuple[int, ...], name: str) -> Array:
    """From string_data, the only place where the standard lets strings lie."""
    count, stored = math.prod(shape), tensor.string_data
    if len(stored) != count:
        _refuse_size(name, f"{len(stored)} strings", f"{count} strings", DataType.STRING, shape)
    values = np.empty(count, np.object_)
    for k, text in enumerate(stored):
        values[k] = text.decode(errors="replace")
    return values.reshape(shape)


def _unpacked(data: Array, bits: int, count: int) -> Array:
    """The packed numbers, one a byte, sign-extended where ml_dtypes reads the low bits only."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    mask = np.uint8((1 << bits) - 1)
    return ((data[:, None] >> shifts) & mask).reshape(-1)[:count]


def _refuse_size(name: str, have: str, need: str, dtype: DataType, shape: tuple[int, ...]) -> None:
    refuse(
        ErrorCode.INVALID_VALUE,
        f"tensor '{name}' stores {have}, but {dtype.value}[{', '.join(map(str, shape))}] "
        f"needs {need}",
        rule="tensor_size",
        remedy="the file is damaged, or its writer is; re-export the model",
    )
