"""A GPU that is not there: its kernels are compiled and loaded by name, nothing is launched."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from weakref import WeakValueDictionary

import cupy

from workbench.devices import CpuDevice, Fingerprint
from workbench.gpu_device import DeviceConstant, GpuDevice


class StandInGpu(GpuDevice):
    """Of a model and compute capability, times ten. modules: the code that was loaded."""

    def __init__(self, capability: int = 90, model: str = "stand-in") -> None:
        self.modules: list[bytes] = []
        module = lambda: SimpleNamespace(  # noqa: E731
            load=self.modules.append, get_function=lambda name: SimpleNamespace(ptr=0)
        )
        attributes = SimpleNamespace(funcSetAttribute=lambda *given: None)
        self.cupy = SimpleNamespace(
            cuda=SimpleNamespace(
                nvrtc=cupy.cuda.nvrtc, function=SimpleNamespace(Module=module), driver=attributes
            )
        )
        self.index, self.current = 0, nullcontext()
        self.main_stream = None
        self._host = CpuDevice(1)
        self._properties = {
            "major": capability // 10,
            "minor": capability % 10,
            "name": model.encode(),
        }
        self._constants = WeakValueDictionary()

    @property
    def fingerprint(self) -> Fingerprint:
        name = self._properties["name"].decode()
        return Fingerprint("gpu", name, (f"sm_{self.compute_capability}",))

    def allocate(self, nbytes):
        return self._host.allocate(max(1, nbytes))

    def constant(self, sources, packing="", make=None):
        return DeviceConstant(None, 0, 0, tuple(sources))
