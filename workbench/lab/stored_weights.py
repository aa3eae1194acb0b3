"""StoredWeight: a model's stored tensor; its values are looked at only when asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, SparseTensorProto, TensorProto

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.network import NetworkDefinition
from workbench.onnx_parser.element_types import FROM_ONNX, type_name
from workbench.onnx_parser.weights import WeightReader

CHUNK = 1 << 20
"""Elements that statistics look at together."""


@dataclass(frozen=True)
class WeightStatistics:
    """What a weight's values are. least, largest: of the finite ones; None where there are none."""

    least: float | None
    largest: float | None
    nans: int = 0
    infinities: int = 0


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A stored tensor. where: ``the model``, ``a Constant node``, or its data file.

    nbytes: as stored. readers: nodes that read it. values: reads them; raises ParserError.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    nbytes: int
    where: str
    external: bool
    readers: int
    values: Callable[[], Array]

    def statistics(self) -> WeightStatistics | None:
        """Of its values; None where they are no real numbers. Raises ParserError."""
        array = self.values()
        if array.dtype == object or array.dtype.kind in "cUSO":
            return None
        return statistics_of(array)


def statistics_of(array: Array) -> WeightStatistics:
    """Smallest and largest finite value, NaNs and infinities, in bounded memory."""
    flat = array.reshape(-1)
    least, largest = math.inf, -math.inf
    nans = infinities = 0
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        if part.dtype.kind not in "biu":
            part = part.astype(np.float64 if part.dtype.itemsize > 4 else np.float32)
            finite = np.isfinite(part)
            if not finite.all():
                count = int(np.isnan(part).sum())
                nans += count
                infinities += int((~finite).sum()) - count
                part = part[finite]
        if part.size:
            least = min(least, float(part.min()))
            largest = max(largest, float(part.max()))
    empty = least > largest
    return WeightStatistics(None if empty else least, None if empty else largest, nans, infinities)


def weights_of_network(
    network: NetworkDefinition, model: ModelProto | None = None
) -> tuple[StoredWeight, ...]:
    """The constants that a network holds; those of the model that nothing reads come last."""
    stored = {n: t for n, t in _initializers(model.graph)} if model is not None else {}
    found: list[StoredWeight] = []
    for name, tensor in network.tensors.items():
        if tensor.weight is None:
            continue
        array = tensor.weight.array
        proto = stored.pop(name, None)
        dtype = DataType.of(array)
        where, external = "a Constant node" if model is not None else "the network", False
        if proto is not None:
            where, external = _place(proto)
        found.append(
            StoredWeight(
                name,
                dtype.value,
                array.shape,
                _bytes(dtype, array.shape),
                where,
                external,
                len(tensor.users) + tensor.is_network_output,
                lambda array=array: array,
            )
        )
    reader = WeightReader(None)
    return (*found, *(_of_proto(n, t, 0, reader) for n, t in stored.items()))


def weights_of_file(model: ModelProto, folder: Path | None) -> tuple[StoredWeight, ...]:
    """The initializers of a model that was not imported."""
    readers: dict[str, int] = {}
    for node in model.graph.node:
        for value in set(node.input):
            readers[value] = readers.get(value, 0) + 1
    for value in model.graph.output:
        readers[value.name] = readers.get(value.name, 0) + 1
    reader = WeightReader(folder)
    return tuple(_of_proto(n, t, readers.get(n, 0), reader) for n, t in _initializers(model.graph))


def total_bytes(weights: Iterable[StoredWeight]) -> int:
    """As stored."""
    return sum(w.nbytes for w in weights)


def _initializers(graph: GraphProto) -> Iterator[tuple[str, TensorProto | SparseTensorProto]]:
    yield from ((t.name, t) for t in graph.initializer)
    yield from ((t.values.name, t) for t in graph.sparse_initializer)


def _of_proto(
    name: str, proto: TensorProto | SparseTensorProto, readers: int, reader: WeightReader
) -> StoredWeight:
    tensor = proto if isinstance(proto, TensorProto) else proto.values
    shape = tuple(proto.dims)
    dtype = FROM_ONNX.get(tensor.data_type)
    where, external = _place(proto)
    return StoredWeight(
        name or "(unnamed)",
        type_name(tensor.data_type),
        shape,
        _bytes(dtype, shape) if dtype is not None and all(d >= 0 for d in shape) else 0,
        where,
        external,
        readers,
        lambda: reader.read(proto),
    )


def _place(proto: TensorProto | SparseTensorProto) -> tuple[str, bool]:
    if not isinstance(proto, TensorProto):
        return "the model, sparse", False
    if proto.data_location != TensorProto.EXTERNAL:
        return "the model", False
    places = [e.value for e in proto.external_data if e.key == "location"]
    return places[0] if places else "an unnamed file", True


def _bytes(dtype: DataType, shape: tuple[int, ...]) -> int:
    return (math.prod(shape) * dtype.info.bits + 7) // 8
