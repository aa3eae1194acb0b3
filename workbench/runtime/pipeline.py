"""Batches one after another: while one computes, the next is copied in and the last copied out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from workbench.body import Array, Value
from workbench.devices import Buffer, Device
from workbench.errors import ExecutionError
from workbench.host_threads import copy_to
from workbench.plan import PlanTensor
from workbench.runtime.context import ExecutionContext
from workbench.runtime.given import check_input


class _Lane:
    """Memory of one batch under way: pinned host memory and device memory of every tensor."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.host: dict[str, Buffer] = {}
        self.there: dict[str, Buffer] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.done: Any = None

    def reserve(self, tensor: PlanTensor, shape: tuple[int, ...]) -> None:
        """Memory for a tensor of this shape: kept from batch to batch, replaced by larger."""
        nbytes = max(1, int(np.prod(shape, dtype=np.int64)) * tensor.type.dtype.itemsize)
        self.shapes[tensor.name] = shape
        have = self.host.get(tensor.name)
        if have is None or have.nbytes < nbytes:
            self.host[tensor.name] = self.device.pinned(nbytes)
            self.there[tensor.name] = self.device.allocate(nbytes)

    def array(self, tensor: PlanTensor) -> Array:
        """The pinned memory as an array of the tensor's present shape."""
        return self.host[tensor.name].view(tensor.type.dtype, self.shapes[tensor.name])

    def copies(self, tensor: PlanTensor) -> tuple[Buffer, Buffer]:
        """(pinned, on the device), each as long as the tensor now is."""
        nbytes = self.array(tensor).nbytes
        return (
            self.host[tensor.name].slice(0, nbytes),
            self.there[tensor.name].slice(0, nbytes),
        )


class Pipeline:
    """Runs batches of host arrays through one context. depth: batches under way at once.

    On a GPU each batch passes through pinned memory: its copy in, its kernels and its copy out are
    on streams of their own and overlap with its neighbours'. On a CPU there is nothing to copy.
    """

    def __init__(self, context: ExecutionContext, *, depth: int = 2) -> None:
        if depth < 1:
            raise ExecutionError(f"depth {depth}", place="pipeline", remedy="use 1 or more")
        self.context = context
        engine = context.engine
        self.device = engine.device
        self._tensors = engine.io_tensors
        self._overlaps = self.device.kind == "gpu" and not engine.plan.is_late
        self._lanes = [_Lane(self.device) for _ in range(depth)]
        self._in, self._compute, self._out = (self.device.stream() for _ in range(3))

    def run(self, batches: Iterable[Mapping[str, Value]]) -> Iterator[dict[str, Value]]:
        """The outputs of each batch, in order. Raises ExecutionError on a misfit."""
        if not self._overlaps:
            yield from map(self.context.run, batches)
            return
        waiting: list[_Lane] = []
        for number, batch in enumerate(batches):
            lane = self._lanes[number % len(self._lanes)]
            if lane in waiting:
                yield self._collected(waiting.pop(0))
            self._submit(lane, batch)
            waiting.append(lane)
        for lane in waiting:
            yield self._collected(lane)

    def _submit(self, lane: _Lane, batch: Mapping[str, Value]) -> None:
        inputs = [t for t in self._tensors if t.kind == "input"]
        outputs = [t for t in self._tensors if t.kind == "output"]
        for name in set(batch) - {t.name for t in inputs}:
            self.context.engine.io(name)
        for t in inputs:
            check_input(t, batch)
            given = np.asarray(batch[t.name])
            self.context.set_input_shape(t.name, given.shape)
            lane.reserve(t, given.shape)
            copy_to(lane.array(t), given)
            source, target = lane.copies(t)
            self.device.copy_in(target, source.address, self._in)
        for t in outputs:
            lane.reserve(t, self.context.get_tensor_shape(t.name))
        for t in self._tensors:
            self.context.set_tensor_address(t.name, lane.there[t.name].memory)  # kept alive
        self.device.wait(self._compute, self._in)
        self.context.execute_async_v3(self._compute)
        self.device.wait(self._out, self._compute)
        for t in outputs:
            target, source = lane.copies(t)
            self.device.copy_out(target.address, source, self._out)
        lane.done = self.device.mark(self._out)

    def _collected(self, lane: _Lane) -> dict[str, Value]:
        self.device.reach(lane.done)
        return {t.name: lane.array(t).copy() for t in self._tensors if t.kind == "output"}
