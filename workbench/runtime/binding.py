"""What a context launches: an engine's calls bound to memory, once per set of sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench import dimensions
from workbench.runtime.direct import NONE, Owned
from workbench.runtime.engine import Engine
from workbench.runtime.given import check_shapes_set
from workbench.runtime.launching import Bound, Launcher
from workbench.runtime.memory import ContextMemory

MOST_BOUND = 32
"""Sets of sizes and of the caller's addresses to which the launches stay bound."""


class Binder:
    """Binds to a context's memory, and remembers it: what comes again costs a look."""

    def __init__(self, engine: Engine, memory: ContextMemory, launcher: Launcher) -> None:
        self._engine, self._memory, self._launcher = engine, memory, launcher
        self._bound: dict[tuple[Any, ...], Bound] = {}
        self._present: Bound | None = None

    def shapes_changed(self) -> None:
        """What was bound stays bound, for when its sizes come again."""
        self._present = None

    def forget(self) -> None:
        """Let go of everything, graphs included: memory or streams are others now."""
        self._present = None
        self._bound.clear()
        self._launcher.forget()

    def present(self, shapes: Mapping[str, tuple[int, ...]], owned: Owned = NONE) -> Bound:
        """The launches at the inputs' present shapes. Raises ExecutionError if one is not set."""
        if self._present is None:
            check_shapes_set(self._engine, shapes)
            self._present = self._remembered(self._engine.bindings_of(shapes), NONE)
        return self._remembered(self._present.bindings, owned) if owned else self._present

    def bind(
        self, bindings: Mapping[str, int], owned: Owned = NONE, *, on_one_stream: bool = False
    ) -> Bound:
        """Bind anew."""
        calls, plan = self._engine.calls(bindings), self._engine.plan
        memory, steps = self._memory, plan.steps
        if memory.reserve((s.stream, c.workspace_bytes) for s, c in zip(steps, calls, strict=True)):
            # Another size may want more scratch than any size of the build did.
            self.forget()
        shapes = {t.name: dimensions.evaluate_shape(t.type.shape, bindings) for t in plan.tensors}
        streams, io = self._launcher.streams, [t.name for t in self._engine.io_tensors]
        launches = tuple(
            call.bind(
                [memory.buffer(n, shapes[n], bindings, owned) for n in step.inputs],
                [memory.buffer(n, shapes[n], bindings, owned) for n in step.outputs],
                memory.scratch(call.workspace_bytes, step.stream) if call.workspace_bytes else None,
                streams[0 if on_one_stream else step.stream],
            )
            for step, call in zip(steps, calls, strict=True)
        )
        return Bound(
            launches,
            launches if on_one_stream else self._launcher.in_order(launches),
            bindings,
            shapes,
            {name: memory.buffer(name, shapes[name], bindings) for name in io},
            tuple(c.kernel for c in calls),
            all(c.capturable for c in calls),
        )

    def _remembered(self, bindings: Mapping[str, int], owned: Owned) -> Bound:
        key = (*sorted(bindings.items()), *((n, b.address) for n, b in owned.items()))
        if key not in self._bound:
            self._bound[key] = self.bind(bindings, owned)
            while len(self._bound) > MOST_BOUND:
                oldest = self._bound.pop(next(iter(self._bound)))
                self._launcher.forget(oldest)
                if oldest is self._present:
                    self._present = None
        return self._bound[key]
