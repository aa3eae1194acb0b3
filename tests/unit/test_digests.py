"""SHA-256 without OpenSSL, and what a process that runs a plan does not load."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engines import build, config

from workbench import digests

RUN = """
import sys
import numpy as np
from workbench.runtime import Runtime

engine = Runtime("cpu").deserialize(sys.argv[1], verify="lazy")
context = engine.create_execution_context()
(given,) = (t for t in engine.io_tensors if t.kind == "input")
context.run({given.name: np.load(sys.argv[2])})
print(*[name for name in ("hashlib", "_hashlib", "numpy.random", "onnx") if name in sys.modules])
"""


@pytest.mark.parametrize("length", [0, 55, 4096, digests.WORTH_OPENSSL + 1])
def test_a_digest_is_hashlibs(length):
    data = bytes(range(256)) * (length // 256) + bytes(length % 256)
    assert digests.sha256(data) == hashlib.sha256(data).digest()
    assert digests.sha256_hex(data) == hashlib.sha256(data).hexdigest()


def test_a_small_plan_runs_without_openssl_and_random_numbers(tmp_path: Path):
    """5 MB of a process of 60."""
    state = build(config(level=1))
    assert state.plan is not None
    plan, given = tmp_path / "small.plan", tmp_path / "x.npy"
    state.plan.save(plan)
    (shape,) = (t.type.shape for t in state.network.inputs)
    np.save(given, np.zeros([1 if not isinstance(n, int) else n for n in shape], np.float32))
    command = [sys.executable, "-c", RUN, str(plan), str(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert done.stdout.split() == []
