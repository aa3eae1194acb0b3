"""Constants on a GPU: what they were made from, and how they get there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.devices import Buffer
from workbench.host_threads import copy_to

STAGING_BYTES = 16 << 20
"""Pinned memory for constants: half a millisecond's copy."""


@dataclass(frozen=True, eq=False)
class DeviceConstant:
    """A constant on the device. sources: the host arrays it was made from, which it keeps alive."""

    memory: Any
    address: int
    nbytes: int
    sources: tuple[np.ndarray[Any, Any], ...]


class Staging:
    """Pinned memory through which constants go to the device, brought into order on the way.

    copy(target, source, nbytes): copies between addresses, and returns when it is done. Threads
    that load engines at once take turns.
    """

    def __init__(self, buffer: Buffer, copy: Callable[[int, int, int], None]) -> None:
        self._buffer = buffer
        self._copy = copy
        self._lock = threading.Lock()

    def upload(self, array: np.ndarray[Any, Any], address: int) -> None:
        """Copy an array to the device, in C order; it is there when this returns."""
        done = 0
        for part in _parts(array, self._buffer.nbytes):
            place = self._buffer.memory[: part.nbytes].view(part.dtype).reshape(part.shape)
            with self._lock:
                copy_to(place, part)
                self._copy(address + done, self._buffer.address, part.nbytes)
            done += part.nbytes


def _parts(array: np.ndarray[Any, Any], most: int) -> Iterator[np.ndarray[Any, Any]]:
    """The array in C order, in parts of at most so many bytes."""
    if array.nbytes <= most:
        if array.nbytes:
            yield array
        return
    row = array.nbytes // len(array)
    if row > most:
        for inner in array:
            yield from _parts(inner, most)
        return
    step = most // row
    for start in range(0, len(array), step):
        yield array[start : start + step]
