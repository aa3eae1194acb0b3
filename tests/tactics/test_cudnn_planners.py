"""cuDNN plans built in processes of their own; no cuDNN, no GPU needed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from workbench.datatypes import DataType
from workbench.tactics.compile_processes import CompileError
from workbench.tactics.cudnn import planners
from workbench.tactics.cudnn.frontend import PlanChoice
from workbench.tactics.cudnn.graph import Graph

SECONDS = 60
ANSWERS = """
import base64, json, os, pickle, sys
for line in sys.stdin:
    request = json.loads(line)
    graph, choice = pickle.loads(base64.b64decode(request["plan"]))
    if choice.engine == 1 and not os.path.exists({flag!r}):
        open({flag!r}, "w").close()
        os._exit(3)
    if choice.engine == 2:
        print(json.dumps({{"error": "no such engine"}}), flush=True)
        continue
    text = f"{{graph.variant}} on {{request['device']}}"
    print(json.dumps({{"code": base64.b64encode(text.encode()).decode()}}), flush=True)
"""
GRAPH = Graph("plain", (), (), (), (), DataType.HALF)


def gpu(index: int = 0, free_bytes: int = 64 << 30) -> SimpleNamespace:
    """As much of a GPU as is asked how many processes it holds."""
    asked: list[int] = []

    def memory_info() -> tuple[int, int]:
        asked.append(index)
        return free_bytes, free_bytes

    return SimpleNamespace(index=index, memory_info=memory_info, asked=asked)


@pytest.fixture
def pool(tmp_path, monkeypatch):
    program = tmp_path / "worker.py"
    program.write_text(ANSWERS.format(flag=str(tmp_path / "died")))
    monkeypatch.setattr(planners, "WORKER", program)
    made = planners.Planners()
    yield made
    for processes in made._pools.values():
        processes.close()


def begun(pool, engine: int, device=None):
    return pool.submit((str(engine),), GRAPH, PlanChoice(engine), device or gpu())


def test_a_plan_is_built_on_its_own_device_and_only_once(pool):
    device = gpu(3)
    first = begun(pool, 0, device)
    assert first.result(SECONDS) == b"plain on 3"
    assert begun(pool, 0, device) is first is pool.planned(("0",))
    assert set(device.asked) == {3}


def test_a_plan_whose_process_died_is_told_of_and_built_when_asked_again(pool):
    lost = begun(pool, 1)
    assert isinstance(lost.exception(SECONDS), CompileError)
    assert pool.planned(("1",)) is lost  # not for this process to try: it would end, too
    assert begun(pool, 1).result(SECONDS) == b"plain on 0"


def test_what_cudnn_says_of_a_plan_is_kept(pool):
    first = begun(pool, 2)
    assert "no such engine" in str(first.exception(SECONDS))
    assert begun(pool, 2) is first


@pytest.mark.parametrize(("gibibytes", "processes"), [(0, 1), (5, 2), (1000, 6)])
def test_as_many_processes_as_half_of_the_free_memory_holds(monkeypatch, gibibytes, processes):
    monkeypatch.setattr(planners, "usable_cpus", lambda: 64)
    assert planners.processes_for(gpu(free_bytes=gibibytes << 30)) == processes
