"""The memory of an execution context: slots of inputs and outputs, one arena, one workspace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Value
from workbench.devices import Buffer
from workbench.plan import PlanProfile
from workbench.runtime.direct import NONE, Owned
from workbench.runtime.engine import Engine


class ContextMemory:
    """Allocated for the largest sizes of one profile.

    slots: memory of each input and output of known size. Scratch is shared by the launches of
    a stream; it grows where a size wants more than any size of the build did.
    """

    def __init__(self, engine: Engine, profile: PlanProfile) -> None:
        self._engine, self._profile = engine, profile
        device = engine.device
        self._arena = device.allocate(profile.arena_bytes)
        size = profile.workspace_bytes
        self._scratch: dict[int, Buffer] = {0: device.allocate(size)} if size else {}
        largest = engine.bindings_of({k: v[2] for k, v in profile.shapes.items()})
        self.slots: Mapping[str, Buffer] = {
            t.name: device.allocate(
                max(1, dimensions.evaluate(t.format.volume(t.type.shape), largest))
                * t.type.dtype.itemsize
            )
            for t in engine.io_tensors
            if t.name not in engine.plan.late
        }

    def put(self, inputs: Mapping[str, Value], stream: Any) -> None:
        """Copy the host's arrays into their slots, in the layouts of the plan; others are left."""
        for name in (n for n in inputs if n in self.slots):
            stored = self._engine.io(name).format.pack(np.asarray(inputs[name]))
            self._engine.device.upload(stored, self.slots[name], stream)

    def scratch(self, nbytes: int, stream: int = 0) -> Buffer | None:
        """A stream's workspace, with at least so many bytes; None if none was ever wanted."""
        self.reserve([(stream, nbytes)])
        return self._scratch.get(stream)

    def reserve(self, wanted: Iterable[tuple[int, int]]) -> bool:
        """Make workspaces large enough for (stream, bytes); whether one moved that was in use."""
        moved = False
        for stream, nbytes in wanted:
            have = self._scratch.get(stream)
            if nbytes > (have.nbytes if have else 0):
                self._scratch[stream] = self._engine.device.allocate(nbytes)
                moved = moved or have is not None
        return moved

    def fixed(self, name: str, bindings: Mapping[str, int]) -> Buffer | None:
        """Where a tensor lies at these sizes; None where only the data decides its size."""
        if name in self._engine.plan.late:
            return None
        shape = dimensions.evaluate_shape(self._engine.tensor(name).type.shape, bindings)
        return self.buffer(name, shape, bindings)

    def buffer(
        self,
        name: str,
        shape: tuple[int, ...],
        bindings: Mapping[str, int],
        owned: Owned = NONE,
    ) -> Buffer:
        """Where a tensor of this shape lies: in the caller's memory, its slot, or the arena."""
        tensor = self._engine.tensor(name)
        nbytes = int(tensor.format.volume(shape)) * tensor.type.dtype.itemsize
        owner = tensor.root or name
        offset = dimensions.evaluate(tensor.offset, bindings) if tensor.root else 0
        if owner in owned:
            return owned[owner].slice(offset, nbytes)
        if owner in self.slots:
            return self.slots[owner].slice(offset, nbytes)
        return self._arena.slice(self._profile.offsets[owner] + offset, nbytes)
