"""What a CPU plan keeps in memory: neither the GPU's modules nor code that only preparing needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engines import build

from workbench.tactics.onednn.library import Library, load
from workbench.tactics.onednn.residence import forget_code
from workbench.tactics.onednn.source import ONEDNN

ALONE = """
import json, sys
import numpy as np
from pathlib import Path
from workbench.runtime import Runtime

def resident():
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            inside = "libdnnl" in line and "r-xp" in line
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) << 10
    return found

engine = Runtime("cpu").deserialize(sys.argv[1])
after = resident()
out = engine.create_execution_context().run({"image": np.ones((2, 3, 8, 8), np.float32)})
gpu = [m for m in sys.modules if m.startswith(
    tuple(f"workbench.tactics.{n}" for n in ("cudnn", "cublas_lt", "triton", "nvrtc")))]
print(json.dumps({"code": after, "gpu": gpu, "sum": float(np.abs(out["logits"]).sum())}))
"""


def loaded_alone(path: Path) -> dict[str, object]:
    command = [sys.executable, "-c", ALONE, str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_a_plan_of_cpu_kernels_loads_no_module_of_a_gpu_source(tmp_path: Path) -> None:
    state = build()
    assert state.plan is not None
    state.plan.save(tmp_path / "small.plan")
    assert loaded_alone(tmp_path / "small.plan")["gpu"] == []


@pytest.mark.skipif(
    ONEDNN.unavailable() is not None, reason="the wheel onednn-cpu-gomp is for Linux x86-64"
)
def test_onednns_code_is_out_of_memory_once_a_plan_is_loaded_and_the_plan_runs(
    tmp_path: Path,
) -> None:
    state = build()
    assert state.plan is not None
    assert any(s.tactic.source == "ONEDNN" for s in state.plan.steps)
    state.plan.save(tmp_path / "small.plan")
    found = loaded_alone(tmp_path / "small.plan")
    assert found["code"] == 0
    context = state.engine().create_execution_context()
    here = context.run({"image": np.ones((2, 3, 8, 8), np.float32)})["logits"]
    assert found["sum"] == pytest.approx(float(np.abs(here).sum()), rel=1e-6)


@pytest.mark.skipif(
    ONEDNN.unavailable() is not None, reason="the wheel onednn-cpu-gomp is for Linux x86-64"
)
def test_only_the_named_librarys_code_is_forgotten(tmp_path: Path) -> None:
    library = load()
    assert isinstance(library, Library)
    assert forget_code(library.path) > 1 << 20
    assert forget_code(tmp_path / "libother.so") == 0
