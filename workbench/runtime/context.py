"""ExecutionContext: one stream of executions of an engine, with its own memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Array, HostType, Value
from workbench.devices import Buffer
from workbench.errors import ExecutionError
from workbench.formats import LINEAR
from workbench.runtime.binding import Binder
from workbench.runtime.direct import CallersMemory
from workbench.runtime.engine import Engine
from workbench.runtime.given import as_value, check_input, check_shapes_set
from workbench.runtime.late import LateRun, OutputAllocator, allocated, profile_of
from workbench.runtime.launching import Bound, Launcher, ProfilingVerbosity
from workbench.runtime.memory import ContextMemory
from workbench.runtime.profiler import Profile, Profiled, Profiler, profiled
from workbench.runtime.repeated import Repeated
from workbench.runtime.taps import Observe, TappedRun, Taps
from workbench.tactics.protocol import Launch


class ExecutionContext:
    """Runs an engine. Several contexts share the engine's weights; each has its own arena.

    num_threads: of each CPU kernel. Each calling thread has a team of so many of its own; where
    they are as many as the processors, a long run binds each to one (see ``placing``).
    stream: its own, on which it runs where the caller names none.

    One context is for one thread at a time. Inputs and outputs pass through fixed slots; on a GPU,
    addresses that are set a second time are used as they are, without a copy.
    """

    def __init__(self, engine: Engine, profile: int = 0) -> None:
        self.engine = engine
        self.num_threads = engine.plan.threads
        self.profiler: Profiler | None = None
        self._device = engine.device
        self._launcher = Launcher(engine)
        self.stream = self._launcher.own
        self._addresses: dict[str, Any] = {}
        self._allocators: dict[str, OutputAllocator] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._callers = CallersMemory(engine.device)
        self._repeated: Repeated | None = None
        self.active_optimization_profile = -1
        self.set_optimization_profile_async(profile)

    # -- shapes and addresses -------------------------------------------------------------
    def set_optimization_profile_async(self, index: int, stream: Any = None) -> bool:
        """Use another profile: its arena replaces the present one. Raises ExecutionError."""
        profiles = self.engine.plan.profiles
        if not 0 <= index < len(profiles):
            raise ExecutionError(
                f"profile {index} of {len(profiles)}", place=self.engine.name, remedy="use 0 and up"
            )
        if index == self.active_optimization_profile:
            return True
        self.active_optimization_profile = index
        self._profile = profiles[index]
        self._launcher.forget()
        self._memory = ContextMemory(self.engine, self._profile)
        self._binder = Binder(self.engine, self._memory, self._launcher)
        self._repeated = None
        self._shapes = {}
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> None:
        """The shape of an input's next execution. Raises ExecutionError outside the profile."""
        tensor = self.engine.io(name)
        given = tuple(int(d) for d in shape)
        if tensor.kind != "input":
            raise ExecutionError("it is an output; its shape follows", place=f"tensor '{name}'")
        if self._shapes.get(name) == given:
            return
        self.engine.bindings_of({name: given})
        if name in self._profile.shapes:
            low, _, high = self._profile.shapes[name]
            if not all(a <= d <= b for a, d, b in zip(low, given, high, strict=True)):
                raise ExecutionError(
                    f"shape {given} is outside profile {self.active_optimization_profile}, "
                    f"which allows {low} to {high}",
                    place=f"input '{name}'",
                    remedy="give a shape inside, or build with a wider profile",
                )
        self._repeated = None
        self._binder.shapes_changed()
        self._shapes[name] = given

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Shape at the inputs' present shapes; -1 while a size is not yet set."""
        tensor = self.engine.io(name)
        if isinstance(tensor.type, HostType):
            raise ExecutionError(f"a {tensor.type} has no shape", place=f"tensor '{name}'")
        bound = self.engine.bindings_of(self._shapes)
        return tuple(
            dimensions.evaluate(d, bound) if dimensions.symbols_of(d) <= set(bound) else -1
            for d in tensor.type.shape
        )

    def set_tensor_address(self, name: str, address: Any) -> None:
        """Where an input is read or an output written: an address, or an array (kept alive)."""
        self.engine.io(name)
        self._addresses[name] = address

    def get_tensor_address(self, name: str) -> Any:
        return self._addresses.get(name)

    @property
    def use_graph(self) -> bool:
        """Whether a run is one CUDA graph, where its launches can be recorded."""
        return self._launcher.use_graph

    @use_graph.setter
    def use_graph(self, value: bool) -> None:
        self._launcher.use_graph = value

    @property
    def nvtx_verbosity(self) -> ProfilingVerbosity:
        """What NVTX ranges say of each layer. Other than NONE, runs are no CUDA graph."""
        return self._launcher.nvtx_verbosity

    @nvtx_verbosity.setter
    def nvtx_verbosity(self, value: ProfilingVerbosity) -> None:
        self._launcher.set_nvtx_verbosity(value)

    def set_aux_streams(self, aux_streams: Sequence[Any]) -> None:
        """The caller's streams (or their handles) for branches, in place of the context's own.

        Raises ExecutionError unless there are ``engine.num_aux_streams`` of them.
        """
        self._launcher.set_aux_streams(aux_streams)
        self._binder.forget()

    # -- execution ------------------------------------------------------------------------
    def execute_v2(self, bindings: Sequence[Any]) -> bool:
        """Run now with an address (or array) per input and output, in the engine's order."""
        for t, address in zip(self.engine.io_tensors, bindings, strict=True):
            self._addresses[t.name] = address
        if self._repeated is not None and self.profiler is None:
            self._repeated(bindings)
            return True
        self._enqueued(self.stream)()
        self._device.synchronize(self.stream)
        if self._repeated is None:
            self._repeated = self._repeatable()
        return True

    def execute_async_v3(self, stream_handle: Any = None) -> bool:
        """Enqueue a run on a stream, on the addresses that were set; returns before it ends.

        On the CPU a stream is a worker thread (``device.stream()``); without one it runs at once.
        Shapes and addresses are those of this call, whatever is set while it waits.
        """
        stream = self.stream if stream_handle is None else self._device.as_stream(stream_handle)
        run = self._enqueued(stream)
        submit = getattr(stream_handle, "submit", None)
        if submit is None:
            run()
        else:
            submit(run)
        return True

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run on host arrays; returns host arrays. Raises ExecutionError on a misfit.

        A sequence is a list of arrays, an empty optional is None.
        """
        return self._run(inputs)

    __call__ = run

    def tap(self, inputs: Mapping[str, Value], names: Sequence[str]) -> TappedRun:
        """``run``, and the values that inner tensors had: same plan, same kernels, same outputs.

        names: tensors of the plan, or inside its fused layers. Raises ExecutionError for another.
        """
        found = Taps(self.engine, names)
        return TappedRun(self._run(inputs, found.observe), found.values(inputs))

    def _run(self, inputs: Mapping[str, Value], observe: Observe | None = None) -> dict[str, Value]:
        for t in self.engine.io_tensors:
            if t.kind == "input":
                check_input(t, inputs)
        tensors = [self.engine.io(name) for name in inputs]
        for t, array in zip(tensors, inputs.values(), strict=True):
            if not isinstance(t.type, HostType):
                self.set_input_shape(t.name, np.shape(array))
        self._memory.put(inputs, self.stream)
        if self.engine.plan.is_late:
            run = self._late_run(inputs, observe)
            return {t.name: run.value(t.name) for t in self.engine.io_tensors if t.kind == "output"}
        bound = self._binder.present(self._shapes)
        if observe is None:
            self._launcher.launch(bound)
        else:
            self._launcher.each(
                bound, lambda step, _: observe(step, lambda name: self._read(name, bound))
            )
        return self._outputs(bound)

    def profile(self, inputs: Mapping[str, Value], *, iterations: int = 20) -> Profile:
        """Per-layer times on these inputs: each layer timed alone, and the whole end to end.

        Raises ExecutionError on inputs that do not fit, and for no iteration at all.
        """
        if iterations < 1:
            raise ExecutionError(
                f"{iterations} iterations", place="profile", remedy="give 1 or more"
            )
        self.run(inputs)
        if self.engine.plan.is_late:
            return profile_of([self._late_run(inputs) for _ in range(iterations)])
        bound = self._binder.present(self._shapes)
        alone = bound
        if self.engine.num_aux_streams:
            alone = self._binder.bind(bound.bindings, on_one_stream=True)
        parts = Profiled(
            lambda: self._launcher.launch(bound),
            tuple(zip(self.engine.plan.steps, bound.kernels, alone.launches, strict=True)),
            self._launcher.as_graph(bound),
            lambda: self.run(inputs),
            lambda: (self._memory.put(inputs, self.stream), self._outputs(bound)),
        )
        return profiled(parts, self._device, self.stream, iterations)

    # -- plans whose sizes only the data decides -------------------------------------------
    def set_output_allocator(self, name: str, allocator: OutputAllocator) -> bool:
        """Who gives memory for an output whose size is only known when it is computed."""
        if self.engine.io(name).kind != "output":
            raise ExecutionError("only outputs are allocated", place=f"tensor '{name}'")
        self._allocators[name] = allocator
        return True

    def get_output_allocator(self, name: str) -> OutputAllocator | None:
        return self._allocators.get(name)

    def _late_run(self, inputs: Mapping[str, Value], observe: Observe | None = None) -> LateRun:
        """Run with the inputs that are not in their slots; those that are stay there."""
        check_shapes_set(self.engine, self._shapes)
        bindings = self.engine.bindings_of(self._shapes)
        run = LateRun(self.engine, bindings, self._memory.fixed, self._memory.scratch, self.stream)
        for t in self.engine.io_tensors:
            if t.kind == "input" and t.name not in self._memory.slots:
                run.give(t, as_value(t, inputs[t.name]))
        run.run(observe)
        return run

    def _late_enqueued(self, stream: Any) -> Launch:
        """As ``_enqueued``: outputs of open size go through their allocators."""
        shapes = {t.name: self._shapes.get(t.name) for t in self.engine.io_tensors}
        addresses, allocators = dict(self._addresses), dict(self._allocators)
        for t in self.engine.io_tensors:
            late = t.kind == "output" and t.name not in self._memory.slots
            if late and t.name not in allocators:
                raise ExecutionError(
                    f"the size of output '{t.name}' is only known when it is computed",
                    remedy="call set_output_allocator first, or use run()",
                )
            if not late and t.name not in addresses:
                raise ExecutionError(
                    f"no address is set for '{t.name}'", remedy="call set_tensor_address first"
                )

        def run() -> None:
            self._shapes = {n: s for n, s in shapes.items() if s is not None}
            for t in self.engine.io_tensors:
                if t.kind == "input" and t.name in self._memory.slots:
                    sizes = self.engine.bindings_of(self._shapes)
                    shape = dimensions.evaluate_shape(t.type.shape, sizes)
                    slot = self._memory.buffer(t.name, shape, sizes)
                    self._device.copy_in(slot, addresses[t.name], stream)
            done = self._late_run(addresses)
            for s, seconds in zip(self.engine.plan.steps, done.seconds, strict=True):
                if self.profiler is not None:
                    self.profiler.report_layer_time(s.name, seconds * 1e3)
            for t in self.engine.io_tensors:
                if t.kind == "output":
                    buffer = done.stored(t)
                    target = addresses.get(t.name)
                    if t.name not in self._memory.slots:
                        target = allocated(allocators[t.name], t, done, buffer.nbytes, stream)
                    self._device.copy_out(target, buffer, stream)

        return run

    # -- inner ----------------------------------------------------------------------------
    def _repeatable(self) -> Repeated | None:
        """The present sizes' run, to come again; None where it is more than a list of calls."""
        if self._device.kind != "cpu" or self.engine.plan.is_late:
            return None
        bound = self._binder.present(self._shapes)
        slots: dict[str, list[Buffer]] = {"input": [], "output": []}
        for t in self.engine.io_tensors:
            slots[t.kind].append(bound.slots[t.name])
        return Repeated(bound, slots["input"], slots["output"], self._launcher.placed)

    def _enqueued(self, stream: Any) -> Launch:
        """A run on the present shapes and addresses. Raises ExecutionError if one is not set."""
        if self.engine.plan.is_late:
            return self._late_enqueued(stream)
        bound = self._binder.present(self._shapes)
        device, profiler = self._device, self.profiler
        for t in self.engine.io_tensors:
            if t.name not in self._addresses:
                raise ExecutionError(
                    f"no address is set for '{t.name}'", remedy="call set_tensor_address first"
                )
        slots = bound.slots
        owned = self._callers.buffers(
            {n: (self._addresses[n], slot.nbytes) for n, slot in slots.items()}
        )
        if owned:
            bound = self._binder.present(self._shapes, owned)
        places = [
            (t.kind, self._addresses[t.name], slots[t.name])
            for t in self.engine.io_tensors
            if not owned
        ]

        def run() -> None:
            for kind, address, slot in places:
                if kind == "input":
                    device.copy_in(slot, address, stream)
            self._launcher.launch(bound, stream, profiler)
            for kind, address, slot in places:
                if kind == "output":
                    device.copy_out(address, slot, stream)

        return run

    def _outputs(self, bound: Bound) -> dict[str, Array]:
        outputs = [t.name for t in self.engine.io_tensors if t.kind == "output"]
        return {name: self._read(name, bound) for name in outputs}

    def _read(self, name: str, bound: Bound) -> Array:
        """What lies in a tensor's memory now, in linear layout."""
        t, shape = self.engine.tensor(name), bound.shapes[name]
        stored = self._device.download(
            bound.slots.get(name) or self._memory.buffer(name, shape, bound.bindings),
            t.type.dtype,
            t.format.physical_shape(shape),
            self.stream,
        )
        return stored if t.format == LINEAR else t.format.unpack(stored, shape)
