"""The build log names what keeps a run from being one CUDA graph."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from engines import build, config

from workbench.errors import DeviceError
from workbench.runtime import ExecutionContext
from workbench.runtime.graph_check import graph_refusal, graph_text


@pytest.fixture
def engine():
    return build(config()).engine()


def test_an_engine_that_runs_is_one_graph(engine):
    assert graph_refusal(engine) == ""
    launches = sum(not s.is_view for s in engine.plan.steps)
    assert graph_text(engine, "") == f"one CUDA graph of {launches} steps"


def test_the_step_that_no_graph_records_is_named_with_its_tactic(engine):
    sizes = engine.bindings_of({k: v[1] for k, v in engine.plan.profiles[0].shapes.items()})
    calls = engine.calls(sizes)
    engine.calls = lambda bindings: (replace(calls[0], capturable=False), *calls[1:])
    step = engine.plan.steps[0]
    assert graph_refusal(engine) == f"none records {step.name} ({step.tactic.title})"
    assert graph_text(engine, "x") == "no CUDA graph: x"


def test_what_the_driver_says_is_told(engine, monkeypatch):
    def refused(context, inputs):
        raise DeviceError("CUDA records no graph of 3 launches: cudaErrorStreamCaptureInvalidated")

    monkeypatch.setattr(ExecutionContext, "run", refused)
    assert "cudaErrorStreamCaptureInvalidated" in graph_refusal(engine)


def test_a_plan_with_host_steps_names_them():
    step = SimpleNamespace(name="unique", on_host=True)
    plan = SimpleNamespace(is_late=True, steps=(step,))
    assert graph_refusal(SimpleNamespace(plan=plan)) == "the host runs unique"
    plan.steps = ()
    assert "the data decides" in graph_refusal(SimpleNamespace(plan=plan))
