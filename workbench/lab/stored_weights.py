"""StoredWeight: a model's stored tensor; its values are looked at only when asked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, SparseTensorProto, TensorProto

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.network import NetworkDefinition
from workbench.onnx_parser.element_types import FROM_ONNX, type_name
from workbench.onnx_parser.soundness import in_chunks, not_finite
from workbench.onnx_parser.subgraphs import names_read
from workbench.onnx_parser.weights import WeightReader


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
    least, largest = math.inf, -math.inf
    nans = infinities = 0
    for part in in_chunks(array):
        if part.dtype.kind not in "biu":
            part = part.astype(np.float64 if part.dtype.itemsize > 4 else np.float32)
            finite = np.isfinite(part)
            if not finite.all():
                unordered, above, below = not_finite(part)
                nans, infinities = nans + unordered, infinities + above + below
                part = part[finite]
        if part.size:
            least = min(least, float(part.min()))
            largest = max(largest, float(part.max()))
    empty = least > largest
    return WeightStatistics(None if empty else least, None if empty else largest, nans, infinities)


def weights_of_network(
    network: NetworkDefinition, model: ModelProto | None = None, folder: Path | None = None
) -> tuple[StoredWeight, ...]:
    """The constants that a network holds; those of the model that it does not hold come last.

    model, folder: what the network was parsed from, and where its data files lie. A node of the
    model that became none, or that lies in a branch, reads all the same what it names.
    """
    stored = {n: t for n, t in _initializers(model.graph)} if model is not None else {}
    in_file = _readers(model.graph) if model is not None else {}
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
                len(tensor.users) + tensor.is_network_output
                if proto is None
                else in_file.get(name, 0),
                lambda array=array: array,
            )
        )
    reader = WeightReader(folder)
    return (*found, *(_of_proto(n, t, in_file.get(n, 0), reader) for n, t in stored.items()))


def weights_of_file(model: ModelProto, folder: Path | None) -> tuple[StoredWeight, ...]:
    """The initializers of a model that was not imported."""
    readers, reader = _readers(model.graph), WeightReader(folder)
    return tuple(_of_proto(n, t, readers.get(n, 0), reader) for n, t in _initializers(model.graph))


def _readers(graph: GraphProto) -> Counter[str]:
    """Nodes that read each value, in the graphs inside them or themselves, and outputs."""
    found = Counter(v for node in graph.node for v in set(names_read(node)))
    found.update(v.name for v in graph.output)
    return found


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
