"""Whether an engine's run becomes one CUDA graph, for the build's log."""

from __future__ import annotations

import numpy as np

from workbench.body import HostType, Value
from workbench.errors import DeviceError
from workbench.runtime.engine import Engine


def graph_refusal(engine: Engine) -> str:
    """Why no CUDA graph records a run at the first profile's opt sizes; empty where one did.

    The engine runs once, on zeros.
    """
    plan = engine.plan
    if plan.is_late:
        held = [s.name for s in plan.steps if s.on_host]
        return f"the host runs {', '.join(held)}" if held else "only the data decides some sizes"
    sizes = engine.bindings_of({k: v[1] for k, v in plan.profiles[0].shapes.items()})
    calls = zip(plan.steps, engine.calls(sizes), strict=True)
    held = [f"{s.name} ({s.tactic.title})" for s, c in calls if not c.capturable]
    if held:
        return f"none records {', '.join(held)}"
    inputs: dict[str, Value] = {}
    for t in engine.io_tensors:
        if t.kind == "input" and not isinstance(t.type, HostType):
            shape = engine.get_tensor_profile_shape(t.name, 0)[1]
            inputs[t.name] = np.zeros(shape, t.type.dtype.numpy)
    try:
        engine.create_execution_context().run(inputs)
    except DeviceError as e:
        return str(e)
    return ""


def graph_text(engine: Engine, refusal: str) -> str:
    """The same as a sentence."""
    if refusal:
        return f"no CUDA graph: {refusal}"
    launches = sum(not s.is_view for s in engine.plan.steps)
    return f"one CUDA graph of {launches} steps"
