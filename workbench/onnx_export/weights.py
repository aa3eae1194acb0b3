"""Initializers: stored tensors inside the model, or in one data file beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto, StringStringEntryProto, TensorProto, numpy_helper

from workbench.body import Array
from workbench.errors import ExportError
from workbench.files import write_in_parts

ALIGNMENT = 64
"""Bytes: where each tensor of a data file starts, so that a reader can map it."""

SMALL = 1024
"""Bytes: smaller tensors stay in the model; what decides shapes is then always there."""

MESSAGE_LIMIT = 2**31 - 1
"""Bytes: no protobuf message is larger."""


@dataclass
class WeightStore:
    """Arrays by name, in order; made into TensorProtos when it is known where they lie."""

    arrays: dict[str, Array] = field(default_factory=dict[str, Array])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays in memory."""
        return sum(a.nbytes for a in self.arrays.values())

    def inside(self, model: ModelProto) -> None:
        """Store every array in the model. Raises ExportError where they exceed the limit."""
        if self.nbytes > MESSAGE_LIMIT:
            raise ExportError(
                f"its weights have {self.nbytes:,} bytes, a model in memory holds at most "
                f"{MESSAGE_LIMIT:,}",
                place=model.graph.name,
                remedy="give a path: the weights are then written to a file beside it",
            )
        model.graph.initializer.extend(
            numpy_helper.from_array(a, n) for n, a in self.arrays.items()
        )

    def beside(self, model: ModelProto, path: Path) -> Path:
        """Write the larger arrays to a data file and name their places in the model.

        The file's name carries a digest of what it holds: a model that an earlier export wrote
        to the same path keeps its own data until it is itself replaced.
        """
        placed: list[TensorProto] = []
        offset = 0
        digest = hashlib.sha256()
        for name, array in self.arrays.items():
            tensor = numpy_helper.from_array(array, name)
            if array.nbytes < SMALL or tensor.data_type == TensorProto.STRING:
                model.graph.initializer.append(tensor)
                continue
            data = tensor.raw_data
            digest.update(data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("offset", offset), ("length", len(data))):
                tensor.external_data.append(StringStringEntryProto(key=key, value=str(value)))
            placed.append(tensor)
            offset += _padded(len(data))
        target = path.with_name(f"{path.name}.{digest.hexdigest()[:12]}.data")
        for tensor in placed:
            entry = StringStringEntryProto(key="location", value=target.name)
            tensor.external_data.insert(0, entry)
        model.graph.initializer.extend(placed)
        write_in_parts(target, self._parts([t.name for t in placed]))
        return target

    def _parts(self, names: Iterable[str]) -> Iterator[bytes]:
        for name in names:
            data = numpy_helper.from_array(self.arrays[name]).raw_data
            yield data
            yield bytes(_padded(len(data)) - len(data))


def _padded(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
