"""Plans in which only the data decides some sizes, or some steps run on the host.

Steps run one after another. A host step's outputs bind the sizes that were open; the steps that
read them are prepared for these sizes, once each, and what they write is allocated when it is
written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from workbench.body import HostType, Value, bind_sizes, interpret
from workbench.devices import ALIGNMENT, Buffer
from workbench.dimensions import evaluate_shape
from workbench.errors import DeviceError, ExecutionError, NetworkError, PlanError
from workbench.plan import PlanStep, PlanTensor
from workbench.runtime.engine import Engine
from workbench.runtime.profiler import LayerProfile, Profile
from workbench.runtime.taps import Observe

Fixed = Callable[[str, Mapping[str, int]], Buffer | None]
"""A tensor's memory in the arena or among the slots, at these sizes; None for one that has none."""
Scratch = Callable[[int], Buffer | None]


class LateRun:
    """One execution. seconds: of each step. values: what the host holds; the rest is in buffers."""

    def __init__(
        self,
        engine: Engine,
        bindings: Mapping[str, int],
        fixed: Fixed,
        scratch: Scratch,
        stream: Any,
    ) -> None:
        self.engine = engine
        self.bindings = dict(bindings)
        self.values: dict[str, Value] = {}
        self.seconds: list[float] = []
        self.kernels: list[str] = []
        self._fixed, self._scratch, self._stream = fixed, scratch, stream
        self._buffers: dict[str, Buffer] = {}

    def give(self, tensor: PlanTensor, value: Value) -> None:
        """An input of the network that is not in its slot already."""
        self.values[tensor.name] = value
        bind_sizes(tensor.type, value, self.bindings)

    def run(self, observe: Observe | None = None) -> None:
        """Every step in order, each then shown to ``observe``.

        Raises ExecutionError naming the layer that fails.
        """
        for index, step in enumerate(self.engine.plan.steps):
            start = time.perf_counter()
            try:
                kernel = self._host(step) if step.on_host else self._kernel(index, step)
            except (DeviceError, ExecutionError, NetworkError, PlanError) as e:
                place = step.name if not e.place else f"layer '{step.name}': {e.place}"
                raise ExecutionError(e.problem, place=place, remedy=e.remedy) from None
            self.seconds.append(time.perf_counter() - start)
            if observe is not None:
                observe(step, self.value)
            self.kernels.append(kernel)

    def value(self, name: str) -> Value:
        """A tensor's value on the host: an array in linear layout, a list, or None."""
        if name not in self.values:
            tensor = self.engine.tensor(name)
            shape = evaluate_shape(tensor.type.shape, self.bindings)
            layout = tensor.format
            buffer = self._memory(tensor)
            stored = self.engine.device.download(
                buffer, tensor.type.dtype, layout.physical_shape(shape), self._stream
            )
            self.values[name] = layout.unpack(stored, shape)
        return self.values[name]

    def stored(self, tensor: PlanTensor) -> Buffer:
        """A tensor's memory on the device."""
        if tensor.type.on_host:
            return self.engine.device.allocate(1)
        return self._memory(tensor)

    # -- steps ----------------------------------------------------------------------------
    def _host(self, step: PlanStep) -> str:
        weights = self.engine.plan.weights
        constants, inputs = iter(step.constants), iter(step.inputs)
        given = {
            i.name: weights[next(constants)] if i.constant else self.value(next(inputs))
            for i in step.body.inputs
        }
        made = interpret(step.body, given)
        for inner, name in zip(step.body.outputs, step.outputs, strict=True):
            tensor, value = self.engine.tensor(name), made[inner]
            self._check(tensor, value)
            self.values[name] = value
            bind_sizes(tensor.type, value, self.bindings)
            buffer = self._fixed(name, self.bindings)
            if buffer is not None:
                self.engine.device.upload(tensor.format.pack(value), buffer, self._stream)
        return f"{step.body.operator_names[-1]} on the host"

    def _check(self, tensor: PlanTensor, value: Value) -> None:
        """A value that contradicts the sizes that the plan was made for."""
        if isinstance(tensor.type, HostType) or not isinstance(value, np.ndarray):
            return
        wanted, rank = tensor.type.shape, np.ndim(value)
        fits = len(wanted) == rank and all(
            not isinstance(d, int) or d == have for d, have in zip(wanted, value.shape, strict=True)
        )
        if not fits:
            raise ExecutionError(
                f"'{tensor.name}' came out with shape {value.shape}, the plan has {tensor.type}",
                remedy="give inputs of the shapes that the model was made for",
            )

    def _kernel(self, index: int, step: PlanStep) -> str:
        if all(self._is_empty(name) for name in step.outputs):
            return "nothing to compute"
        call = self.engine.call(index, self.bindings)
        inputs = [self._memory(self.engine.tensor(n)) for n in step.inputs]
        outputs = [self._memory(self.engine.tensor(n)) for n in step.outputs]
        workspace = self._scratch(call.workspace_bytes) if call.workspace_bytes else None
        call.bind(inputs, outputs, workspace, self._stream)()
        for name in step.outputs:
            self.values.pop(name, None)
        self.engine.device.synchronize(self._stream)
        return call.kernel

    def _is_empty(self, name: str) -> bool:
        """Whether a tensor has no elements at these sizes: few kernels take such a one."""
        return 0 in evaluate_shape(self.engine.tensor(name).type.shape, self.bindings)

    def _memory(self, tensor: PlanTensor) -> Buffer:
        """Where a tensor lies; what the host holds is brought to the device."""
        fixed = self._fixed(tensor.name, self.bindings)
        if fixed is not None:
            return fixed
        if tensor.name not in self._buffers:
            shape = evaluate_shape(tensor.type.shape, self.bindings)
            nbytes = int(tensor.format.volume(shape)) * tensor.type.dtype.itemsize
            buffer = self.engine.device.allocate(max(1, nbytes))
            if tensor.name in self.values:
                packed = tensor.format.pack(np.asarray(self.values[tensor.name]))
                self.engine.device.upload(packed, buffer, self._stream)
            self._buffers[tensor.name] = buffer
        return self._buffers[tensor.name]


class OutputAllocator(Protocol):
    """TensorRT's IOutputAllocator: gives memory for an output whose size comes out of the run."""

    def reallocate_output_async(
        self, tensor_name: str, memory: int | None, size: int, alignment: int, stream: Any
    ) -> Any:
        """The address (or an array) where ``size`` bytes may be written. memory: always None."""
        ...

    def notify_shape(self, tensor_name: str, shape: tuple[int, ...]) -> None:
        """The shape of what will lie there."""
        ...


def allocated(
    allocator: OutputAllocator, tensor: PlanTensor, run: LateRun, nbytes: int, stream: Any
) -> Any:
    """Memory for one output of a run. Raises ExecutionError where the allocator gives none."""
    if tensor.type.on_host:
        raise ExecutionError(
            f"it is a {tensor.type}, which has no address",
            place=f"output '{tensor.name}'",
            remedy="use run(), which returns its value",
        )
    target = allocator.reallocate_output_async(tensor.name, None, nbytes, ALIGNMENT, stream)
    if target is None:
        raise ExecutionError(f"the allocator gave no {nbytes} bytes", place=tensor.name)
    allocator.notify_shape(tensor.name, evaluate_shape(tensor.type.shape, run.bindings))
    return target


def profile_of(runs: Sequence[LateRun]) -> Profile:
    """The profile of several runs: each step's time, copies to and from the host included."""
    rows = zip(runs[0].engine.plan.steps, runs[0].kernels, strict=True)
    layers = tuple(
        LayerProfile.of(s, k, [r.seconds[i] * 1e6 for r in runs]) for i, (s, k) in enumerate(rows)
    )
    whole = [sum(r.seconds) * 1e6 for r in runs]
    return Profile(layers, float(np.median(whole)), float(np.min(whole)), len(runs))
