"""What a killed process or a foreign file must not cost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from engines import build, config

from workbench.devices import CpuDevice
from workbench.errors import BuildCancelled
from workbench.records import CallbackMonitor
from workbench.timing import TimingCache

WRITER = """
import sys
from pathlib import Path
from workbench.files import write_atomically
target, old = Path(sys.argv[1]), bytes(1 << 20)
print("ready", flush=True)
for index in range(10**6):
    write_atomically(target, bytes([index % 256]) * (1 << 20))
"""


def test_a_killed_process_leaves_one_whole_file(tmp_path):
    target = tmp_path / "x.plan"
    target.write_bytes(bytes(1 << 20))
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        data = target.read_bytes()
        assert len(data) == 1 << 20
        assert data == data[:1] * len(data)


def test_a_cancelled_build_resumes_from_its_timings():
    cache, seen = TimingCache(CpuDevice().fingerprint), []
    made = config(level=2)
    made.timing_cache = cache
    made.progress_monitor = CallbackMonitor(
        lambda phase, done, total: seen.append((phase, done)),
        cancelled=lambda: ("Tune", 2) in seen,
    )
    with pytest.raises(BuildCancelled):
        build(made)
    kept = len(cache.entries)
    assert kept > 0
    again = config(level=2)
    again.timing_cache = cache
    state = build(again)
    assert state.tuned is not None
    assert state.tuned.cached >= kept
    assert state.sha256
