"""Calibration data: from a file, arrays, batches, or made up and labelled so."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from workbench.body import Array
from workbench.calibration.collect import Batch, data_digest
from workbench.calibration.tensorrt import batches_of, is_calibrator
from workbench.datatypes import DataType
from workbench.dimensions import SymbolicDim
from workbench.errors import CalibrationError, FileError
from workbench.files import read_npz, write_atomically
from workbench.network import NetworkDefinition, Tensor

RANDOM = "random"
BATCH = 64
"""Samples a batch where the network's first axis is dynamic."""


@dataclass(frozen=True, eq=False)
class CalibrationData:
    """Batches of inputs, kept. label: where they come from; ``random`` when made up."""

    batches: tuple[Batch, ...]
    label: str
    digest: str

    @property
    def samples(self) -> int:
        return sum(next(iter(b.values())).shape[0] for b in self.batches)

    def save(self, path: str | Path) -> None:
        """Write the samples as an npz of one array an input."""
        names = self.batches[0].keys()
        arrays: dict[str, Any] = {n: np.concatenate([b[n] for b in self.batches]) for n in names}
        data = io.BytesIO()
        np.savez_compressed(data, **arrays)
        write_atomically(Path(path), data.getvalue())


class OnePass:
    """Batches that are read once and never kept: memory stays small whatever their number.

    label: where they come from. Reading them again is refused with CalibrationError.
    """

    def __init__(self, batches: Iterable[Batch], network: NetworkDefinition, label: str) -> None:
        self.label = label
        self._batches = batches
        self._network = network
        self._read = False

    def __iter__(self) -> Iterator[Batch]:
        if self._read:
            raise CalibrationError(
                "the batches were read once and are gone",
                place=self.label,
                remedy="give a list, a file or arrays where data is needed twice: for smooth "
                "scaling, or for another build",
            )
        self._read = True
        for index, batch in enumerate(self._batches):
            yield _checked(batch, index, self._network)


def streamed(source: Iterator[Batch] | Any, network: NetworkDefinition) -> OnePass:
    """An iterator of batches, or a calibrator object of TensorRT's, to be read in one pass."""
    if is_calibrator(source):
        batches = batches_of(source, [t.name for t in network.inputs])
        return OnePass(batches, network, type(source).__name__)
    return OnePass(source, network, "batches")


def load_data(source: Any, network: NetworkDefinition) -> CalibrationData:
    """Batches for ``network`` from an npz path, arrays by input name, batches, or ``"random"``.

    Batches: an iterable of mappings (of arrays, for a network of one input), or a calibrator object
    of TensorRT's; they are kept. In an npz, arrays are named after the inputs; for a network of one
    input, a file's only array or the one whose name begins with ``calibration`` and fits the shape
    serves too. Raises CalibrationError.
    """
    if isinstance(source, str) and source == RANDOM:
        return _data(_batches(_random(network), network), RANDOM)
    if isinstance(source, str | Path):
        path = Path(source)
        try:
            arrays = _named(read_npz(path), network, str(path))
        except FileError as e:
            raise CalibrationError(e.problem, place=e.place, remedy=e.remedy) from None
        return _data(_batches(arrays, network), path.name)
    if isinstance(source, Mapping):
        given = _named(cast(Mapping[str, Array], source), network, "calibration arrays")
        return _data(_batches(given, network), "arrays")
    if is_calibrator(source):
        data = streamed(source, network)
        return _data(tuple(data), data.label)
    return _data(tuple(OnePass(source, network, "batches")), "batches")


def _checked(batch: Any, index: int, network: NetworkDefinition) -> dict[str, Array]:
    """A batch as arrays by input name; a network of one input takes a bare array, too."""
    place = f"calibration batch {index}"
    if not isinstance(batch, Mapping):
        if len(network.inputs) != 1 or isinstance(batch, list | tuple):
            names = ", ".join(t.name for t in network.inputs)
            raise CalibrationError(
                f"it is a {type(cast(object, batch)).__name__}, not a mapping of input names",
                place=place,
                remedy=f"give each batch as a dict of {names}",
            )
        batch = {network.inputs[0].name: batch}
    given = cast(Mapping[str, Any], batch)
    return _named({k: np.asarray(v) for k, v in given.items()}, network, place)


def _data(batches: Sequence[Batch], label: str) -> CalibrationData:
    if not batches:
        raise CalibrationError("there is no calibration batch", place=label)
    return CalibrationData(tuple(batches), label, data_digest(batches))


def _named(arrays: Mapping[str, Array], network: NetworkDefinition, place: str) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for tensor in network.inputs:
        array = arrays.get(tensor.name)
        if array is None and len(network.inputs) == 1:
            likely = [
                a for n, a in arrays.items() if n.startswith("calibration") and _fits(a, tensor)
            ]
            likely = likely or [a for a in arrays.values() if len(arrays) == 1]
            array = likely[0] if likely else None
        if array is None:
            raise CalibrationError(
                f"it has no array for input '{tensor.name}' (it has {', '.join(arrays) or 'none'})",
                place=place,
                remedy="name the arrays after the network's inputs",
            )
        if not _fits(array, tensor):
            raise CalibrationError(
                f"its array for input '{tensor.name}' is {array.dtype}{list(array.shape)}, "
                f"the network reads {tensor.type}",
                place=place,
            )
        found[tensor.name] = array
    return found


def _fits(array: Array, tensor: Tensor) -> bool:
    if array.dtype != tensor.dtype.numpy or array.ndim != len(tensor.shape):
        return False
    sizes = zip(tensor.shape[1:], array.shape[1:], strict=True)
    return all(isinstance(want, SymbolicDim) or want == have for want, have in sizes)


def _batches(arrays: Mapping[str, Array], network: NetworkDefinition) -> tuple[Batch, ...]:
    first = network.inputs[0]
    size = first.shape[0] if first.shape and isinstance(first.shape[0], int) else BATCH
    count = arrays[first.name].shape[0] if first.shape else 1
    whole = count // size if isinstance(first.shape[0], int) else -(-count // size)
    if not whole:
        raise CalibrationError(
            f"{count} samples do not fill a batch of {size}", place=f"input '{first.name}'"
        )
    return tuple(
        {n: np.ascontiguousarray(a[i * size : (i + 1) * size]) for n, a in arrays.items()}
        for i in range(whole)
    )


def _random(network: NetworkDefinition) -> dict[str, Array]:
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in network.inputs:
        sizes = [d if isinstance(d, int) else 16 for d in tensor.shape[1:]]
        first = tensor.shape[0] if isinstance(tensor.shape[0], int) else BATCH
        shapes[tensor.name] = (first, *sizes)
    return random_inputs(network, shapes)


def random_inputs(
    network: NetworkDefinition, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """Made-up inputs of these shapes: normal floats, ones for booleans, 0 or 1 for integers."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for tensor in network.inputs:
        shape = shapes[tensor.name]
        if tensor.dtype.is_float:
            arrays[tensor.name] = rng.standard_normal(shape).astype(tensor.dtype.numpy)
        elif tensor.dtype is DataType.BOOL:
            arrays[tensor.name] = np.ones(shape, np.bool_)
        else:
            arrays[tensor.name] = rng.integers(0, 2, shape).astype(tensor.dtype.numpy)
    return arrays
