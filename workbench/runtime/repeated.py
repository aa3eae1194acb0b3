"""A run on the host that comes again at the same sizes: copies and layers as one prepared list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from workbench.devices import Buffer, host_address
from workbench.runtime.launching import Bound
from workbench.tactics.native import Native, Words, copy, flat
from workbench.tactics.protocol import Launch


class Repeated:
    """Calls the layers on the caller's memory; where all is native, by one call.

    inputs, outputs: where the context keeps them, in the engine's order. Python's part is to write
    the caller's addresses into the words of the copies. placed: gives the launches processors.
    """

    def __init__(
        self,
        bound: Bound,
        inputs: Sequence[Buffer],
        outputs: Sequence[Buffer],
        placed: Callable[[Sequence[Launch]], Sequence[Launch]],
    ) -> None:
        self._places: list[tuple[Words, int, int]] = []
        reads: list[Native] = []
        writes: list[Native] = []
        for slot in inputs:
            launch, words = copy(slot.address, 0, slot.nbytes)
            reads.append(launch)
            self._places.append((words, 1, slot.nbytes))
        for slot in outputs:
            launch, words = copy(0, slot.address, slot.nbytes)
            writes.append(launch)
            self._places.append((words, 0, slot.nbytes))
        self._last: list[Any] = [None] * len(self._places)
        self._kept = (inputs, outputs)
        self._launches = placed(flat([*reads, *bound.run, *writes]))

    def __call__(self, given: Sequence[Any]) -> None:
        """given: the address or array of each input, then of each output."""
        last = self._last
        for k, place in enumerate(given):
            if place is not last[k]:
                words, which, nbytes = self._places[k]
                words[which] = host_address(place, nbytes)
                # An array that is held here cannot move its memory.
                last[k] = place
        for launch in self._launches:
            launch()
