"""Plans that are built beforehand, side by side, in processes that each hold the GPU."""

from __future__ import annotations

import base64
import pickle
from concurrent.futures import Future
from pathlib import Path

from workbench.devices import usable_cpus
from workbench.gpu_device import GpuDevice
from workbench.tactics.compile_processes import CompileProcesses
from workbench.tactics.cudnn.frontend import PlanChoice
from workbench.tactics.cudnn.graph import Graph

WORKER = Path(__file__).with_name("worker.py")
MOST_PROCESSES = 6
PROCESS_BYTES = 1 << 30
"""Device memory that a process with its CUDA context and cuDNN may take, with room to spare."""


class Planners:
    """A pool of processes a device, and the plans that they were asked for."""

    def __init__(self) -> None:
        self._pools: dict[int, CompileProcesses] = {}
        self._planned: dict[tuple[str, ...], Future[bytes]] = {}

    def submit(
        self, key: tuple[str, ...], graph: Graph, choice: PlanChoice, device: GpuDevice
    ) -> Future[bytes]:
        """A plan's code when it is built; see ``CompileProcesses.submit``.

        key: all that decides it.
        """
        if device.index not in self._pools:
            self._pools[device.index] = CompileProcesses(WORKER, lambda: processes_for(device))
        plan = base64.b64encode(pickle.dumps((graph, choice))).decode()
        request = {"plan": plan, "device": device.index}
        self._planned[key] = self._pools[device.index].submit(key, request)
        return self._planned[key]

    def planned(self, key: tuple[str, ...]) -> Future[bytes] | None:
        """What was last begun under the key, also where it failed.

        What ends a process of its own would end this one, too: it is not built here instead.
        """
        return self._planned.get(key)


def processes_for(device: GpuDevice) -> int:
    """How many processes the device's free memory and the processors allow."""
    free, _ = device.memory_info()
    return max(1, min(MOST_PROCESSES, usable_cpus(), free // 2 // PROCESS_BYTES))


PLANNERS = Planners()
