"""The caller's own memory in place of a context's slots, so that nothing is copied."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from workbench.devices import Buffer, Device

Owned = Mapping[str, Buffer]
"""The caller's buffers, by the name of the input or output."""
NONE: Owned = MappingProxyType({})
REMEMBERED = 16
"""Sets of addresses that are told apart; the oldest is forgotten."""


class CallersMemory:
    """Knows which addresses come again: binding kernels to them pays from the second time on."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._seen: dict[tuple[Any, ...], Owned | None] = {}

    def buffers(self, places: Mapping[str, tuple[Any, int]]) -> Owned:
        """Buffers over ``places`` (name -> address and bytes), or none: then copy.

        None the first time, and where kernels cannot use the memory as it is: the host's, not
        aligned, or overlapping.
        """
        key = tuple((n, self._device.address_of(p, size), size) for n, (p, size) in places.items())
        if key not in self._seen:
            while len(self._seen) >= REMEMBERED:
                del self._seen[next(iter(self._seen))]
            self._seen[key] = None
            return NONE
        if self._seen[key] is None:
            self._seen[key] = self._usable(places)
        return self._seen[key] or NONE

    def _usable(self, places: Mapping[str, tuple[Any, int]]) -> Owned:
        found: dict[str, Buffer] = {}
        for name, (place, nbytes) in places.items():
            buffer = self._device.foreign(place, nbytes)
            if buffer is None:
                return NONE
            found[name] = buffer
        spans = sorted((b.address, b.address + b.nbytes) for b in found.values())
        return found if all(a[1] <= b[0] for a, b in pairwise(spans)) else NONE
